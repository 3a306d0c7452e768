"""Sessions: who is connected here, what outlives a connection, and how a session comes and goes.

A client id belongs to the principal that first used it: another principal can neither take the connection over nor
read the session. Every connection claims its client id (`claims`), so that of two connections to whichever gateways the
newer one stays. A persistent session has a `Mailbox`, which stays in the fan-out of the gateway its device was last
connected to, until the device connects elsewhere or that gateway dies: then it moves (`arrivals`). Sessions with a
will, persistent or not, have a record in `__sluice_sessions`, so that the will of a gateway that died is fired.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from broker.client import TopicPartition
from gateway.arrivals import Arrivals, Cluster, positions_list, relayed
from gateway.claims import Claims, Denied, Heard, Overwritten, Taken, Won
from gateway.connected import Connection
from gateway.contract import Presence, StoredSession, parse_mark_key
from gateway.counters import Counters
from gateway.entries import Entry
from gateway.inbox import Inbox
from gateway.mailbox import Mailbox
from gateway.mqtt.fanout import Fanout
from gateway.policy import Policy
from gateway.ports import (
    OFFLINE_FOR_EVER,
    Ending,
    Opened,
    Receipt,
    Refused,
    Session,
    Subscription,
    settled,
)
from gateway.presence import PresenceBook
from gateway.receipts import again_if_failed, answer, over, refused
from gateway.records import SessionRecords
from gateway.registry import Registry
from gateway.wills import Wills, will_of

log = logging.getLogger("gateway.sessions")

SETTLE_AGAIN = 0.2
SETTLE_ATTEMPTS = 50
TAKEN_OVER = 0x8E
UNAVAILABLE = 0x88
NOT_AUTHORIZED = 0x87


class Sessions:
    """All sessions of this gateway, connected or not."""

    def __init__(
        self,
        *,
        gateway: str,
        registry: Registry,
        fanout: Fanout,
        counters: Counters,
        clock: Callable[[], float],
        positions: Callable[[], Mapping[TopicPartition, int]],
        inbox: Inbox,
        records: SessionRecords,
        wills: Wills,
        claims: Claims,
        book: PresenceBook,
        cluster: Cluster,
        presence: Callable[[Session, bool, str], Presence],
        rows: Callable[[str], Awaitable[tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]]],
        held: Callable[[], bool],
        cares: Callable[[str], bool],
    ) -> None:
        """`rows` gives what the local copy has of a client: (inbox rows, session rows). `held`: the lease is."""
        self.live: dict[str, Session] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.records = records
        self.arrivals = Arrivals(gateway, self, cluster, monotonic=time.monotonic)
        self._gateway = gateway
        self._registry = registry
        self._fanout = fanout
        self._counters = counters
        self._clock = clock
        self._positions = positions
        self._inbox = inbox
        self._wills = wills
        self._claims = claims
        self._book = book
        self._presence = presence
        self._rows = rows
        self._held = held
        self._cares = cares
        self._marks: dict[str, set[int]] = {}
        self._doubtful_wills: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- connecting

    def open(self, session: Session) -> Receipt[Opened]:
        client_id, request, principal = session.client_id, session.request, session.identity.name
        own = session.identity.detail if isinstance(session.identity.detail, Policy) else None
        rights = self._registry.rights(principal, client_id, own)
        if request.will is not None and (request.will.topic[:1] == "$" or not rights.may_publish(request.will.topic)):
            self._counters.denied += 1
            return refused(Refused(NOT_AUTHORIZED, "not authorised to publish the will"))
        if not self._held():
            return refused(Refused(UNAVAILABLE, "the gateway finds out what happened while it stood still"))
        current, mailbox = self.live.get(client_id), self.mailboxes.get(client_id)
        elsewhere = self._claims.elsewhere(client_id)
        if self._owner(current, mailbox, principal) != principal or (
            elsewhere is not None and elsewhere.principal != principal
        ):
            return refused(Refused(NOT_AUTHORIZED, "the client id is another principal's"))
        if current is not None:
            current.close(TAKEN_OVER, "session taken over")
        mailbox = self.mailboxes.get(client_id)
        if mailbox is not None and any(receipt.failure is not None for receipt in mailbox.inbound.values()):
            # a transaction failed: what the log says is true, and known once the lane works again
            return refused(Refused(UNAVAILABLE, "the session is being recovered"))
        session.state = connection = Connection(principal, rights, self._clock(), request.will)
        connection.own = own
        self.live[client_id] = session
        self._counters.connects += 1
        waits = client_id in self.arrivals or (
            mailbox is None and (session.durable or (elsewhere is not None and elsewhere.durable))
        )
        connection.token = self._book.claim(
            self._presence(session, True, ""), fresh=request.clean_start or not (waits or mailbox is not None)
        )
        if waits:
            return self.arrivals.expect(session, connection.token)
        return self._attach(session, mailbox)

    def _owner(self, current: Session | None, mailbox: Mailbox | None, principal: str) -> str:
        if current is not None:
            return str(current.state.principal)
        return mailbox.owner if mailbox is not None else principal

    def arrived(self, session: Session, mailbox: Mailbox | None, epoch: int) -> Receipt[Opened]:
        """The claim counts, and what was kept elsewhere is here (None: nothing was)."""
        if mailbox is not None and mailbox.owner != session.identity.name:
            self.settled(mailbox, epoch)
            return refused(Refused(NOT_AUTHORIZED, "the client id is another principal's"))
        if mailbox is not None:
            self._caught_up(mailbox, epoch)
        return self._attach(session, mailbox, epoch)

    def _caught_up(self, mailbox: Mailbox, epoch: int) -> None:
        mailbox.claim = epoch
        mailbox.replayed = None
        if mailbox.gone:
            self._inbox.touched(mailbox)

    def _attach(self, session: Session, mailbox: Mailbox | None, epoch: int = 0) -> Receipt[Opened]:
        client_id, request, connection = session.client_id, session.request, session.state
        delayed = self._wills.due.pop(client_id, None)
        if mailbox is not None and request.clean_start:
            claim = mailbox.claim
            self.discard(mailbox)
            mailbox = None
            epoch = epoch or claim
            if delayed is not None:  # the session ended: 3.1.3.2.2
                self._wills.fire(client_id, connection.principal, delayed[1], delayed[2])
        opened = Opened(present=False)
        if mailbox is not None:
            opened = Opened(present=True, state=mailbox.attach(session))
        elif session.durable:
            mailbox = self.records.mailbox(client_id, connection.principal, session.identity.limits)
            mailbox.claim = epoch
            mailbox.session = session
            self.mailboxes[client_id] = mailbox
        if mailbox is None and request.will is None:
            if epoch:  # whoever held the session left its record
                self.records.erase(client_id)
            return settled(opened)
        if mailbox is not None:
            limits = session.identity.limits
            connection.mailbox = mailbox
            mailbox.rights = connection.rights
            mailbox.own = connection.own
            mailbox.username = session.identity.username or ""
            mailbox.expiry = _expiry(session)
            mailbox.protocol = request.protocol
            mailbox.limit = limits.queue
            mailbox.limit_bytes = limits.queue_bytes
            mailbox.overflow = limits.overflow
        return answer(self.store(session), opened)

    def closed(self, session: Session, ending: Ending) -> None:
        client_id, connection = session.client_id, session.state
        if self.live.get(client_id) is session:
            del self.live[client_id]
        mailbox = connection.mailbox
        connection.feed = None
        if mailbox is not None and mailbox.session is not session:
            return  # it was replaced before its own opening was over
        if mailbox is None:
            self._fanout.drop(connection.gate or session, [each.filter for each in ending.state.subscriptions])
        else:
            mailbox.expiry = ending.session_expiry
            mailbox.detach(ending.state, self._clock())
            if not ending.session_expiry:
                self.discard(mailbox)
                mailbox = None
        will = connection.will if ending.will else None
        username = session.identity.username or ""
        if will is not None:
            delay = min(will.delay, ending.session_expiry) if mailbox is not None else 0
            if delay:
                self._wills.due[client_id] = (self._clock() + delay, will, username)
            else:
                self._fire_now(client_id, connection.principal, will, username)
        if mailbox is not None:
            self.records.write(self.records.of_mailbox(mailbox))
        elif connection.will is not None and self._held():
            self.records.erase(client_id)

    def _fire_now(self, client_id: str, principal: str, will: Any, username: str) -> None:
        if self._held():
            self._wills.fire(client_id, principal, will, username)
            return
        # whoever replaced this gateway while it stood still has fired it
        self._doubtful_wills.add(client_id)

        def still() -> bool:
            found = client_id in self._doubtful_wills
            self._doubtful_wills.discard(client_id)
            return found

        self._wills.fire(client_id, principal, will, username, still)

    def discard(self, mailbox: Mailbox) -> None:
        """End a persistent session and forget all it had."""
        self._leave(mailbox)
        self._inbox.discard(mailbox)
        for packet_id in mailbox.inbound:
            self.records.unmark(mailbox.client_id, packet_id)
        self.records.erase(mailbox.client_id)

    def _leave(self, mailbox: Mailbox) -> None:
        self._fanout.drop(mailbox, list(mailbox.subscriptions))  # type: ignore[arg-type]  # stands for its session
        if self.mailboxes.get(mailbox.client_id) is mailbox:
            del self.mailboxes[mailbox.client_id]

    # --- coming from another gateway, and going there

    def heard(self, event: Heard) -> None:
        """What a claim that was read means for this gateway."""
        client_id = event.client_id
        if isinstance(event, Won):
            mailbox = self.mailboxes.get(client_id)
            if mailbox is not None:
                mailbox.claim = event.epoch
            self.arrivals.won(event)
        elif isinstance(event, Denied):
            session = self.live.get(client_id)
            if not self.arrivals.denied(client_id, event.token) and (
                session is not None and session.state.token == event.token
            ):
                session.close(NOT_AUTHORIZED, "the client id is another principal's")
        elif isinstance(event, Taken):
            self._taken(event)
        elif isinstance(event, Overwritten):
            self._book.repeat(client_id)

    def _taken(self, event: Taken) -> None:
        client_id = event.client_id
        if self._claims.unheard(client_id):
            return  # a claim of our own comes later in the log
        self._doubtful_wills.discard(client_id)
        if client_id in self.arrivals:
            self.live.pop(client_id, None)
            self.arrivals.replaced(client_id, event.mine)
            return
        session = self.live.get(client_id)
        if session is not None:
            if event.adopted:
                session.state.will = None  # the adopter fires it
            session.close(TAKEN_OVER, "session taken over")
            self.live.pop(client_id, None)
        self._book.forget(client_id)
        mailbox = self.mailboxes.get(client_id)
        delayed = self._wills.due.pop(client_id, None)
        if mailbox is None:
            if event.mine.durable:
                self.arrivals.replaced(client_id, event.mine)
            return
        if event.fresh:
            if delayed is not None:
                self._wills.fire(client_id, mailbox.owner, delayed[1], delayed[2])
            self.discard(mailbox)
            self.relay(client_id, None, event.mine.epoch)
        else:
            self.release(mailbox, event.mine.epoch, delayed if event.adopted else None)

    def release(self, mailbox: Mailbox, epoch: int, will: tuple[float, Any, str] | None = None) -> None:
        """Let go of a session: all of it is in the log before its record says so."""
        positions = dict(self._positions())
        self._leave(mailbox)
        self._spawn(self._release(mailbox, epoch, positions, will))

    async def _release(
        self, mailbox: Mailbox, epoch: int, positions: dict[TopicPartition, int], will: tuple[float, Any, str] | None
    ) -> None:
        for receipt in list(mailbox.inbound.values()):
            await over(receipt)
        for _ in range(SETTLE_ATTEMPTS):
            if await self._inbox.settle([mailbox]):
                break
            await asyncio.sleep(SETTLE_AGAIN)
        self._inbox.forget(mailbox)
        if will is not None:
            self._wills.due[mailbox.client_id] = will
        record = self.records.of_mailbox(mailbox)
        self._wills.due.pop(mailbox.client_id, None)
        self.records.write(
            replace(record, claim=epoch, released=True, released_at=self._clock(), positions=positions_list(positions))
        )
        log.debug("%s is let go", mailbox.client_id)

    def relay(self, client_id: str, record: StoredSession | None, epoch: int) -> None:
        """Let go of what never came, or is no more."""
        if record is None:
            record = StoredSession(client_id=client_id, owner="", gateway=self._gateway, expiry=0)
        self.records.write(relayed(record, self._gateway, epoch))

    async def rebuild(self, record: StoredSession, since: dict[TopicPartition, int]) -> Mailbox | None:
        now = self._clock()
        if record.disconnected_at is not None and record.expiry != OFFLINE_FOR_EVER:
            expired = not record.connected and now >= record.disconnected_at + record.expiry
        else:
            expired = False
        mailbox = self.records.mailbox_of(record, now)
        inbox, rows = await self._rows(record.client_id)
        self._inbox.adopt(mailbox, inbox, since)
        for key, _ in rows:
            mark = parse_mark_key(key)
            if mark is not None and mark[0] == record.client_id:
                mailbox.inbound[mark[1]] = settled()
        if expired:
            self.discard(mailbox)
            return None
        will = will_of(record.will)
        if will is not None and record.client_id not in self.live:
            due = record.will_at if record.will_at is not None else now + min(will.delay, record.expiry)
            self._wills.due[record.client_id] = (due, will, record.owner)
        self.mailboxes[record.client_id] = mailbox
        return mailbox

    def settled(self, mailbox: Mailbox, epoch: int) -> None:
        """A session is here whose device isn't."""
        self._caught_up(mailbox, epoch)
        self.records.write(self.records.of_mailbox(mailbox))

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        """The gateway of a session that was to end with its connection died: its will is due."""
        will = will_of(record.will)
        if will is not None:
            self._wills.fire(record.client_id, record.owner, will, record.owner)
        self.records.erase(record.client_id)

    def stored(self, client_id: str, writer: str | None) -> None:
        """A session's record was read; `writer` is the gateway that wrote it, where that is known."""
        if client_id in self.arrivals:
            self.arrivals.stored(client_id)
        elif writer is not None and writer != self._gateway and self._claims.elsewhere(client_id) is None:
            session, mailbox = self.live.get(client_id), self.mailboxes.get(client_id)
            if session is not None and (mailbox is not None or session.state.will is not None):
                self.store(session)
            elif mailbox is not None:
                self.records.write(self.records.of_mailbox(mailbox))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def concerns(self, client_id: str) -> bool:
        """Whether a message for this client is this gateway's to deliver, or to say that nobody is there."""
        if client_id in self.live or client_id in self.mailboxes:
            return True
        if client_id in self.arrivals:
            return False  # it is read again when the session is here
        return self._claims.elsewhere(client_id) is None and self._cares(client_id)

    # --- subscriptions

    def subscriber(self, session: Session) -> Any:
        """Who stands in the fan-out for this session."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            return mailbox
        return session.state.gate or session

    def remember(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """A persistent session's subscriptions, to be durable before the SUBACK."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.subscriptions.update({each.filter: each for each in subscriptions})
            self.store(session)

    def forget(self, session: Session, filters: Sequence[str]) -> Receipt[Any]:
        mailbox = session.state.mailbox
        if mailbox is None:
            return settled()
        for each in filters:
            mailbox.subscriptions.pop(each, None)
        return self.store(session)

    def store(self, session: Session) -> Receipt[Any]:
        """Write a connected session's record."""
        holder = self._claims.holders.get(session.client_id)
        claim = holder.epoch if holder is not None and holder.gateway == self._gateway else 0
        return self.records.write(self.records.of_session(session, claim))

    def store_entry(self, mailbox: Mailbox, entry: Entry) -> Receipt[Any]:
        """Write one mailbox entry now."""
        return self._inbox.store_single(mailbox, entry)

    # --- QoS 2 from devices

    def release_packet(self, session: Session, packet_id: int) -> Receipt[Any]:
        """Forget a packet id's mark, durably."""
        if session.state.mailbox is None:
            return settled()
        return self._unmark(session.client_id, packet_id)

    def _unmark(self, client_id: str, packet_id: int) -> Receipt[Any]:
        receipt = self.records.unmark(client_id, packet_id)
        # a mark that stays would make the next message of this packet id a repetition
        again_if_failed(receipt, lambda: self._unmark(client_id, packet_id))
        return receipt

    def mark(self, client_id: str, packet_id: int, *, there: bool) -> None:
        """The log says whether a packet id is marked."""
        if there:
            self._marks.setdefault(client_id, set()).add(packet_id)
        elif client_id in self._marks:
            self._marks[client_id].discard(packet_id)
            if not self._marks[client_id]:
                del self._marks[client_id]

    async def recover(
        self, lanes_ready: Callable[[], Awaitable[None]], caught_up: Callable[[], Awaitable[None]]
    ) -> None:
        """Take the marks of sessions in doubt from the log, when it can be relied on again."""
        doubtful = [
            mailbox
            for mailbox in self.mailboxes.values()
            if mailbox.session is None and any(each.failure is not None for each in mailbox.inbound.values())
        ]
        if not doubtful:
            return
        await lanes_ready()
        await caught_up()
        for mailbox in doubtful:
            if mailbox.session is None:
                mailbox.inbound = {packet_id: settled() for packet_id in self._marks.get(mailbox.client_id, ())}

    # --- time

    def sweep(self) -> None:
        """Once a second: wills that are due, sessions that expired."""
        if not self._held():
            return
        now = self._clock()
        for client_id, (due, will, username) in list(self._wills.due.items()):
            if due <= now:
                del self._wills.due[client_id]
                mailbox = self.mailboxes.get(client_id)
                self._wills.fire(client_id, mailbox.owner if mailbox is not None else username, will, username)
                if mailbox is not None:
                    self.records.write(self.records.of_mailbox(mailbox))
        for mailbox in list(self.mailboxes.values()):
            at = mailbox.disconnected_at
            if at is not None and mailbox.expiry != OFFLINE_FOR_EVER and now >= at + mailbox.expiry:
                found = self._wills.due.pop(mailbox.client_id, None)
                if found is not None:
                    self._wills.fire(mailbox.client_id, mailbox.owner, found[1], found[2])
                self.discard(mailbox)
                self._book.amend(mailbox.client_id, clean=True)

    def start(self) -> None:
        self.arrivals.start()

    def stop(self) -> None:
        self.arrivals.stop()
        for task in self._tasks:
            task.cancel()


def _expiry(session: Session) -> int:
    return int(getattr(session, "session_expiry", session.request.session_expiry))  # as granted
