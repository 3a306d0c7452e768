"""Sessions: who is connected here, what outlives a connection, and how a session comes and goes.

A client id belongs to the principal that first used it: another principal can neither take the connection over nor
read the session. Every connection claims its client id (`claims`), so that of two connections to whichever gateways the
newer one stays. A persistent session has a `Mailbox`, which stays in the fan-out of the gateway its device was last
connected to, until the device connects elsewhere or that gateway dies: then it moves (`arrivals`). Sessions with a
will, persistent or not, have a record in `__sluice_sessions`, so that the will of a gateway that died is fired.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, Protocol

from gateway.contract import Presence
from gateway.counters import Counters
from gateway.mqtt.fanout import Fanout
from gateway.peers.claims import Claims
from gateway.peers.presence import PresenceBook
from gateway.policy import Policy
from gateway.ports import (
    OFFLINE_FOR_EVER,
    Ending,
    NotAcknowledged,
    Opened,
    Receipt,
    Refused,
    Session,
    Subscription,
    settled,
)
from gateway.publishing.wills import Wills
from gateway.receipts import after, again_if_failed, answer, refused
from gateway.registry import Registry
from gateway.sessions.connected import Connection
from gateway.sessions.entries import Entry
from gateway.sessions.inbox import Inbox
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.records import SessionRecords
from gateway.why import Why

log = logging.getLogger("gateway.sessions")

SETTLE_AGAIN = 0.2
SETTLE_ATTEMPTS = 50
TAKEN_OVER = 0x8E
UNAVAILABLE = 0x88
NOT_AUTHORIZED = 0x87
QUOTA_EXCEEDED = 0x97


class Awaiting(Protocol):
    """Sessions on their way here: `gateway.moving.arrivals`."""

    def __contains__(self, client_id: str) -> bool: ...

    def expect(self, session: Session, token: str) -> Receipt[Opened]: ...


class Nobody:
    """No session is on its way."""

    def __contains__(self, client_id: str) -> bool:
        return False

    def expect(self, session: Session, token: str) -> Receipt[Opened]:
        return refused(Refused(UNAVAILABLE, "sessions can't come from other gateways yet", why=Why.UNAVAILABLE))


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
        inbox: Inbox,
        records: SessionRecords,
        wills: Wills,
        claims: Claims,
        book: PresenceBook,
        presence: Callable[[Session, bool, str], Presence],
        held: Callable[[], bool],
        cares: Callable[[str], bool],
        alone: Callable[[], bool],
    ) -> None:
        """`held`: the lease is. `cares`: a client whose gateway is gone is in this one's care."""
        self.arrivals: Awaiting = Nobody()
        self.live: dict[str, Session] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.records = records
        self._gateway = gateway
        self._registry = registry
        self._fanout = fanout
        self._counters = counters
        self._clock = clock
        self._inbox = inbox
        self._wills = wills
        self._claims = claims
        self._book = book
        self._presence = presence
        self._held = held
        self._cares = cares
        self._alone = alone
        self._named: dict[str, set[str]] = {}  # who connected, of principals with a limit of connections
        self._marks: dict[str, set[int]] = {}
        self._soonest = 0.0  # before then no session expires
        self.doubtful_wills: set[str] = set()

    # --- connecting

    def open(self, session: Session) -> Receipt[Opened]:
        client_id, request, principal = session.client_id, session.request, session.identity.name
        own = session.identity.detail if isinstance(session.identity.detail, Policy) else None
        rights = self._registry.rights(principal, client_id, own)
        if request.will is not None and (request.will.topic[:1] == "$" or not rights.may_publish(request.will.topic)):
            self._counters.denied += 1
            return refused(Refused(NOT_AUTHORIZED, "not authorised to publish the will", why=Why.WILL))
        if not self._held():
            return refused(
                Refused(UNAVAILABLE, "the gateway finds out what happened while it stood still", why=Why.UNAVAILABLE)
            )
        current, mailbox = self.live.get(client_id), self.mailboxes.get(client_id)
        if mailbox is not None and self._over(mailbox):
            mailbox = None
        elsewhere = self._claims.elsewhere(client_id)
        if self._owner(current, mailbox, principal) != principal or (
            elsewhere is not None and elsewhere.principal != principal
        ):
            return refused(Refused(NOT_AUTHORIZED, "the client id is another principal's", why=Why.SESSION_OWNER))
        allowed = session.identity.limits.connections
        if allowed and self._others(principal, client_id, allowed) >= allowed:
            return refused(Refused(QUOTA_EXCEEDED, "the device has too many connections", why=Why.CONNECTIONS))
        kept = session.identity.limits.sessions
        if (
            (kept and session.durable and mailbox is None)
            and self._claims.kept(principal) >= kept
            and not self._claims.keeps(client_id, principal)
        ):
            return refused(Refused(QUOTA_EXCEEDED, "too many sessions are kept for the device", why=Why.SESSIONS))
        if current is not None:
            current.close(TAKEN_OVER, "session taken over")
        mailbox = self.mailboxes.get(client_id)
        if mailbox is not None and any(receipt.failure is not None for receipt in mailbox.inbound.values()):
            # a transaction failed: what the log says is true, and known once the lane works again
            return refused(Refused(UNAVAILABLE, "the session is being recovered", why=Why.UNAVAILABLE))
        session.state = connection = Connection(principal, rights, self._clock(), request.will)
        connection.own = own
        self.live[client_id] = session
        if session.identity.limits.connections:
            self._named.setdefault(principal, set()).add(client_id)
        self._counters.connects += 1
        waits = client_id in self.arrivals or (
            mailbox is None and (session.durable or (elsewhere is not None and elsewhere.durable))
        )
        connection.token, claimed = self._book.claim_durably(
            self._presence(session, True, ""), fresh=request.clean_start or not (waits or mailbox is not None)
        )
        if waits:
            opened = self.arrivals.expect(session, connection.token)
        else:
            opened = self.attach(session, mailbox)
            # where there are others: a device that was told it is connected has the newest claim
            if not self._alone() and opened.failure is None:
                opened = after(claimed, opened)
        if not opened.settled:
            again_if_failed(opened, lambda: self._not_opened(session))
        elif opened.failure is not None:
            self._not_opened(session)
        return opened

    def _not_opened(self, session: Session) -> None:
        """Nothing came of it: who was never told to be connected isn't said to be closed either."""
        client_id = session.client_id
        if self.live.get(client_id) is session:
            del self.live[client_id]
            self._book.note(self._presence(session, False, "not opened"))
        if client_id not in self.live:
            self._nameless(session.state.principal, client_id)

    def _others(self, principal: str, client_id: str, allowed: int) -> int:
        """How many connections a principal has with other client ids, at this gateway or elsewhere."""
        here = self._named.get(principal, set())
        if len(here) >= allowed:
            here.intersection_update(self.live)  # to be sure
        holder = self._claims.elsewhere(client_id)
        moves = holder is not None and holder.online and holder.principal == principal
        return len(here) - (client_id in here) + self._claims.connected_elsewhere(principal) - moves

    def _nameless(self, principal: str, client_id: str) -> None:
        """A connection is gone."""
        here = self._named.get(principal)
        if here is not None:
            here.discard(client_id)
            if not here:
                del self._named[principal]

    def _owner(self, current: Session | None, mailbox: Mailbox | None, principal: str) -> str:
        if current is not None:
            return str(current.state.principal)
        return mailbox.owner if mailbox is not None else principal

    def attach(self, session: Session, mailbox: Mailbox | None, epoch: int = 0) -> Receipt[Opened]:
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
            self.keep(mailbox)
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
        stored = self.store(session)
        if opened.state is not None and any(each.qos == 2 for each in opened.state.outbound):
            # they are sent again at once, and their packet ids may still be on their way into the log
            stored = after(self._inbox.flushed(), stored)
        return answer(stored, opened)

    def closed(self, session: Session, ending: Ending) -> None:
        client_id, connection = session.client_id, session.state
        if self.live.get(client_id) is session:
            del self.live[client_id]
        if client_id not in self.live:
            self._nameless(connection.principal, client_id)
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
            else:
                self._soonest = min(self._soonest, _end(mailbox))
        will = connection.will if ending.will else None
        username = session.identity.username or ""
        if will is not None:
            delay = min(will.delay, ending.session_expiry) if mailbox is not None else 0
            if delay:
                self._wills.due[client_id] = (self._clock() + delay, will, username)
            else:
                self._fire_now(client_id, connection.principal, will, username)
        if mailbox is not None:
            if client_id in self.mailboxes:  # or it has just been let go of
                self.records.write(self.records.of_mailbox(mailbox))
        elif connection.will is not None and self._held():
            self.records.erase(client_id)

    def _fire_now(self, client_id: str, principal: str, will: Any, username: str) -> None:
        if self._held():
            self._wills.fire(client_id, principal, will, username)
            return
        # whoever replaced this gateway while it stood still has fired it
        self.doubtful_wills.add(client_id)

        def still() -> bool:
            found = client_id in self.doubtful_wills
            self.doubtful_wills.discard(client_id)
            return found

        self._wills.fire(client_id, principal, will, username, still)

    def discard(self, mailbox: Mailbox) -> None:
        """End a persistent session and forget all it had."""
        self.leave(mailbox)
        self._inbox.discard(mailbox)
        for packet_id in mailbox.inbound:
            self.records.unmark(mailbox.client_id, packet_id)
        self.records.erase(mailbox.client_id)

    def end(self, mailbox: Mailbox) -> None:
        """End a persistent session whose device isn't connected, and say so."""
        self.discard(mailbox)
        self._book.amend(mailbox.client_id, clean=True)

    def keep(self, mailbox: Mailbox) -> None:
        """A persistent session is here from now on."""
        self.mailboxes[mailbox.client_id] = mailbox
        self._soonest = min(self._soonest, _end(mailbox))

    def leave(self, mailbox: Mailbox) -> None:
        self._fanout.drop(mailbox, list(mailbox.subscriptions))  # type: ignore[arg-type]  # stands for its session
        if self.mailboxes.get(mailbox.client_id) is mailbox:
            del self.mailboxes[mailbox.client_id]

    # --- downlink

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

    def standing(self, session: Session) -> int:
        """How many subscriptions the session's record has."""
        mailbox = session.state.mailbox
        return 0 if mailbox is None else len(mailbox.subscriptions)

    def remember(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """A persistent session's subscriptions, to be durable before the SUBACK."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.subscriptions.update({each.filter: each for each in subscriptions})
            self.store(session)

    def forget(self, session: Session, filters: Sequence[str]) -> Receipt[Any]:
        """Likewise that it has some no more, whether the device is still here or not."""
        mailbox = session.state.mailbox
        if mailbox is None:
            return settled()
        for each in filters:
            mailbox.subscriptions.pop(each, None)
        here = self.mailboxes.get(mailbox.client_id)
        if here is None or here is not mailbox:
            return refused(NotAcknowledged("the session is another gateway's"))
        return self.store_mailbox(here)

    def store(self, session: Session) -> Receipt[Any]:
        """Write a connected session's record. What was let go of is said to be let go of last."""
        mailbox = session.state.mailbox
        if mailbox is not None and self.mailboxes.get(session.client_id) is not mailbox:
            return refused(NotAcknowledged("the session is another gateway's"))
        holder = self._claims.holders.get(session.client_id)
        claim = holder.epoch if holder is not None and holder.gateway == self._gateway else 0
        return self.records.write(self.records.of_session(session, claim))

    def store_mailbox(self, mailbox: Mailbox) -> Receipt[Any]:
        """Write a persistent session's record, whether its device is here or not."""
        session = self.live.get(mailbox.client_id)
        if session is not None and session.state.mailbox is mailbox:
            return self.store(session)
        return self.records.write(self.records.of_mailbox(mailbox))

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
                marked: dict[int, Receipt[Any]] = {
                    packet_id: settled() for packet_id in self._marks.get(mailbox.client_id, ())
                }
                # what is under way still may not have been written when the log was read
                known = {packet_id: each for packet_id, each in mailbox.inbound.items() if each.failure is None}
                mailbox.inbound = marked | known

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
        if now >= self._soonest:  # sessions may be many, and expire seldom
            self._soonest = min(
                (_end(each) for each in list(self.mailboxes.values()) if not self._over(each)), default=inf
            )

    def _over(self, mailbox: Mailbox) -> bool:
        """Whether the session's expiry has passed (MQTT-4.1.0-2); then it is ended, and a will that waited is fired."""
        if self._clock() < _end(mailbox):
            return False
        found = self._wills.due.pop(mailbox.client_id, None)
        if found is not None:
            self._wills.fire(mailbox.client_id, mailbox.owner, found[1], found[2])
        self.end(mailbox)
        return True


def _end(mailbox: Mailbox) -> float:
    """When the session expires, if its device doesn't come back before; infinite while that is here."""
    at = mailbox.disconnected_at
    return inf if at is None or mailbox.expiry == OFFLINE_FOR_EVER else at + mailbox.expiry


def _expiry(session: Session) -> int:
    return int(getattr(session, "session_expiry", session.request.session_expiry))  # as granted
