"""One partition: what is durable of it, what readers see, and here what is staged but not yet durable.

An append is staged here (checked, given offsets and a place), handed to the store's journal, and comes back to
`apply` once it is durable. `log_end_offset` and the staged producers run ahead; `high_watermark`, the segments,
the applied producers and the open transactions never do. `revert` drops what ran ahead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from broker.log import batches as stored
from broker.log import producers as rules
from broker.log.answers import Aborted, Appended, ProducerView, Slice, TimeIndexHit
from broker.log.batches import LENGTH_AT, PLACE, TRANSACTIONAL, Info
from broker.log.config import LogConfig
from broker.log.durable import Gap
from broker.log.failures import InvalidBatch, InvalidTimestamp, OffsetOutOfRange, UnknownPartition
from broker.log.files import Files
from broker.log.journal import Kind
from broker.log.producers import Producer
from broker.log.reading import ReadableLog
from broker.log.segment import RELATIVE_MAX, Segment
from broker.log.staged import Staged, Stager
from broker.wire import batch as wire
from broker.wire.batch import HEADER_SIZE, Batch

__all__ = ["Aborted", "Appended", "Gap", "Partition", "ProducerView", "Slice", "Staged", "Stager", "TimeIndexHit"]

Buffer = bytes | memoryview
_NO_TIME: Final = -1


class Partition(ReadableLog):
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
        super().__init__(store, files, root, topic=topic, topic_id=topic_id, index=index, folder=folder, config=config)
        self.deleted = False  # its deletion is staged: nothing may be appended
        self._staged: dict[int, Producer] = {}
        self._last_position = 0
        self._staged_size = 0  # of the segment the next append goes to, staged appends included
        self._staged_base = 0
        self._staged_first_time = _NO_TIME

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

    # -- where staging stands

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

    def revert(self) -> None:
        """Forget what was staged and is not durable."""
        self.log_end_offset = self.high_watermark
        self._staged = dict(self._applied)
        self._settle_staged()

    def _settle_staged(self) -> None:
        active = self.segments[-1]
        self._staged_base, self._staged_size = active.base, active.size
        self._staged_first_time = active.first_timestamp

    # -- producers

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
