"""The store: every partition of one data folder, behind one journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from broker.log.config import LogConfig
from broker.log.partition import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """What the store does with the disk; defaults for a server."""

    journal_file_bytes: int = 64 << 20
    checkpoint_bytes: int = 256 << 20
    checkpoint_entries: int = 100_000
    checkpoint_ms: int = 30_000
    producer_expiration_ms: int = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the disk lets the store do."""

    ok: bool
    writable: bool  # False: appends are refused for now (full disk) or until a restart (fatal)
    fatal: bool
    reason: str  # one line, empty when ok
    damaged: Sequence[str] = field(default_factory=tuple)  # corruption found, one line each


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What opening found and did; the server logs it."""

    clean: bool
    partitions: int
    replayed_entries: int
    replayed_bytes: int
    cut_bytes: int  # torn tail of the journal: never acknowledged
    damage: Sequence[str]  # corruption, one line each: never passed over in silence


class Store:
    """Every partition under one folder. Owned by one thread."""

    recovery: Recovery

    @classmethod
    def open(cls, folder: str, now: int, *, config: StoreConfig | None = None) -> Store:
        """Open (making it if need be) and recover. Raises FolderInUse, UnknownFormat, StorageFailure."""
        raise NotImplementedError

    def create(self, topic: str, topic_id: bytes, index: int, config: LogConfig) -> Partition:
        """Make a partition; durable with the next group, in order with appends. Raises PartitionExists."""
        raise NotImplementedError

    def delete(self, topic_id: bytes, index: int) -> int:
        """Delete a partition; gives the journal position. Its files go in the background, a crash half-way included."""
        raise NotImplementedError

    def partition(self, topic_id: bytes, index: int) -> Partition:
        """That partition. Raises UnknownPartition."""
        raise NotImplementedError

    def partitions(self) -> Iterable[Partition]:
        """All of them."""
        raise NotImplementedError

    def health(self) -> Health:
        """What the disk lets us do right now."""
        raise NotImplementedError

    def close(self, now: int) -> None:
        """Make everything durable, checkpoint, and leave the mark of a clean shutdown."""
        raise NotImplementedError
