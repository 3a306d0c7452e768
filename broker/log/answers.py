"""What a partition answers: where an append went, what a read or lookup found, what it knows of a producer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
