"""One partition: offsets, what readers may see, and what is staged but not yet durable.

An append is staged here (checked, given offsets and a place), handed to the store's journal, and comes back to
`apply` once it is durable. `log_end_offset` and the staged producers run ahead; `high_watermark`, the segments,
the applied producers and the open transactions never do. `revert` drops what ran ahead.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from broker.log import batches as stored
from broker.log import producers as rules
from broker.log.answers import Aborted, Appended, ProducerView, Slice, TimeIndexHit
from broker.log.batches import CONTROL, LENGTH_AT, PLACE, TRANSACTIONAL, Info
from broker.log.config import LogConfig
from broker.log.failures import (
    CorruptLog,
    InvalidBatch,
    InvalidTimestamp,
    OffsetOutOfRange,
    StorageUnreadable,
    UnknownPartition,
)
from broker.log.files import Files
from broker.log.index import AbortedTransaction
from broker.log.journal import Kind
from broker.log.producers import Producer
from broker.log.segment import RELATIVE_MAX, TAIL_BYTES, Segment
from broker.log.staged import Staged, Stager
from broker.wire import batch as wire
from broker.wire.batch import HEADER_SIZE, Batch

__all__ = ["Aborted", "Appended", "Gap", "Partition", "ProducerView", "Slice", "Staged", "Stager", "TimeIndexHit"]

Buffer = bytes | memoryview
_NO_TIME: Final = -1


class Gap(NamedTuple):
    """Offsets whose records are lost to corruption."""

    start: int
    end: int  # exclusive
    why: str


class Partition:
    """One partition of a store. Made by `Store.create` or found by `Store.open`, never directly."""

    def __init__(
        self,
        store: Stager,
        files: Files,
        root: str,
        *,
        topic: str,
        topic_id: bytes,
        index: int,
        folder: str,
        config: LogConfig,
    ) -> None:
        self._store = store
        self._files = files
        self.folder = folder  # name within the root
        self.path = f"{root}/{folder}"
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.config = config
        self.log_start_offset = 0
        self.high_watermark = 0
        self.log_end_offset = 0
        self.last_stable_offset = 0  # first offset of the oldest open transaction, or the high watermark (KIP-98)
        self.leader_epoch = 0  # rises with each unclean restart
        self.cleaned_offset = 0  # compaction has been up to here
        self.loose_offset = 0  # compaction may go up to here: below, offsets need not follow each other
        self.epochs: list[tuple[int, int]] = []  # (leader epoch, its first offset)
        self.gaps: list[Gap] = []
        self.segments: list[Segment] = []
        self.deleted = False  # its deletion is staged: nothing may be appended
        self.buried = False  # its deletion is durable
        self.dirty = False  # changed since its last capture
        self.internal = topic.startswith("__")
        self._applied: dict[int, Producer] = {}
        self._staged: dict[int, Producer] = {}
        self._open: dict[int, int] = {}  # applied: producer -> first offset of its open transaction, oldest first
        self._last_position = 0
        self._staged_size = 0  # of the segment the next append goes to, staged appends included
        self._staged_base = 0
        self._staged_first_time = _NO_TIME
        self._warm: Segment | None = None  # the closed segment whose file is kept open

    # -- what it is

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def active(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    # -- staging

    def append(self, batches: Iterable[Batch], now: int, *, check_sequence: bool = True) -> Appended:
        """Stage validated batches of one produce request; bytes are copied. `now` in ms.

        Raises a LogRefusal (sequence, epoch, transaction, timestamp), StorageFull, StorageFatal; then nothing
        was appended.
        """
        self._admit()
        config = self.config
        append_time = now if config.log_append_time else _NO_TIME
        epoch = self.leader_epoch
        base = offset = self.log_end_offset
        parts: list[Buffer] = []
        infos: list[Info] = []
        updates: dict[int, Producer] = {}
        at = 0
        for batch in batches:
            last = offset + batch.last_offset_delta
            newest = append_time if append_time >= 0 else batch.max_timestamp
            if append_time < 0:
                self._check_time(batch, now)
            if config.compact and not self.internal:
                _check_keys(batch)
            producer = batch.producer_id
            if producer >= 0 and batch.base_sequence >= 0:
                state = updates.get(producer) or self._staged.get(producer)
                first, final = batch.base_sequence, rules.after(batch.base_sequence, batch.last_offset_delta)
                if check_sequence:
                    sent = rules.repeated(state, batch.producer_epoch, first, final)
                    if sent is not None:
                        return self._repeated(sent)
                updates[producer] = rules.follow(
                    state,
                    epoch=batch.producer_epoch,
                    first=first,
                    last=final,
                    base_offset=offset,
                    last_offset=last,
                    timestamp=newest,
                    transactional=bool(batch.attributes & TRANSACTIONAL),
                    check=check_sequence,
                )
            size = batch.size
            if append_time >= 0:
                parts.append(wire.placed(batch, offset, epoch, append_time))
                parts.append(batch.data[HEADER_SIZE:])
            else:
                parts.append(PLACE.pack(offset, size - LENGTH_AT, epoch))
                parts.append(batch.data[16:])
            infos.append(
                Info(
                    at, size, offset, last, epoch, batch.attributes, batch.base_timestamp, newest, producer,
                    batch.producer_epoch, batch.base_sequence, batch.count,
                )
            )  # fmt: skip
            at += size
            offset = last + 1
        if not infos:
            raise InvalidBatch("no batch to append")
        position = self._stage_records(base, b"".join(parts), infos, updates)
        return Appended(
            base_offset=base,
            last_offset=offset - 1,
            append_time=append_time,
            log_start_offset=self.log_start_offset,
            position=position,
        )

    def append_control(
        self, producer_id: int, producer_epoch: int, *, commit: bool, coordinator_epoch: int, now: int
    ) -> Appended:
        """Stage a transaction's marker. Harmless when the producer has no open transaction (a redo)."""
        self._admit(records=False)
        state = rules.finish(
            self._staged.get(producer_id),
            epoch=producer_epoch,
            coordinator_epoch=coordinator_epoch,
            timestamp=now,
            check=True,
        )
        raw = wire.marker(
            producer_id, producer_epoch, commit=commit, coordinator_epoch=coordinator_epoch, timestamp=now
        )
        base, epoch = self.log_end_offset, self.leader_epoch
        data = PLACE.pack(base, len(raw) - LENGTH_AT, epoch) + raw[16:]
        infos = list(stored.walk(data))
        position = self._stage_records(base, data, infos, {producer_id: state}, commit=commit)
        return Appended(
            base_offset=base,
            last_offset=base,
            append_time=_NO_TIME,
            log_start_offset=self.log_start_offset,
            position=position,
        )

    def _stage_records(
        self, base: int, data: bytes, infos: list[Info], updates: dict[int, Producer], *, commit: bool = False
    ) -> int:
        try:
            self.active.load_indexes()  # nothing may be left to go wrong when it is applied
        except OSError as error:
            raise self._unreadable(self.active, error) from error
        newest = infos[0].max_timestamp
        roll = self._roll_due(base, len(data), newest, infos[-1].last_offset)
        if roll:
            self._staged_base, self._staged_size, self._staged_first_time = base, 0, _NO_TIME
        staged = Staged(self, Kind.RECORDS, base, data, roll=roll)
        staged.infos = infos
        staged.last = infos[-1].last_offset
        staged.commit = commit
        if updates:
            staged.producers = list(updates.items())
            self._staged.update(updates)
        if self._staged_size == 0:
            self._staged_first_time = newest
        self._staged_size += len(data)
        self.log_end_offset = staged.last + 1
        self._last_position = self._store.stage(staged)
        return self._last_position

    def _roll_due(self, base: int, size: int, newest: int, last: int) -> bool:
        """Kafka's reasons for a new segment: size, age (in record time), offsets too far apart, a full index."""
        held = self._staged_size
        if not held:
            return False
        if self._staged_first_time < 0 and self._staged_base == self.active.base:
            self.active.load_indexes()
            self._staged_first_time = self.active.first_timestamp
        config = self.config
        age = config.segment_ms if not config.compact else min(config.segment_ms, config.max_compaction_lag_ms)
        return (
            held + size > config.segment_bytes
            or (newest >= 0 <= self._staged_first_time and newest - self._staged_first_time > age)
            or last - self._staged_base > RELATIVE_MAX
            or held // max(config.index_interval_bytes, 1) * 8 > config.segment_index_bytes
        )

    def _admit(self, *, records: bool = True) -> None:
        if self.deleted:
            raise UnknownPartition
        self._store.admit(records=records and not self.internal)

    def _repeated(self, sent: rules.Sent) -> Appended:
        return Appended(
            base_offset=sent.base_offset,
            last_offset=sent.last_offset,
            append_time=sent.timestamp if self.config.log_append_time else _NO_TIME,
            log_start_offset=self.log_start_offset,
            position=self._last_position,
            duplicate=True,
        )

    def _check_time(self, batch: Batch, now: int) -> None:
        config = self.config
        newest = batch.max_timestamp
        if newest > now + config.message_timestamp_after_max_ms:
            raise InvalidTimestamp(f"timestamp {newest} is too far ahead of the broker's clock ({now})")
        if now - newest > config.message_timestamp_before_max_ms and newest >= 0:
            raise InvalidTimestamp(f"timestamp {newest} is too far behind the broker's clock ({now})")

    def delete_records_before(self, offset: int) -> int:
        """Move the log's start (-1: to the high watermark); gives the journal position. Raises OffsetOutOfRange."""
        self._admit(records=False)
        target = self.high_watermark if offset == -1 else offset
        if target > self.high_watermark or target < 0:
            raise OffsetOutOfRange(f"{target} is beyond the high watermark {self.high_watermark}")
        if target <= self.log_start_offset:
            return self._last_position
        self._last_position = self._store.stage(Staged(self, Kind.START, target))
        return self._last_position

    def stage_roll(self) -> None:
        """Begin a new segment at the end, so that the one before can be cleaned or deleted."""
        if self._staged_size:
            self._staged_base, self._staged_size, self._staged_first_time = self.log_end_offset, 0, _NO_TIME
            self._last_position = self._store.stage(Staged(self, Kind.ROLL, self.log_end_offset))

    def stage_loose(self, offset: int) -> None:
        """Allow compaction up to that offset: durable before the first record goes."""
        self._last_position = self._store.stage(Staged(self, Kind.LOOSE, offset))

    def stage_epoch(self, epoch: int) -> None:
        """Begin a leader epoch at the end of the log."""
        self._last_position = self._store.stage(Staged(self, Kind.EPOCH, self.log_end_offset, epoch.to_bytes(4, "big")))

    def creation(self) -> bytes:
        """The data of its CREATE entry."""
        about = {"v": 1, "topic": self.topic, "folder": self.folder, "epoch": self.leader_epoch}
        return json.dumps(about, separators=(",", ":")).encode()

    # -- applying: what is durable

    def apply(self, staged: Staged) -> None:
        """Take a durable entry in. Memory, and now and then a segment write."""
        self.dirty = True
        kind = staged.kind
        if kind == Kind.RECORDS:
            if staged.roll:
                self._roll(staged.base)
            self._take_state(staged)
            segment = self.segments[-1]
            segment.append(staged.data, staged.base, staged.infos, self.config.index_interval_bytes)
            self.high_watermark = staged.last + 1
            self.settle_stable()
            if segment.tail_bytes >= TAIL_BYTES:
                self._store.grew(self)
        elif kind == Kind.START:
            self.log_start_offset = max(self.log_start_offset, staged.base)
        elif kind == Kind.ROLL:
            self._roll(staged.base)
        elif kind == Kind.LOOSE:
            self.loose_offset = max(self.loose_offset, staged.base)
        elif kind == Kind.EPOCH:
            self._begin_epoch(int.from_bytes(staged.data, "big"), staged.base)

    def _take_state(self, staged: Staged) -> None:
        for producer, state in staged.producers:
            self._applied[producer] = state
        for info in staged.infos:
            if not info.attributes & TRANSACTIONAL:
                continue
            if not info.attributes & CONTROL:
                self._open.setdefault(info.producer_id, info.base_offset)
                continue
            first = self._open.pop(info.producer_id, None)
            if first is not None and not staged.commit:
                stable = next(iter(self._open.values()), info.last_offset + 1)
                self.segments[-1].load_indexes()
                self.segments[-1].transactions.append(
                    AbortedTransaction(info.producer_id, first, info.last_offset, stable)
                )

    def _roll(self, base: int) -> None:
        if self.segments:
            last = self.segments[-1]
            if last.base == base:
                return
            last.seal()
            last.dirty = True
        segment = Segment(self._files, self.path, base)
        segment.dirty = True
        self.segments.append(segment)

    def _begin_epoch(self, epoch: int, start: int) -> None:
        while self.epochs and self.epochs[-1][1] >= start:
            self.epochs.pop()
        self.epochs.append((epoch, start))
        self.leader_epoch = epoch

    def settle_stable(self) -> None:
        """Work out the last stable offset anew."""
        self.last_stable_offset = next(iter(self._open.values()), self.high_watermark)

    def revert(self) -> None:
        """Forget what was staged and is not durable."""
        self.log_end_offset = self.high_watermark
        self._staged = dict(self._applied)
        self._settle_staged()

    def _settle_staged(self) -> None:
        active = self.segments[-1]
        self._staged_base, self._staged_size = active.base, active.size
        self._staged_first_time = active.first_timestamp

    def drop_segments(self) -> list[Segment]:
        """Take out the segments that lie wholly before the log's start; the caller removes their files."""
        keep = 0
        while keep + 1 < len(self.segments) and self.segments[keep + 1].base <= self.log_start_offset:
            keep += 1
        gone, self.segments = self.segments[:keep], self.segments[keep:]
        if self._warm in gone:
            self._warm = None
        return gone

    def replace_segments(self, slot: int, count: int, fresh: list[Segment]) -> None:
        """Compaction's result stands for `count` segments from `slot` on."""
        if self._warm in self.segments[slot : slot + count]:
            self._warm = None
        self.segments[slot : slot + count] = fresh

    # -- replaying

    def begin(self, *, epoch: int = 0, start: int = 0) -> None:
        """A new, empty log."""
        self.segments = [Segment(self._files, self.path, start)]
        self.segments[0].dirty = True
        self.epochs = [(epoch, start)]
        self.leader_epoch = epoch
        self.log_start_offset = self.high_watermark = self.log_end_offset = self.last_stable_offset = start
        self._settle_staged()

    def resume(self, states: dict[int, Producer]) -> None:
        """Begin staging where the applied state ends; `states` of the producers at the high watermark."""
        self._applied = dict(states)
        self._staged = dict(states)
        opened = sorted((state.transaction, producer) for producer, state in states.items() if state.transaction >= 0)
        self._open = {producer: first for first, producer in opened}
        self.log_end_offset = self.high_watermark
        self.settle_stable()
        self._settle_staged()

    def replay(self, staged: Staged) -> None:
        """Apply an entry of the journal: what it did to the producers is worked out again from its batches."""
        if staged.kind == Kind.RECORDS:
            infos = list(stored.walk(staged.data))
            staged.infos, staged.last = infos, infos[-1].last_offset
            states: dict[int, Producer] = {}
            for info in infos:
                self._replay_producer(staged, info, states)
            staged.producers = list(states.items())
        self.apply(staged)

    def _replay_producer(self, staged: Staged, info: Info, states: dict[int, Producer]) -> None:
        producer = info.producer_id
        if producer < 0:
            return
        old = states.get(producer) or self._applied.get(producer)
        if info.attributes & CONTROL:
            marker = wire.parse_marker(wire.split(staged.data[info.position : info.position + info.size])[0])
            staged.commit = marker.commit
            states[producer] = rules.finish(
                old,
                epoch=info.producer_epoch,
                coordinator_epoch=marker.coordinator_epoch,
                timestamp=info.max_timestamp,
                check=False,
            )
        elif info.base_sequence >= 0:
            states[producer] = rules.follow(
                old,
                epoch=info.producer_epoch,
                first=info.base_sequence,
                last=rules.after(info.base_sequence, info.last_offset - info.base_offset),
                base_offset=info.base_offset,
                last_offset=info.last_offset,
                timestamp=info.max_timestamp,
                transactional=bool(info.attributes & TRANSACTIONAL),
                check=False,
            )

    def rebuild_producers(self, below: int) -> dict[int, Producer]:
        """The producers' states at `below`, worked out from the stored batches (when a snapshot is not to be had)."""
        states: dict[int, Producer] = {}
        for segment in self.segments:
            for info, data in segment.infos():
                if info.base_offset >= below:
                    return states
                shell = Staged(
                    self, Kind.RECORDS, info.base_offset, bytes(data[info.position : info.position + info.size])
                )
                self._replay_producer(shell, info._replace(position=0), states)
        return states

    def states(self) -> dict[int, Producer]:
        """The applied states, as a snapshot keeps them."""
        return self._applied

    def expire_producers(self, before: int) -> None:
        """Forget producers silent since `before` (ms) that have no open transaction."""
        old = [
            producer
            for producer, state in self._applied.items()
            if state.timestamp < before and state.transaction < 0 and self._staged.get(producer) is state
        ]
        for producer in old:
            del self._applied[producer]
            del self._staged[producer]

    # -- reading

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

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(the largest epoch at or below `epoch`, where it ended); (-1, -1) when unknown (KIP-320)."""
        if not self.epochs or epoch < 0 or epoch > self.epochs[-1][0]:
            return -1, -1
        if epoch == self.epochs[-1][0]:
            return epoch, self.high_watermark
        slot = bisect_right(self.epochs, epoch, key=lambda known: known[0])
        if not slot:
            return epoch, self.epochs[0][1]
        return self.epochs[slot - 1][0], self.epochs[slot][1]

    def epoch_of(self, offset: int) -> int:
        """The leader epoch of that offset; -1 when unknown."""
        slot = bisect_right(self.epochs, offset, key=lambda known: known[1])
        return self.epochs[slot - 1][0] if slot else -1

    def producers(self) -> list[ProducerView]:
        """The producers this partition knows (DescribeProducers)."""
        return [
            ProducerView(
                producer_id=producer,
                producer_epoch=state.epoch,
                last_sequence=state.sent[-1].last_sequence if state.sent else -1,
                last_timestamp=state.timestamp,
                coordinator_epoch=state.coordinator_epoch,
                transaction_start_offset=state.transaction,
            )
            for producer, state in self._applied.items()
        ]

    def has_open_transaction(self, producer_id: int) -> bool:
        """Whether that producer has an open transaction here, staged appends included."""
        state = self._staged.get(producer_id)
        return state is not None and state.transaction >= 0


def _check_keys(batch: Batch) -> None:
    for record in wire.records(batch):
        if record.key is None:
            raise InvalidBatch("a compacted topic takes no record without a key")
