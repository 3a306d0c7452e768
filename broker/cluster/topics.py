"""Topics as pairs of metadata and partition logs: created, grown, deleted and found together.

Order on creation: partition folders first, then the metadata record; a crash in between leaves folders no topic owns,
which the next start removes. On deletion: the tombstone is durable first, then the folders go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.cluster.metadata import Metadata, Topic

if TYPE_CHECKING:
    from broker.log.partition import Partition
    from broker.log.store import Store


class TopicExists(Exception):
    """A topic of that name exists already."""


class UnknownTopic(Exception):
    """There is no topic of that name."""


class Topics:
    """Finds partitions by name or id; creates, grows and deletes topics.

    Callers validate names, counts, configs and rights first: nothing is refused here but collisions.
    """

    def __init__(self, store: Store, metadata: Metadata, now: Callable[[], int]) -> None:
        self._store = store
        self._metadata = metadata
        self._now = now
        self._open: dict[str, list[Partition]] = {}
        self.on_deleted: list[Callable[[Topic], None]] = []
        """Told after a topic is gone; the group coordinator drops its offsets."""

    def get(self, name: str) -> Topic | None:
        return self._metadata.image.topics.get(name)

    def by_id(self, topic_id: bytes) -> Topic | None:
        return self._metadata.image.topics_by_id.get(topic_id)

    def partition(self, name: str, index: int) -> Partition | None:
        """The open partition log, or None when there is no such topic or index."""
        partitions = self._open.get(name)
        if partitions is None or not 0 <= index < len(partitions):
            return None
        return partitions[index]

    def partitions(self, name: str) -> list[Partition]:
        """Every partition log of a topic, by index; empty when there is no such topic."""
        return self._open.get(name, [])
