"""A segment: a run of batches in one `.log` file with its indexes, in Kafka's formats.

Invariants. Every byte in a segment is durable in the journal already. `size` counts all of it; the first `written`
bytes are in the file, the rest waits in memory (`_tail`) for a write large enough to pay, or a checkpoint. A write in
another thread (`waiting`, then `wrote`) leaves the tail readable until it is done; what is written twice meanwhile is
the same bytes at the same place. Only the last segment of a partition grows. Index files are written at checkpoints and
when the segment is closed.

Bytes that an earlier process wrote (`trusted_from` and below) have their CRC checked on every read; what this process
wrote was checked when it came in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from broker.log import batches
from broker.log.batches import Info
from broker.log.failures import CorruptLog
from broker.log.files import File, Files
from broker.log.index import MalformedIndex, OffsetIndex, TimeIndex, TransactionIndex

Buffer = bytes | memoryview

LOG: Final = ".log"
OFFSETS: Final = ".index"
TIMES: Final = ".timeindex"
TRANSACTIONS: Final = ".txnindex"
SUFFIXES: Final = (LOG, OFFSETS, TIMES, TRANSACTIONS)
TAIL_BYTES: Final = 128 << 10  # a waiting tail is written once it is this large
TAIL_COST: Final = 250  # memory an element of the tail takes beside its bytes
_ENTRY_SIZES: Final = (OffsetIndex.entry_size, TimeIndex.entry_size, TransactionIndex.entry_size)
RELATIVE_MAX: Final = (1 << 31) - 1
SCAN_BYTES: Final = 4 << 20


def stem(base: int) -> str:
    """Kafka's file name for a segment beginning at that offset, without suffix."""
    return f"{base:020d}"


