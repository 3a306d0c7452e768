"""One transactional id: its producer, its transaction, and the record that keeps both.

A key is the int16 1 and the transactional id; a value is a JSON object with its version in `v`. A version that is not
known raises `UnknownRecord`.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from broker.groups.ports import StateRecord
from broker.groups.records import UnknownRecord

NO_PRODUCER = -1
NO_EPOCH = -1
LAST_EPOCH = 32_766
"""The highest epoch a producer is given; 32767 is left for the fencing that ends its last transaction."""

_KIND = b"\x00\x01"
_VERSION = 1


class TransactionState(enum.Enum):
    """States, named as DescribeTransactions spells them."""

    EMPTY = "Empty"
    ONGOING = "Ongoing"
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"


PREPARED = (TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT)
ENDED = (TransactionState.EMPTY, TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What is known of a transactional id; changed by making a new one."""

    id: str
    producer_id: int
    epoch: int
    last_epoch: int = NO_EPOCH
    """The epoch before the last bump, for a producer that repeats the call that bumped it (KIP-360)."""
    last_producer_id: int = NO_PRODUCER
    """The producer id before the epochs ran out."""
    next_producer_id: int = NO_PRODUCER
    """While prepared: the id that follows, where the epochs have run out."""
    timeout_ms: int = 0
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[tuple[str, int]] = frozenset()
    groups: frozenset[str] = frozenset()
    started_at: int = -1
    changed_at: int = -1

    def record(self) -> StateRecord:
        """The record that brings it back."""
        fields = {
            "v": _VERSION,
            "producer": self.producer_id,
            "epoch": self.epoch,
            "last_epoch": self.last_epoch,
            "last_producer": self.last_producer_id,
            "next_producer": self.next_producer_id,
            "timeout": self.timeout_ms,
            "state": self.state.value,
            "partitions": sorted(self.partitions),
            "groups": sorted(self.groups),
            "started": self.started_at,
            "changed": self.changed_at,
        }
        return _KIND + self.id.encode(), json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()

    def tombstone(self) -> StateRecord:
        """The record that forgets it."""
        return _KIND + self.id.encode(), None


def read_id(key: bytes) -> str:
    """The transactional id a record is about."""
    if key[:2] != _KIND:
        raise UnknownRecord(f"transaction state record of kind {key[:2]!r}")
    return key[2:].decode()


def read_transaction(key: bytes, value: bytes) -> Transaction:
    """What `Transaction.record` wrote."""
    fields = json.loads(value)
    if fields.get("v") != _VERSION:
        raise UnknownRecord(f"transaction state record of version {fields.get('v')!r}")
    return Transaction(
        id=read_id(key),
        producer_id=fields["producer"],
        epoch=fields["epoch"],
        last_epoch=fields["last_epoch"],
        last_producer_id=fields["last_producer"],
        next_producer_id=fields["next_producer"],
        timeout_ms=fields["timeout"],
        state=TransactionState(fields["state"]),
        partitions=frozenset((topic, partition) for topic, partition in fields["partitions"]),
        groups=frozenset(fields["groups"]),
        started_at=fields["started"],
        changed_at=fields["changed"],
    )
