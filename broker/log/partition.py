"""One partition: offsets, what readers may see, and what is staged but not yet durable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.log.config import LogConfig
from broker.wire.batch import Batch

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """Where an append went. Acknowledge it once `Commit.durable(position)` is done."""

    base_offset: int
    last_offset: int
    append_time: int  # ms; -1 unless the topic uses LogAppendTime
    log_start_offset: int
    position: int  # in the journal's order: monotone over all partitions
    duplicate: bool = False  # an idempotent producer's repeat: the offsets are the first append's


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """An aborted transaction: its producer and the offset of its first record."""

    producer_id: int
    first_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What a read found: whole batches, the first of which holds the offset asked for."""

    buffers: Sequence[Buffer]
    size: int
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    aborted: Sequence[Aborted] | None  # None for read_uncommitted


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeIndexHit:
    """The record a lookup by time found."""

    offset: int
    timestamp: int
    leader_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerView:
    """One producer's state, as DescribeProducers shows it."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp: int
    coordinator_epoch: int
    transaction_start_offset: int  # -1: no open transaction


class Partition:
    """One partition of a store. Made by `Store.create` or found by `Store.open`, never directly."""

    topic: str
    topic_id: bytes
    index: int
    leader_epoch: int
    config: LogConfig  # set at any time: `partition.config = LogConfig.parse({...})`
    log_start_offset: int
    high_watermark: int  # everything below is durable
    log_end_offset: int  # the next offset an append will get
    size: int  # bytes on disk or on their way there

    @property
    def last_stable_offset(self) -> int:
        """The first offset of the oldest open transaction, or the high watermark (KIP-98)."""
        raise NotImplementedError

    def append(self, batches: Iterable[Batch], now: int, *, check_sequence: bool = True) -> Appended:
        """Stage validated batches of one produce request; bytes are copied. `now` in ms.

        Raises a LogRefusal (sequence, epoch, transaction, timestamp), StorageFull, StorageFatal; then nothing
        was appended.
        """
        raise NotImplementedError

    def append_control(
        self, producer_id: int, producer_epoch: int, *, commit: bool, coordinator_epoch: int, now: int
    ) -> Appended:
        """Stage a transaction's marker. Harmless when the producer has no open transaction (a redo)."""
        raise NotImplementedError

    def read(
        self,
        offset: int,
        max_bytes: int,
        *,
        committed: bool = False,
        at_least_one: bool = True,
    ) -> Slice:
        """Batches from the one holding `offset` on, below the high watermark (the LSO with `committed`).

        Empty at the end. `at_least_one`: the first batch comes whole even when larger than max_bytes.
        Raises OffsetOutOfRange, CorruptLog.
        """
        raise NotImplementedError

    def offset_for_time(self, timestamp: int, *, committed: bool = False) -> TimeIndexHit | None:
        """The first record with a timestamp at or after `timestamp` (ms), at record level; None if there is none."""
        raise NotImplementedError

    def offset_of_max_timestamp(self, *, committed: bool = False) -> TimeIndexHit | None:
        """The record with the highest timestamp (ListOffsets -3); None in an empty log."""
        raise NotImplementedError

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(the largest epoch at or below `epoch`, where it ended); (-1, -1) when unknown (KIP-320)."""
        raise NotImplementedError

    def epoch_of(self, offset: int) -> int:
        """The leader epoch of that offset; -1 when unknown."""
        raise NotImplementedError

    def delete_records_before(self, offset: int) -> int:
        """Move the log's start (-1: to the high watermark); gives the journal position. Raises OffsetOutOfRange."""
        raise NotImplementedError

    def producers(self) -> list[ProducerView]:
        """The producers this partition knows (DescribeProducers)."""
        raise NotImplementedError

    def has_open_transaction(self, producer_id: int) -> bool:
        """Whether that producer has an open transaction here, staged appends included."""
        raise NotImplementedError