class Segment:
    """One segment of one partition."""

    __slots__ = (
        "_file",
        "_indexes_loaded",
        "_saved",
        "_tail",
        "_tail_at",
        "_tail_offsets",
        "base",
        "born",
        "dirty",
        "files",
        "first_timestamp",
        "folder",
        "max_timestamp",
        "max_timestamp_offset",
        "offsets",
        "since_index",
        "size",
        "tail_bytes",
        "times",
        "transactions",
        "transactions_lost",
        "trusted_from",
        "written",
    )

    def __init__(
        self,
        files: Files,
        folder: str,
        base: int,
        *,
        size: int = 0,
        born: bool = True,
        saved: Sequence[int] | None = None,
    ) -> None:
        """A new segment (`born`: its name is not yet durable), or one found on disk with `size` valid bytes.

        `saved`: how many entries of each index file count (a checkpoint's word); all of them without.
        """
        self._saved = saved
        self.dirty = False  # something of it is not yet synced
        self.files = files
        self.folder = folder
        self.base = base
        self.size = size
        self.written = size
        self.trusted_from = size
        self.born = born
        self._file: File | None = None
        self._tail: list[bytes] = []
        self._tail_at: list[int] = []  # position of each element
        self._tail_offsets: list[int] = []  # base offset of each element
        self.tail_bytes = 0
        self.since_index = 0
        self.first_timestamp = -1  # of the first batch; -1 unknown
        self.max_timestamp = -1
        self.max_timestamp_offset = base
        self.offsets = OffsetIndex(base)
        self.times = TimeIndex(base)
        self.transactions = TransactionIndex()
        self.transactions_lost = False  # the transaction index has to be worked out again by the partition
        self._indexes_loaded = born

    # -- files

    def path(self, suffix: str) -> str:
        """Path of one of its files."""
        return f"{self.folder}/{stem(self.base)}{suffix}"

    def file(self) -> File:
        """The open log file, made on first use."""
        if self._file is None:
            self._file = self.files.open(self.path(LOG), create=self.born)
        return self._file

    def release(self) -> None:
        """Let go of the open file; the next use opens it again."""
        self._file = None

    # -- growing

    def append(self, data: bytes, base_offset: int, infos: Iterable[Info], interval: int) -> None:
        """Take durable batches at the end, index them. Memory only; `flush` writes."""
        if not self._indexes_loaded:
            self.load_indexes()
        self.dirty = True
        position = self.size
        for info in infos:
            self._index(info, position + info.position, interval)
        if position == 0 and self.first_timestamp < 0:
            self.first_timestamp = self.max_timestamp
        self._tail.append(data)
        self._tail_at.append(position)
        self._tail_offsets.append(base_offset)
        self.size = position + len(data)
        self.tail_bytes += len(data) + TAIL_COST

    def _index(self, info: Info, position: int, interval: int) -> None:
        """Kafka's rule: an entry for the batch that begins more than `interval` bytes after the last one's."""
        if info.max_timestamp > self.max_timestamp:
            self.max_timestamp = info.max_timestamp
            self.max_timestamp_offset = info.last_offset
        if self.since_index > interval:
            self.offsets.append(info.last_offset, position)
            self.times.append(self.max_timestamp, self.max_timestamp_offset)
            self.since_index = 0
        self.since_index += info.size

    def flush(self) -> None:
        """Write the waiting tail to the file. Raises OSError and keeps the tail then."""
        if self._tail:
            self.file().write(self.written, self._tail)
            self.wrote(self.size)

    def waiting(self) -> tuple[File, int, list[Buffer]]:
        """The waiting tail, for a thread to write: file, position, bytes. Raises OSError when it can't be opened."""
        return self.file(), self.written, list(self._tail)

    def wrote(self, end: int) -> None:
        """The file holds everything before position `end`: that part of the tail is let go."""
        if end <= self.written:
            return
        count = bisect_left(self._tail_at, end)
        self.written = end
        self.tail_bytes -= sum(map(len, self._tail[:count])) + TAIL_COST * count
        del self._tail[:count], self._tail_at[:count], self._tail_offsets[:count]

    def seal(self) -> None:
        """No more appends: the time index gets its last entry, as Kafka's does."""
        self.load_indexes()
        self.times.append(self.max_timestamp, self.max_timestamp_offset)

    def unsaved(self) -> list[tuple[str, int, bytes]]:
        """Index bytes not yet in their files, as (path, position, bytes); counts them as saved."""
        out: list[tuple[str, int, bytes]] = []
        if not self._indexes_loaded:
            return out
        for suffix, index in ((OFFSETS, self.offsets), (TIMES, self.times), (TRANSACTIONS, self.transactions)):
            if index.saved < len(index) or (self.born and suffix != TRANSACTIONS):
                out.append((self.path(suffix), index.saved * index.entry_size, index.dump(index.saved)))
                index.saved = len(index)
        return out

    def saved(self) -> list[int]:
        """How many entries of each index file count."""
        if not self._indexes_loaded:
            if self._saved is not None:
                return list(self._saved)
            self.load_indexes()
        return [self.offsets.saved, self.times.saved, self.transactions.saved]

    def unsave(self, saved: tuple[int, int, int]) -> None:
        """Writing index bytes failed: they are to be written again from there."""
        self.offsets.saved, self.times.saved, self.transactions.saved = saved

    # -- reading

    def read(
        self, offset: int, max_bytes: int, below: int, at_least_one: bool, dense: bool, ceiling: int
    ) -> tuple[list[Buffer], int, int]:
        """Whole batches from the one that ends at or after `offset`, with base offsets under `below`.

        `dense`: nothing was compacted here, so offsets follow each other; `ceiling`: all are below it.

        Gives (buffers, bytes, next offset); the next offset is -1 when nothing was found. Raises CorruptLog.
        """
        if self._tail_offsets and offset >= self._tail_offsets[0]:
            return self._read_tail(offset, max_bytes, below, at_least_one)
        start = self._floor(offset)
        while True:
            data = self._bytes(start, max_bytes + 2 * 4096)
            skip = batches.find(data, offset)
            if skip + 61 <= len(data):
                break
            if start + skip == self.size:
                return [], 0, -1
            if start + skip > self.size:
                raise CorruptLog(f"{self.path(LOG)}: a batch near byte {start} reaches beyond the end")
            if not skip:
                raise CorruptLog(f"{self.path(LOG)} ends inside a batch at byte {start}")
            start += skip
        first = batches.size_at(data, skip)
        if start + skip + first > self.size:
            raise CorruptLog(f"{self.path(LOG)}: the batch at byte {start + skip} reaches beyond the end")
        if first > max_bytes:
            if not at_least_one:
                return [], 0, -1
            max_bytes = first
        if len(data) - skip < max_bytes and start + len(data) < self.size:
            start, skip, data = start + skip, 0, self._bytes(start + skip, max_bytes)
        end, following = batches.whole(data, skip, max_bytes, below, self._near_end(start, skip, max_bytes, below))
        if end == skip:
            base = int.from_bytes(data[skip : skip + 8], "big")
            if dense or base >= ceiling:
                raise CorruptLog(f"{self.path(LOG)}: the batch at byte {start + skip} says offset {base}")
            return [], 0, -1
        if start + skip < self.trusted_from:
            self._check(data, skip, end, start + skip, offset if dense else -1)
        return [memoryview(data)[skip:end]], end - skip, following

    def _near_end(self, start: int, skip: int, max_bytes: int, below: int) -> int:
        """Where in data (read from `start`) to begin looking for the end: the last indexed batch that surely fits."""
        positions = self.offsets.positions
        slot = bisect_right(positions, start + skip + max_bytes) - 1
        if slot < 0:
            return skip
        return max(skip, min(positions[slot], self.offsets.floor(below - 1)) - start)

    def _read_tail(self, offset: int, max_bytes: int, below: int, at_least_one: bool) -> tuple[list[Buffer], int, int]:
        slot = bisect_right(self._tail_offsets, offset) - 1
        buffers: list[Buffer] = []
        total, following, skip = 0, -1, batches.find(self._tail[slot], offset)
        if skip == len(self._tail[slot]):
            slot, skip = slot + 1, 0
        for data in self._tail[slot:]:
            room = max_bytes - total
            if room <= 0 and not (at_least_one and not buffers):
                break
            if not buffers and at_least_one:
                room = max(room, batches.size_at(data, skip))
            end, after = batches.whole(data, skip, room, below)
            if end > skip:
                buffers.append(data if end - skip == len(data) else memoryview(data)[skip:end])
                total += end - skip
                following = after
            if end < len(data):
                break
            skip = 0
        return buffers, total, following

    def _floor(self, offset: int) -> int:
        self.load_indexes()
        return self.offsets.floor(offset)

    def _bytes(self, position: int, size: int) -> bytes:
        """Bytes of the log from file and tail alike; fewer only at the end."""
        size = min(size, self.size - position)
        if size <= 0:
            return b""
        if position + size <= self.written:
            data = self.file().read(position, size)
            if len(data) < size:
                raise CorruptLog(f"{self.path(LOG)} ends at {position + len(data)}, not at {self.written}")
            return data
        parts = [self.file().read(position, self.written - position)] if position < self.written else []
        missing = position + size - max(position, self.written)
        at = max(position, self.written)
        for slot in range(max(0, bisect_right(self._tail_at, at) - 1), len(self._tail)):
            if missing <= 0:
                break
            skip = at - self._tail_at[slot]
            part = self._tail[slot][skip : skip + missing]
            parts.append(part)
            at += len(part)
            missing -= len(part)
        return b"".join(parts)

    def _check(self, data: bytes, start: int, end: int, position: int, offset: int) -> None:
        """Bytes of an earlier process: CRCs must fit, and offsets follow each other (from `offset`, if not -1)."""
        for info in batches.walk(data, start, end):
            where = f"{self.path(LOG)}: the batch at byte {position + info.position - start}"
            if offset >= 0 and not info.base_offset <= offset <= info.last_offset:
                raise CorruptLog(f"{where} says offset {info.base_offset}, {offset} was next")
            if not batches.intact(data, info):
                raise CorruptLog(f"{where} (offsets {info.base_offset} to {info.last_offset}) fails its CRC")
            offset = info.last_offset + 1 if offset >= 0 else -1

    def infos(self, start: int = 0, end: int | None = None) -> Iterable[tuple[Info, bytes]]:
        """Every batch from position `start` on with the bytes it lies in (its `position` is within those)."""
        stop = self.size if end is None else end
        while start < stop:
            data = self._bytes(start, min(SCAN_BYTES, stop - start))
            used = 0
            for info in batches.walk(data):
                yield info, data
                used = info.position + info.size
            if not used:
                needed = batches.size_at(data, 0) if len(data) >= 61 else 0
                if needed <= len(data) or start + needed > stop:
                    raise CorruptLog(f"{self.path(LOG)} ends inside a batch at byte {start}")
                data = self._bytes(start, needed)
                for info in batches.walk(data):
                    yield info, data
                    used = info.position + info.size
                if not used:
                    raise CorruptLog(f"{self.path(LOG)}: no whole batch at byte {start}")
            start += used

    # -- indexes

    def load_indexes(self) -> None:
        """Have the indexes in memory. One that can't belong to the segment is rebuilt from the log."""
        if self._indexes_loaded:
            return
        self._indexes_loaded = True
        try:
            self._load_indexes()
        except BaseException:
            self._indexes_loaded = False
            raise

    def _load_indexes(self) -> None:
        try:
            data = [self._index_bytes(slot, suffix) for slot, suffix in enumerate(SUFFIXES[1:])]
            self.offsets.load(data[0], self.size)
            self.times.load(data[1])
            self.transactions.load(data[2])
        except MalformedIndex:
            self.rebuild_indexes()
            self.dirty = self.transactions_lost = True
            if self._saved is None:  # a closed segment
                self.seal()
            return
        self.max_timestamp, self.max_timestamp_offset = self.times.last()
        self._finish_load()

    def _index_bytes(self, slot: int, suffix: str) -> bytes:
        try:
            size = self.files.size_of(self.path(suffix))
            file = self.files.open(self.path(suffix))
        except FileNotFoundError:
            size, file = 0, None
        if self._saved is None:
            if file is None and suffix != TRANSACTIONS and self.size:
                raise MalformedIndex(f"{self.path(suffix)} is missing")
            return file.read(0, size) if file is not None else b""
        counts = self._saved[slot] * _ENTRY_SIZES[slot]
        if size < counts:
            raise MalformedIndex(f"{self.path(suffix)} is shorter than at the checkpoint")
        if file is None:
            return b""
        if size > counts:
            file.truncate(counts)
        return file.read(0, counts)

    def _finish_load(self) -> None:
        """What the indexes don't tell: the batches after the last entry, and the first timestamp."""
        start = self.offsets.positions[-1] if len(self.offsets) else 0
        self.since_index = 0
        for info, _ in self.infos(start):
            self.since_index += info.size
            if info.max_timestamp > self.max_timestamp:
                self.max_timestamp, self.max_timestamp_offset = info.max_timestamp, info.last_offset
        head = self._bytes(0, 61)
        if len(head) == 61:
            self.first_timestamp = batches.HEADER.unpack(head)[8]

    def rebuild_indexes(self, interval: int = 4096) -> None:
        """Make the offset and time index anew from the log; what transactions it ended only the partition knows."""
        self._indexes_loaded = True
        self.offsets, self.times, self.transactions = OffsetIndex(self.base), TimeIndex(self.base), TransactionIndex()
        self.since_index, self.max_timestamp, self.max_timestamp_offset = 0, -1, self.base
        position = 0
        for info, _ in self.infos():
            self._index(info, position, interval)
            if position == 0:
                self.first_timestamp = info.max_timestamp
            position += info.size

    def remove(self) -> None:
        """Remove its files, the log first: indexes without a log are swept away when the store opens."""
        for suffix in SUFFIXES:
            self.files.remove(self.path(suffix))
        self._tail.clear()
        self._tail_at.clear()
        self._tail_offsets.clear()
        self._file = None
