"""An entry on its way from a partition through the journal and back, and whom it is handed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from broker.log.batches import Info
from broker.log.journal import ROLL_FIRST, entry_header
from broker.log.producers import Producer

if TYPE_CHECKING:
    from broker.log.durable import DurableLog
    from broker.log.partition import Partition


class Staged:
    """One entry on its way through the journal."""

    __slots__ = (
        "base",
        "commit",
        "data",
        "header",
        "infos",
        "kind",
        "last",
        "partition",
        "position",
        "producers",
        "roll",
    )

    def __init__(self, partition: Partition, kind: int, base: int, data: bytes = b"", *, roll: bool = False) -> None:
        self.partition = partition
        self.kind = kind
        self.base = base
        self.data = data
        self.roll = roll
        self.last = base
        self.infos: Sequence[Info] = ()
        self.producers: Sequence[tuple[int, Producer]] = ()
        self.commit = False  # a control batch's word
        self.position = 0
        self.header = entry_header(
            kind, ROLL_FIRST if roll else 0, len(data), partition.index, base, partition.topic_id
        )


class Stager(Protocol):
    """The store, as a partition sees it."""

    def admit(self, *, records: bool) -> None:
        """Raise StorageFull (of applications' records only), StorageFatal, StoreClosed when nothing can be staged."""

    def stage(self, staged: Staged) -> int:
        """Put it in the journal's order; gives its position."""

    def grew(self, log: DurableLog) -> None:
        """A tail has grown large enough to be written."""

    def damaged(self, what: str) -> None:
        """Corruption was found; tell of it until the process ends."""
