"""The shell around mailboxes: writes what they hold to `__sluice_inbox`, loads it from the local copy when wanted.

`store` makes everything durable that the given mailboxes have unstored, one record per session and run of entries; the
local copy (`local`, kept by `state`) reads the records back, and with `read_back` the mailboxes of sessions that are
away let go of what they have in memory. Loading is one row of the copy, plus one read of the log for each payload that
is only referred to and that nobody else has read lately.

What a session loses is counted, and told: messages that its bounds pushed out, that expired, that the log doesn't have
any more.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from broker.client import TopicPartition
from broker.client.errors import ClientError
from gateway.contract import INBOX, MalformedRecord
from gateway.counters import Counters
from gateway.ports import Message, Receipt
from gateway.receipts import over
from gateway.sessions.adopting import take_up
from gateway.sessions.entries import (
    Chunk,
    Entry,
    Origin,
    chunk_key,
    decode_chunk,
    encode_chunk,
    encode_single,
    parse_key,
    single_key,
    split,
)
from gateway.sessions.keeper import EXPIRED, FULL, GONE
from gateway.sessions.mailbox import Mailbox
from gateway.storage.ticks import Ticks

log = logging.getLogger("gateway.inbox")

SOON = 0.01
SLICE = 200  # mailboxes written in one turn of the loop
LOADS = 64  # at the same time
AGAIN = 1.0  # seconds until a load that failed is tried again
REPORT = 10.0  # seconds between two reports of how much waits
COMPLAIN = 10.0  # seconds between two complaints about records that are gone

Row = Callable[[bytes], Awaitable[bytes | None]]
Read = Callable[[Iterable[Origin]], Awaitable[dict[Origin, bytes]]]
Ended = Callable[[str, Message, str], None]
What = Chunk | Entry | tuple[int, bytes] | int
"""What a write was for: a chunk, a single, a chunk on the shelf, the end of a chunk."""


class Inbox:
    """The keeper of all mailboxes of this process."""

    def __init__(
        self,
        *,
        ticks: Callable[[], Ticks],
        counters: Counters,
        clock: Callable[[], float],
        row: Row,
        read: Read,
        ended: Ended,
        followed: Callable[[], bool],
        partitions: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`row` gives a value of the local copy by its key, `read` payloads from the log. `ended` is told of messages
        that a session lost, those it never looked at only while `followed` says that somebody keeps account of them.
        `partitions`: how many `__sluice_inbox` has."""
        self._ticks = ticks
        self._counters = counters
        self._clock = clock
        self._row = row
        self._read = read
        self._ended = ended
        self._followed = followed
        self._partitions = partitions
        self._loop = loop
        self.unsettled: dict[str, Mailbox] = {}
        self._settling: dict[str, int] = {}  # calls of `settle` whose writes have no outcome yet, by client id
        self._loads = asyncio.Semaphore(LOADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed: dict[str, Mailbox] = {}
        self._told: set[str] = set()  # whom something was said to wait for
        self._reporting: asyncio.TimerHandle | None = None
        self._gone_quietly = 0
        self._complained = float("-inf")
        self.chunks_written = 0
        self.chunks_loaded = 0

    # --- what can be seen of them

    def start(self, tell: Callable[..., None]) -> None:
        """Say every so often what changed: `tell(client id, ...)` with fields of `contract.Presence`."""

        def report() -> None:
            changed, self._changed = self._changed, {}
            for mailbox in changed.values():
                if mailbox.waiting:
                    self._told.add(mailbox.client_id)
                elif mailbox.client_id in self._told:
                    self._told.discard(mailbox.client_id)
                else:
                    continue
                tell(
                    mailbox.client_id,
                    queued=mailbox.waiting,
                    queued_bytes=mailbox.bytes,
                    dropped=mailbox.dropped,
                    expired=mailbox.expired,
                    missing=mailbox.missing,
                )
            self._reporting = self._loop.call_later(REPORT, report)

        self._reporting = self._loop.call_later(REPORT, report)

    # --- the mailboxes' side

    def touched(self, mailbox: Mailbox) -> None:
        self.unsettled[mailbox.client_id] = mailbox
        self._changed[mailbox.client_id] = mailbox

    def now(self) -> float:
        return self._clock()

    def wanted(self, mailbox: Mailbox) -> None:
        place = mailbox.shelf.first()
        if not mailbox.loading and place is not None:
            mailbox.loading = True
            self._spawn(self._load(mailbox, place.number))

    def dropped(self, mailbox: Mailbox, message: Message, why: str) -> None:
        self._count(mailbox, 1, why)
        self._ended(mailbox.client_id, message, why)

    def dropped_unseen(self, mailbox: Mailbox, number: int, first: int, count: int, why: str) -> None:
        self._count(mailbox, count, why)
        if self._followed():
            self._spawn(self._look_at(mailbox, number, first, count, why))

    def _count(self, mailbox: Mailbox, count: int, why: str) -> None:
        if why == FULL:
            self._counters.dropped_full += count
        elif why == EXPIRED:
            self._counters.expired += count
        elif why == GONE:
            self._counters.undeliverable += count
            self._gone_quietly += count
            now = self._clock()
            if now - self._complained > COMPLAIN:
                self._complained = now
                log.warning(
                    "%d messages kept for devices that were away are not in the log any more (last for %s): "
                    "the retention of their topics is shorter than the time that devices are away",
                    self._gone_quietly,
                    mailbox.client_id,
                )
                self._gone_quietly = 0

    # --- storing

    def _put(self, key: bytes, value: bytes | None, client_id: str) -> Receipt[None]:
        """All of a session's records go to one partition, so whatever is under way when a gateway dies, what is stored
        are the first of them: a newer message is never there without the older ones."""
        partition = zlib.crc32(client_id.encode()) % self._partitions
        return self._ticks().write(INBOX, value, key, partition=partition)

    def remove_singles(self, mailbox: Mailbox, numbers: Iterable[int]) -> None:
        """Of entries that a checkpoint has passed."""
        for number in numbers:
            self._put(single_key(mailbox.client_id, number), None, mailbox.client_id)

    def store_single(self, mailbox: Mailbox, entry: Entry) -> Receipt[None]:
        """Write one entry's own record now."""
        mailbox.unstored.pop(entry.number, None)
        mailbox.due.pop(entry.number, None)
        entry.single = True
        key = single_key(mailbox.client_id, entry.number)
        return self._put(key, encode_single(entry, mailbox.claim), mailbox.client_id)

    def flushed(self) -> Receipt[None]:
        """Settles when everything written so far has its outcome."""
        return self._ticks().flushed()

    async def settle_whole(self, mailbox: Mailbox) -> bool:
        """As `settle`, what others are writing for this mailbox at the moment included."""
        await over(self.flushed())
        while mailbox.client_id in self._settling:  # noqa: ASYNC110  # rare, and over in moments
            await asyncio.sleep(SOON)
        return await self.settle([mailbox])

    async def settle(self, mailboxes: Iterable[Mailbox]) -> bool:
        """Make everything durable that these hold; False: the outcome is unknown, and they are to be settled again. Of
        many each is asked for in its turn: some may have left by then."""
        writes: list[tuple[Receipt[None], Mailbox, What]] = []
        for number, mailbox in enumerate(mailboxes):
            writes += self._write(mailbox)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        good = True
        concerned = {mailbox.client_id for _, mailbox, _ in writes}
        for client_id in concerned:
            self._settling[client_id] = self._settling.get(client_id, 0) + 1
        try:
            for receipt, pairs in itertools.groupby(writes, lambda write: write[0]):
                await over(receipt)
                if receipt.failure is not None:
                    good = False
                    for _, mailbox, what in pairs:
                        self._again(mailbox, what)
        finally:
            for client_id in concerned:
                self._settling[client_id] -= 1
                if not self._settling[client_id]:
                    del self._settling[client_id]
        return good

    def _write(self, mailbox: Mailbox) -> list[tuple[Receipt[None], Mailbox, What]]:
        writes: list[tuple[Receipt[None], Mailbox, What]] = []
        stale, mailbox.stale = mailbox.stale, {}
        for chunk in stale.values():
            if chunk.entries:
                writes.append((self._write_chunk(mailbox, chunk), mailbox, chunk))
            else:
                mailbox.chunks.pop(chunk.number, None)
                mailbox.gone_chunks.append(chunk.number)
        unstored, mailbox.unstored = mailbox.unstored, {}
        for run in split(unstored.values()):
            chunk = Chunk(run[0].number, {each.number: each for each in run}, under_way=bool(run[0].packet_id))
            mailbox.chunks[chunk.number] = chunk
            for each in run:
                each.chunk = chunk
            writes.append((self._write_chunk(mailbox, chunk), mailbox, chunk))
        due = list(mailbox.due.values())
        writes += [(self.store_single(mailbox, entry), mailbox, entry) for entry in due]
        gone, mailbox.gone_chunks = mailbox.gone_chunks, []
        name, rewritten = mailbox.client_id, mailbox.rewritten
        mailbox.rewritten = {}
        for number, value in rewritten.items():
            writes.append((self._put(chunk_key(name, number), value, name), mailbox, (number, value)))
        writes += [(self._put(chunk_key(name, each), None, name), mailbox, each) for each in gone]
        return writes

    def _write_chunk(self, mailbox: Mailbox, chunk: Chunk) -> Receipt[None]:
        chunk.stale = False
        chunk.unread += 1
        self.chunks_written += 1
        value = encode_chunk(chunk.number, list(chunk.entries.values()), mailbox.claim, under_way=chunk.under_way)
        return self._put(chunk_key(mailbox.client_id, chunk.number), value, mailbox.client_id)

    def _again(self, mailbox: Mailbox, what: What) -> None:
        if isinstance(what, Chunk):
            what.unread -= 1
            what.stale = True
            mailbox.stale[what.number] = what
        elif isinstance(what, Entry):
            mailbox.due[what.number] = what
        elif isinstance(what, tuple):
            mailbox.rewritten[what[0]] = what[1]
        else:
            mailbox.gone_chunks.append(what)
        self.touched(mailbox)

    def read_back(self, keys: Iterable[bytes], mailboxes: Mapping[str, Mailbox]) -> None:
        """The local copy has these records."""
        for key in keys:
            try:
                client_id, number, is_chunk = parse_key(key)
            except MalformedRecord:
                continue
            mailbox = mailboxes.get(client_id)
            if is_chunk and mailbox is not None:
                mailbox.read_back(number)

    def forget(self, mailbox: Mailbox) -> None:
        """Write nothing more for this mailbox: somebody else has it now."""
        self.unsettled.pop(mailbox.client_id, None)
        self._changed.pop(mailbox.client_id, None)
        self._told.discard(mailbox.client_id)

    def discard(self, mailbox: Mailbox) -> None:
        """Remove all records of a session that ended."""
        self.forget(mailbox)
        if self._followed():
            for entry in (*mailbox.pending.values(), *mailbox.front.values(), *mailbox.tail.values()):
                self._ended(mailbox.client_id, entry.message, "the session ended")
            while (place := mailbox.shelf.first()) is not None:
                mailbox.shelf.take()
                mailbox.gone_chunks.append(place.number)
                look = self._look_at(mailbox, place.number, place.skip, place.count, "the session ended")
                self._spawn(look)
        name, singles = mailbox.client_id, [entry.number for entry in mailbox.pending.values() if entry.single]
        self.remove_singles(mailbox, dict.fromkeys(singles + mailbox.gone))
        for number in dict.fromkeys([*mailbox.shelf.numbers(), *mailbox.chunks, *mailbox.gone_chunks]):
            self._put(chunk_key(name, number), None, name)

    # --- loading

    async def oldest(self, mailbox: Mailbox) -> Message | None:
        """What has waited longest, in flight or not, perhaps without its payload; None: nothing waits, or it can't be
        read. For people to look at: changes nothing."""
        for place in (mailbox.pending, mailbox.front):
            if place:
                return next(iter(place.values())).message
        chunk = mailbox.shelf.first()
        if chunk is None:
            return next((entry.message for entry in mailbox.tail.values()), None)
        hidden = set(mailbox.hidden)
        value = await self._row(chunk_key(mailbox.client_id, chunk.number))
        if value is None:
            return None
        try:
            entries, _ = decode_chunk(chunk.number, value)
        except MalformedRecord:
            return None
        visible = [entry.message for entry in entries if entry.number not in hidden]
        return visible[chunk.skip] if chunk.skip < len(visible) else None

    async def _load(self, mailbox: Mailbox, number: int) -> None:
        async with self._loads:
            while mailbox.loading:
                try:
                    entries, lost = await self._chunk(mailbox.client_id, number)
                    self.chunks_loaded += 1
                    mailbox.loaded(number, entries, lost)
                    return
                except ClientError as error:
                    log.info("messages kept for %s can't be read now: %s", mailbox.client_id, error)
                    await asyncio.sleep(AGAIN)

    async def _chunk(self, client_id: str, number: int) -> tuple[list[Entry], set[int]]:
        """(its entries, the numbers of those whose payload is gone)."""
        value = await self._row(chunk_key(client_id, number))
        if value is None:
            log.error("chunk %d of %s is not in the local copy", number, client_id)
            return [], set()
        try:
            entries, missing = decode_chunk(number, value)
        except MalformedRecord as error:
            log.error("messages kept for %s are unreadable and left out: %s", client_id, error)
            return [], set()
        lost = set()
        if missing:
            found = await self._read(entry.message.origin for entry, _ in missing if entry.message.origin is not None)
            for entry, _ in missing:
                payload = found.get(entry.message.origin) if entry.message.origin is not None else None
                if payload is None:
                    lost.add(entry.number)
                else:
                    entry.message.payload = payload
        return entries, lost

    async def _look_at(self, mailbox: Mailbox, number: int, first: int, count: int, why: str) -> None:
        """Tell what became of entries that were dropped from the shelf."""
        try:
            entries, _ = await self._chunk(mailbox.client_id, number)
        except ClientError as error:
            log.warning("what became of messages kept for %s can't be told: %s", mailbox.client_id, error)
            return
        visible = [entry for entry in entries if entry.number not in mailbox.hidden]
        for entry in visible[first : first + count]:
            self._ended(mailbox.client_id, entry.message, why)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- after a restart, or when a session is taken over

    def restore(
        self,
        rows: Iterable[tuple[bytes, bytes]],
        mailboxes: Mapping[str, Mailbox],
        elsewhere: Callable[[str], bool],
        positions: Mapping[TopicPartition, int],
    ) -> None:
        """Take up all rows, in the order of their keys. Those of clients that have no mailbox here are removed unless
        they are `elsewhere`. See `adopt`."""
        for client_id, group in itertools.groupby(rows, lambda row: row[0].partition(b"\x00")[0]):
            name = client_id.decode("utf-8", "replace")
            mailbox = mailboxes.get(name)
            if mailbox is not None:
                self.adopt(mailbox, group, positions)
            elif not elsewhere(name):
                for key, _ in group:
                    self._put(key, None, name)

    def adopt(
        self, mailbox: Mailbox, rows: Iterable[tuple[bytes, bytes]], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Take up what the store has of one session, in the order of its keys. `positions` are where delivery will go
        on: what is stored of later records is not to be taken twice."""
        take_up(mailbox, rows, positions)
        if mailbox.gone or mailbox.stale or mailbox.rewritten or mailbox.gone_chunks:
            self.touched(mailbox)

    async def stop(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
        for task in self._tasks:
            task.cancel()
