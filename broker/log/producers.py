"""What a partition knows of its producers: idempotence (KIP-98) and open transactions.

State of one producer is an immutable `Producer`; an append makes a new one. So the staged state (what checks are made
against) and the applied state (what is durable) share entries, and taking back a failed group is a copy of a dict.

Rules, Kafka's: the last five batches are remembered, a repeat of one answers with its first offsets; the sequence goes
on without a gap and wraps at 2^31 - 1; an unknown producer may begin anywhere (retention may have taken its
past); a newer epoch begins at 0; an older epoch is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from crc32c import crc32c

from broker.log.failures import (
    CorruptLog,
    DuplicateSequence,
    InvalidProducerEpoch,
    InvalidTxnState,
    OutOfOrderSequence,
    TransactionCoordinatorFenced,
    UnknownFormat,
)

REMEMBERED: Final = 5
_WRAP: Final = 1 << 31


class Sent(NamedTuple):
    """One remembered batch."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp: int


class Producer(NamedTuple):
    """State of one producer in one partition."""

    epoch: int
    sent: tuple[Sent, ...]  # oldest first, at most five, all of this epoch
    timestamp: int  # of its newest batch or marker
    coordinator_epoch: int
    transaction: int  # first offset of its open transaction; -1: none


NEW: Final = Producer(-1, (), -1, -1, -1)


def after(sequence: int, by: int) -> int:
    """The sequence number `by` further on, wrapping as Kafka's does."""
    return (sequence + by) % _WRAP


def repeated(state: Producer | None, epoch: int, first: int, last: int) -> Sent | None:
    """The remembered batch this one repeats, if any."""
    if state is None or state.epoch != epoch:
        return None
    for sent in state.sent:
        if sent.first_sequence == first and sent.last_sequence == last:
            return sent
    return None


def follow(
    state: Producer | None,
    *,
    epoch: int,
    first: int,
    last: int,
    base_offset: int,
    last_offset: int,
    timestamp: int,
    transactional: bool,
    check: bool,
) -> Producer:
    """The producer's state after this batch. Raises InvalidProducerEpoch, OutOfOrderSequence, DuplicateSequence, ..."""
    old = state or NEW
    if check:
        _check(old, epoch, first, last, transactional)
    sent = Sent(first, last, base_offset, last_offset, timestamp)
    kept = old.sent[1 - REMEMBERED :] if old.epoch == epoch else ()
    transaction = old.transaction
    if transactional and transaction < 0:
        transaction = base_offset
    return Producer(epoch, (*kept, sent), timestamp, old.coordinator_epoch, transaction)


def _check(old: Producer, epoch: int, first: int, last: int, transactional: bool) -> None:
    if epoch < old.epoch:
        raise InvalidProducerEpoch(f"producer epoch {epoch} is older than {old.epoch}")
    if old.transaction >= 0 and not transactional:
        raise InvalidTxnState("a batch outside the transaction this producer has open")
    if epoch != old.epoch:
        if first != 0 and old.epoch >= 0:
            raise OutOfOrderSequence(f"a new producer epoch begins with sequence {first}, not 0")
        return
    if not old.sent:
        if first != 0 and old.epoch >= 0:
            raise OutOfOrderSequence(f"sequence {first} came where 0 was due")
        return
    expected = after(old.sent[-1].last_sequence, 1)
    if first == expected:
        return
    if first <= last <= old.sent[-1].last_sequence and old.sent[-1].last_sequence - last < _WRAP >> 1:
        raise DuplicateSequence
    raise OutOfOrderSequence(f"sequence {first} came where {expected} was due")


def finish(state: Producer | None, *, epoch: int, coordinator_epoch: int, timestamp: int, check: bool) -> Producer:
    """The producer's state after its transaction's marker."""
    old = state or NEW
    if check:
        if epoch < old.epoch:
            raise InvalidProducerEpoch(f"producer epoch {epoch} is older than {old.epoch}")
        if coordinator_epoch < old.coordinator_epoch:
            raise TransactionCoordinatorFenced(f"coordinator epoch {coordinator_epoch} < {old.coordinator_epoch}")
    return Producer(epoch, old.sent if old.epoch == epoch else (), timestamp, coordinator_epoch, -1)


# Snapshots: format 1, big endian. magic "SLPS", version u16, sent per producer u16, crc u32 over what follows,
# count u32; then per producer: id i64, epoch i16, remembered u16, timestamp i64, coordinator epoch i32, transaction
# i64, and per remembered batch: first, last sequence i32, base, last offset i64, timestamp i64.
_MAGIC: Final = b"SLPS"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sHHI")
_PRODUCER: Final = struct.Struct(">qhHqiq")
_SENT: Final = struct.Struct(">iiqqq")


def dump(states: Iterable[tuple[int, Producer]]) -> bytes:
    """A snapshot's bytes."""
    parts = []
    count = 0
    for producer_id, state in states:
        count += 1
        parts.append(
            _PRODUCER.pack(
                producer_id,
                state.epoch,
                len(state.sent),
                state.timestamp,
                state.coordinator_epoch,
                state.transaction,
            )
        )
        parts.extend(_SENT.pack(*sent) for sent in state.sent)
    body = count.to_bytes(4, "big") + b"".join(parts)
    return _HEAD.pack(_MAGIC, _VERSION, REMEMBERED, crc32c(body)) + body


def load(data: bytes) -> dict[int, Producer]:
    """A snapshot's states. Raises CorruptLog, UnknownFormat."""
    if len(data) < _HEAD.size + 4:
        raise CorruptLog("producer snapshot: too short")
    magic, version, remembered, crc = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptLog("producer snapshot: not one")
    if crc != crc32c(memoryview(data)[_HEAD.size :]):
        raise CorruptLog("producer snapshot: fails its CRC")
    if version != _VERSION or remembered != REMEMBERED:
        raise UnknownFormat(f"producer snapshot of format {version}; this version reads {_VERSION}")
    count = int.from_bytes(data[_HEAD.size : _HEAD.size + 4], "big")
    at = _HEAD.size + 4
    out: dict[int, Producer] = {}
    for _ in range(count):
        producer_id, epoch, sent_count, timestamp, coordinator, transaction = _PRODUCER.unpack_from(data, at)
        at += _PRODUCER.size
        sent = tuple(Sent(*_SENT.unpack_from(data, at + slot * _SENT.size)) for slot in range(sent_count))
        at += sent_count * _SENT.size
        out[producer_id] = Producer(epoch, sent, timestamp, coordinator, transaction)
    return out
