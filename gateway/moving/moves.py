"""How sessions move: what a claim that was read means here, letting go of a session, and taking one up.

The home that `arrivals` brings sessions to. A session is let go of in this order: out of the fan-out, all of it into
the log, then the record that says so, with the positions delivery had when it left the fan-out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from broker.client import TopicPartition
from gateway.contract import StoredSession, parse_mark_key
from gateway.moving.arrivals import Arrivals, Cluster, positions_list
from gateway.peers.claims import Claims, Denied, Heard, Overwritten, Taken, Won
from gateway.peers.presence import PresenceBook
from gateway.ports import OFFLINE_FOR_EVER, Opened, Receipt, Refused, Session, settled
from gateway.publishing.wills import Wills, will_of
from gateway.receipts import over, refused
from gateway.sessions.inbox import Inbox
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.records import SessionRecords
from gateway.sessions.sessions import NOT_AUTHORIZED, TAKEN_OVER, Sessions
from gateway.why import Why

log = logging.getLogger("gateway.moving")

SETTLE_AGAIN = 0.2
SETTLE_ATTEMPTS = 50
Rows = Callable[[str], Awaitable[tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]]]


class Moves:
    """See the module."""

    def __init__(
        self,
        *,
        gateway: str,
        sessions: Sessions,
        inbox: Inbox,
        records: SessionRecords,
        wills: Wills,
        claims: Claims,
        book: PresenceBook,
        cluster: Cluster,
        clock: Callable[[], float],
        positions: Callable[[], Mapping[TopicPartition, int]],
        rows: Rows,
        held: Callable[[], bool],
        checkpointed: Callable[[], Mapping[TopicPartition, int]],
    ) -> None:
        """`rows` gives what the local copy has of a client: (inbox rows, session rows). `held`: the lease is.
        `checkpointed`: where delivery was at the last checkpoint."""
        self.arrivals = Arrivals(gateway, self, cluster, monotonic=time.monotonic)
        self._gateway = gateway
        self._sessions = sessions
        self._inbox = inbox
        self._records = records
        self._wills = wills
        self._claims = claims
        self._book = book
        self._clock = clock
        self._positions = positions
        self._rows = rows
        self._held = held
        self._checkpointed = checkpointed
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self.arrivals.start()

    def stop(self) -> None:
        self.arrivals.stop()
        for task in self._tasks:
            task.cancel()

    # --- for arrivals

    def arrived(self, session: Session, mailbox: Mailbox | None, epoch: int) -> Receipt[Opened]:
        """The claim counts, and what was kept elsewhere is here (None: nothing was)."""
        if mailbox is not None and mailbox.owner != session.identity.name:
            self.settled(mailbox, epoch)
            return refused(Refused(NOT_AUTHORIZED, "the client id is another principal's", why=Why.SESSION_OWNER))
        if mailbox is not None:
            mailbox.claim = epoch
        opened = self._sessions.attach(session, mailbox, epoch)
        if mailbox is not None:
            self._spawn(self._catch_up(mailbox, opened))
        return opened

    async def _catch_up(self, mailbox: Mailbox, stored: Receipt[Any]) -> None:
        """Once its record is stored, nothing is met twice any more. Until then whoever comes after goes on where it was
        left before it came here."""
        await over(stored)
        while stored.failure is not None:
            await asyncio.sleep(SETTLE_AGAIN)
            if self._sessions.mailboxes.get(mailbox.client_id) is not mailbox:
                return
            stored = self._sessions.store_mailbox(mailbox)
            await over(stored)
        mailbox.replayed = None
        if mailbox.gone and self._sessions.mailboxes.get(mailbox.client_id) is mailbox:
            self._inbox.touched(mailbox)

    def heard(self, event: Heard) -> None:
        """What a claim that was read means for this gateway."""
        client_id = event.client_id
        if isinstance(event, Won):
            mailbox = self._sessions.mailboxes.get(client_id)
            if mailbox is not None:
                mailbox.claim = event.epoch
                if event.previous is not None and event.previous.gateway != self._gateway:
                    self._sessions.store_mailbox(mailbox)  # who claimed in between must not wait
            self.arrivals.won(event)
        elif isinstance(event, Denied):
            session = self._sessions.live.get(client_id)
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
        self._sessions.doubtful_wills.discard(client_id)
        if client_id in self.arrivals:
            self._sessions.live.pop(client_id, None)
            self.arrivals.replaced(client_id, event.mine)
            return
        session = self._sessions.live.get(client_id)
        if session is not None:
            if event.adopted:
                session.state.will = None  # the adopter fires it
            session.close(TAKEN_OVER, "session taken over")
            self._sessions.live.pop(client_id, None)
        self._book.forget(client_id)
        mailbox = self._sessions.mailboxes.get(client_id)
        delayed = self._wills.due.pop(client_id, None)
        if mailbox is None:
            if event.mine.durable:
                self.arrivals.replaced(client_id, event.mine)
            return
        if event.fresh:
            if delayed is not None:
                self._wills.fire(client_id, mailbox.owner, delayed[1], delayed[2])
            self._sessions.discard(mailbox)
        else:
            # what was done since the last checkpoint may collide with what a successor did: it is done again there
            self.release(mailbox, event.mine.epoch, stale=event.adopted or not self._held())

    def release(self, mailbox: Mailbox, epoch: int, *, stale: bool = False) -> None:
        """Let go of a session: all of it is in the log before its record says so. `stale`: it may be another gateway's
        already, and is left as the last checkpoint has it."""
        stored = dict(self._positions()) | dict(self._checkpointed())
        positions = stored if stale else dict(self._positions())
        self.arrivals.leaving(mailbox.client_id, stored)
        self._sessions.leave(mailbox)
        if stale:
            self._inbox.forget(mailbox)
        self._spawn(self._release(mailbox, epoch, positions, stale))

    async def _release(self, mailbox: Mailbox, epoch: int, positions: dict[TopicPartition, int], stale: bool) -> None:
        for receipt in list(mailbox.inbound.values()):
            await over(receipt)
        for _ in range(0 if stale else SETTLE_ATTEMPTS):
            if await self._inbox.settle_whole(mailbox):
                break
            await asyncio.sleep(SETTLE_AGAIN)
        self._inbox.forget(mailbox)
        record = replace(
            self._records.of_mailbox(mailbox),
            claim=epoch,
            released=True,
            released_at=self._clock(),
            positions=positions_list(positions),
        )
        while True:
            stored = self._records.write(record)
            await over(stored)
            if stored.failure is None:
                break
            await asyncio.sleep(SETTLE_AGAIN)
            if mailbox.client_id in self.arrivals or mailbox.client_id in self._sessions.mailboxes:
                break  # it was stored, and the session is on its way back
        self.arrivals.left(mailbox.client_id)
        log.debug("%s is let go", mailbox.client_id)

    def pass_on(self, record: StoredSession) -> None:
        """Let go of what was not in the fan-out here."""
        self.arrivals.passing(record)
        self._records.write(record)

    async def take(self, records: list[StoredSession]) -> None:
        for receipt in [self._records.write(each) for each in records]:
            await over(receipt)

    async def rebuild(self, record: StoredSession, since: dict[TopicPartition, int]) -> Mailbox | None:
        now = self._clock()
        if record.disconnected_at is not None and record.expiry != OFFLINE_FOR_EVER:
            expired = not record.connected and now >= record.disconnected_at + record.expiry
        else:
            expired = False
        mailbox = self._records.mailbox_of(record, now)
        inbox, rows = await self._rows(record.client_id)
        self._inbox.adopt(mailbox, inbox, since)
        for key, _ in rows:
            mark = parse_mark_key(key)
            if mark is not None and mark[0] == record.client_id:
                mailbox.inbound[mark[1]] = settled()
        if expired:
            self._sessions.discard(mailbox)
            return None
        will = will_of(record.will)
        if will is not None and record.client_id not in self._sessions.live:
            due = record.will_at if record.will_at is not None else now + min(will.delay, record.expiry)
            self._wills.due[record.client_id] = (due, will, record.owner)
        self._sessions.keep(mailbox)
        return mailbox

    def abandoned(self, mailbox: Mailbox) -> None:
        self._sessions.leave(mailbox)
        self._inbox.forget(mailbox)

    def settled(self, mailbox: Mailbox, epoch: int) -> None:
        """A session is here whose device isn't."""
        mailbox.claim = epoch
        self._spawn(self._catch_up(mailbox, self._records.write(self._records.of_mailbox(mailbox))))

    def empty(self, client_id: str, epoch: int) -> None:
        """There is no session: a gateway that died had claimed the client id before there was one, or it has ended."""
        self._book.amend(client_id, clean=True)
        self._records.erase(client_id)

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        """The gateway of a session that was to end with its connection died, or its session has expired meanwhile: its
        will is due."""
        will = will_of(record.will)
        if will is not None:
            self._wills.fire(record.client_id, record.owner, will, record.owner)
        self.empty(record.client_id, epoch)

    def stored(self, client_id: str, writer: str | None, owner: str) -> None:
        """A session's record was read; `writer` is the gateway that wrote it, where that is known, `owner` whose the
        session is now."""
        self.arrivals.landed(client_id)
        if client_id in self.arrivals:
            self.arrivals.stored(client_id)
        elif owner not in ("", self._gateway):
            mailbox = self._sessions.mailboxes.get(client_id)
            if mailbox is not None:
                self._lost(mailbox)
        elif writer is not None and writer != self._gateway and self._claims.elsewhere(client_id) is None:
            self._say_again(client_id)

    def _lost(self, mailbox: Mailbox) -> None:
        """It was taken from this gateway, which was counted as dead."""
        client_id = mailbox.client_id
        log.warning("the session of %r was taken over while this gateway seemed dead", client_id)
        session = self._sessions.live.pop(client_id, None)
        mailbox.session = None  # nothing is to be written of it any more
        if session is not None:
            session.close(TAKEN_OVER, "the session is another gateway's")
        self._sessions.leave(mailbox)
        self._inbox.forget(mailbox)
        holder = self._claims.holders.get(client_id)
        if holder is not None and holder.gateway == self._gateway:
            self.arrivals.resume(client_id, holder)

    def _say_again(self, client_id: str) -> None:
        """Another's record, which doesn't stand or deletes it, is the newest."""
        session, mailbox = self._sessions.live.get(client_id), self._sessions.mailboxes.get(client_id)
        if session is not None and (mailbox is not None or session.state.will is not None):
            self._sessions.store(session)
        elif mailbox is not None:
            self._records.write(self._records.of_mailbox(mailbox))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
