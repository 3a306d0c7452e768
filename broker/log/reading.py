"""What readers see of a partition: batches by offset, offsets by time, aborted transactions.

Nothing at or above the high watermark is ever shown, nor with `committed` at or above the last stable offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from broker.log.answers import Aborted, Slice, TimeIndexHit
from broker.log.batches import CONTROL, TRANSACTIONAL, Info
from broker.log.durable import DurableLog
from broker.log.failures import CorruptLog, OffsetOutOfRange, StorageUnreadable
from broker.log.index import AbortedTransaction
from broker.log.segment import Segment
from broker.wire import batch as wire

Buffer = bytes | memoryview


class ReadableLog(DurableLog):
    """The durable log, as readers are shown it."""

    _warm: Segment | None = None  # the closed segment whose file is kept open

    def read(self, offset: int, max_bytes: int, *, committed: bool = False, at_least_one: bool = True) -> Slice:
        """Batches from the one holding `offset` on, below the high watermark (the LSO with `committed`).

        Empty at the end. `at_least_one`: the first batch comes whole even when larger than max_bytes.
        Raises OffsetOutOfRange, CorruptLog.
        """
        stable = self.last_stable_offset
        limit = stable if committed else self.high_watermark
        if offset < self.log_start_offset or offset > self.log_end_offset:
            raise OffsetOutOfRange(f"{offset} is not between {self.log_start_offset} and {self.log_end_offset}")
        buffers: Sequence[Buffer] = ()
        size, following = 0, offset
        if offset < limit:
            buffers, size, following = self._read(offset, max_bytes, limit, at_least_one)
        return Slice(
            buffers=buffers,
            size=size,
            high_watermark=self.high_watermark,
            last_stable_offset=stable,
            log_start_offset=self.log_start_offset,
            aborted=self._aborted(offset, following) if committed else None,
        )

    def _read(self, offset: int, max_bytes: int, limit: int, at_least_one: bool) -> tuple[Sequence[Buffer], int, int]:
        for gap in self.gaps:
            if gap.start <= offset < gap.end:
                raise CorruptLog(gap.why)
        slot = self._slot(offset)
        for place, segment in enumerate(self.segments[slot:], slot + 1):
            if segment is not self.segments[-1] and segment is not self._warm:
                if self._warm is not None and self._warm is not self.segments[-1]:
                    self._warm.release()
                self._warm = segment
            try:
                dense = segment.base >= self.loose_offset and not self.gaps
                begin = max(offset, segment.base)
                ceiling = self.segments[place].base if place < len(self.segments) else self.high_watermark
                buffers, size, following = segment.read(begin, max_bytes, limit, at_least_one, dense, ceiling)
            except CorruptLog as error:
                self._store.damaged(str(error))
                raise
            except OSError as error:
                raise self._unreadable(segment, error) from error
            if buffers:
                return buffers, size, following
            if segment.base + 1 > limit:
                break
        return (), 0, offset

    def _unreadable(self, segment: Segment, error: OSError) -> StorageUnreadable:
        failure = StorageUnreadable(f"{segment.path('.log')} can't be read: {error.strerror}")
        self._store.damaged(str(failure))
        return failure

    def _slot(self, offset: int) -> int:
        """Index of the segment whose range holds that offset."""
        low, high = 0, len(self.segments)
        while low < high:
            middle = (low + high) // 2
            if self.segments[middle].base <= offset:
                low = middle + 1
            else:
                high = middle
        return max(0, low - 1)

    def drop_segments(self) -> list[Segment]:
        """Take out the segments that lie wholly before the log's start; the caller removes their files."""
        gone = super().drop_segments()
        if self._warm in gone:
            self._warm = None
        return gone

    def replace_segments(self, slot: int, count: int, fresh: list[Segment]) -> None:
        """Compaction's result stands for `count` segments from `slot` on."""
        if self._warm in self.segments[slot : slot + count]:
            self._warm = None
        super().replace_segments(slot, count, fresh)

    # -- aborted transactions

    def _aborted(self, offset: int, below: int) -> list[Aborted]:
        """Aborted transactions that reach into [offset, below), in order of their first offsets."""
        found = [
            Aborted(producer_id=entry.producer_id, first_offset=entry.first_offset)
            for entry in self.aborted_transactions(offset)
            if entry.first_offset < below
        ]
        found.sort(key=lambda aborted: aborted.first_offset)
        return found

    def aborted_transactions(self, offset: int = 0) -> Iterable[AbortedTransaction]:
        """Those whose marker lies at or after `offset`, in order of their markers."""
        for segment in self.segments[self._slot(offset) :]:
            segment.load_indexes()
            if segment.transactions_lost:
                segment.transactions_lost = False
                segment.transactions.entries = self.ended_transactions().get(segment.base, [])
            entries = segment.transactions.entries
            yield from entries[bisect_right(entries, offset - 1, key=lambda entry: entry.last_offset) :]

    def ended_transactions(self) -> dict[int, list[AbortedTransaction]]:
        """The aborted transactions per segment, worked out from the batches (when an index is not to be had)."""
        out: dict[int, list[AbortedTransaction]] = {}
        running: dict[int, int] = {}
        for segment in self.segments:
            for info, data in segment.infos():
                if not info.attributes & TRANSACTIONAL:
                    continue
                if not info.attributes & CONTROL:
                    running.setdefault(info.producer_id, info.base_offset)
                    continue
                first = running.pop(info.producer_id, None)
                marker = wire.parse_marker(wire.split(data[info.position : info.position + info.size])[0])
                if first is not None and not marker.commit:
                    stable = min(running.values(), default=info.last_offset + 1)
                    out.setdefault(segment.base, []).append(
                        AbortedTransaction(info.producer_id, first, info.last_offset, stable)
                    )
        return out

    # -- by time

    def offset_for_time(self, timestamp: int, *, committed: bool = False) -> TimeIndexHit | None:
        """The first record with a timestamp at or after `timestamp` (ms), at record level; None if there is none."""
        limit = self.last_stable_offset if committed else self.high_watermark
        for segment in self.segments:
            try:
                hit = self._by_time(segment, timestamp, limit)
            except CorruptLog as error:
                self._store.damaged(str(error))
                raise
            except OSError as error:
                raise self._unreadable(segment, error) from error
            if hit is not None:
                return hit
        return None

    def _by_time(self, segment: Segment, timestamp: int, limit: int) -> TimeIndexHit | None:
        segment.load_indexes()
        if segment.max_timestamp < timestamp:
            return None
        start = segment.offsets.floor(segment.times.floor(timestamp))
        for info, data in segment.infos(start):
            if info.max_timestamp >= timestamp and info.last_offset >= self.log_start_offset:
                hit = self._in_batch(data, info, timestamp, limit)
                if hit is not None:
                    return hit
        return None

    def _in_batch(self, data: bytes, info: Info, timestamp: int, limit: int) -> TimeIndexHit | None:
        whole = wire.split(memoryview(data)[info.position : info.position + info.size])[0]
        for record in wire.records(whole):
            if record.timestamp >= timestamp and self.log_start_offset <= record.offset < limit:
                return TimeIndexHit(offset=record.offset, timestamp=record.timestamp, leader_epoch=info.leader_epoch)
        return None

    def offset_of_max_timestamp(self, *, committed: bool = False) -> TimeIndexHit | None:
        """The record with the highest timestamp (ListOffsets -3); None in an empty log."""
        for segment in self.segments:
            segment.load_indexes()
        newest = max((segment.max_timestamp for segment in self.segments), default=-1)
        return self.offset_for_time(newest, committed=committed) if newest >= 0 else None
