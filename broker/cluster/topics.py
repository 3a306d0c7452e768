"""Topics as pairs of metadata and partition logs: created, grown, deleted and found together.

Partition logs and metadata records go through one journal in order, so both are written in one turn of the loop and
neither survives a crash without what came before it. What a crash or a failed write leaves in one and not in the other
is put right by `open()`: the metadata decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.cluster.config_names import TOPIC
from broker.cluster.metadata import Key, Metadata, Topic, new_topic_id, topic_change
from broker.log.config import LogConfig
from broker.log.failures import LogError

if TYPE_CHECKING:
    from broker.log.partition import Partition
    from broker.log.store import Store

MAX_PARTITIONS = 10_000


class Topics:
    """Finds partitions by name or id; creates, grows and deletes topics.

    Callers validate names, counts, configs and rights first.
    """

    def __init__(self, store: Store, metadata: Metadata, now: Callable[[], int]) -> None:
        self._store = store
        self._metadata = metadata
        self._now = now
        self._open: dict[str, list[Partition]] = {}
        self._alike: dict[str, str] = {}
        self.on_deleted: list[Callable[[Topic, list[Partition]], None]] = []
        """Told after a topic is gone: the group coordinator drops its offsets, long polls answer."""
        metadata.watchers.append(self._changed)
        metadata.on_rebuilt.append(self.open)

    def open(self) -> None:
        """Bring the partition logs in line with the metadata: make what is missing, drop what no topic owns."""
        found = {(partition.topic_id, partition.index): partition for partition in self._store.partitions()}
        self._open.clear()
        self._alike.clear()
        for topic in self._metadata.image.topics.values():
            config = self.log_config(topic.configs)
            partitions = []
            for index in range(topic.partitions):
                partition = found.pop((topic.topic_id, index), None)
                if partition is None:
                    partition = self._store.create(topic.name, topic.topic_id, index, config)
                else:
                    partition.config = config
                partitions.append(partition)
            self._open[topic.name] = partitions
            self._alike[_collision_name(topic.name)] = topic.name
        for topic_id, index in found:
            self._store.delete(topic_id, index)

    def get(self, name: str) -> Topic | None:
        return self._metadata.image.topics.get(name)

    def by_id(self, topic_id: bytes) -> Topic | None:
        return self._metadata.image.topics_by_id.get(topic_id)

    def colliding(self, name: str) -> str | None:
        """The existing topic whose name differs only in `.` and `_`, which Kafka refuses."""
        alike = self._alike.get(_collision_name(name))
        return alike if alike != name else None

    def partition(self, name: str, index: int) -> Partition | None:
        """The open partition log, or None when there is no such topic or index."""
        partitions = self._open.get(name)
        if partitions is None or not 0 <= index < len(partitions):
            return None
        return partitions[index]

    def partitions(self, name: str) -> list[Partition]:
        """Every partition log of a topic, by index; empty when there is no such topic."""
        return self._open.get(name, [])

    def log_config(self, configs: Mapping[str, str]) -> LogConfig:
        """What these topic configs, over the broker's dynamic defaults, mean to a log."""
        return LogConfig.parse({**self.defaults(), **configs})

    def defaults(self) -> dict[str, str]:
        """Topic configs whose default an operator changed on the broker."""
        image = self._metadata.image
        dynamic = {**image.configs_of("broker", ""), **image.configs_of("broker", "1")}
        if not dynamic:
            return {}
        return {
            definition.name: dynamic[definition.broker_name]
            for definition in TOPIC.by_name.values()
            if definition.broker_name in dynamic
        }

    async def create(
        self, name: str, partitions: int, configs: Mapping[str, str] | None = None, *, topic_id: bytes | None = None
    ) -> Topic:
        """Create; returns once durable. Two callers at once: the second gets the first's topic."""
        there = self.get(name)
        if there is not None:
            await self._metadata.settled()
            return there
        topic = Topic(
            name=name,
            topic_id=topic_id or new_topic_id(),
            partitions=partitions,
            created=self._now(),
            configs=dict(configs or {}),
        )
        self._open[name] = self._made(topic, range(partitions))
        self._alike[_collision_name(name)] = name
        await self._kept(topic)
        return topic

    async def grow(self, topic: Topic, count: int) -> Topic:
        """Add partitions until there are `count`; returns once durable."""
        added = self._made(topic, range(topic.partitions, count))
        self._open[topic.name] = [*self._open[topic.name], *added]
        grown = replace(topic, partitions=count)
        await self._kept(grown)
        return grown

    async def configure(self, topic: Topic, configs: Mapping[str, str]) -> Topic:
        """Replace a topic's configs; returns once durable."""
        configured = replace(topic, configs=dict(configs))
        await self._metadata.change([topic_change(configured)])
        return configured

    async def delete(self, topic: Topic) -> None:
        """Delete; returns once durable."""
        position = self._metadata.change_now([(("topic", topic.topic_id.hex()), None)])
        gone = self._open.pop(topic.name, [])
        self._alike.pop(_collision_name(topic.name), None)
        for partition in gone:
            self._store.delete(topic.topic_id, partition.index)
        for told in self.on_deleted:
            told(topic, gone)
        await self._metadata.durable(position)

    async def ensure_internal(self, name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        """One of the product's own topics, created when it is not there yet."""
        return self.get(name) or await self.create(name, partitions, configs)

    async def _kept(self, topic: Topic) -> None:
        """Write the topic down and wait until that is durable; if it can't be, its partitions go again."""
        try:
            await self._metadata.change([topic_change(topic)])
        except LogError:
            self.open()
            raise

    def _made(self, topic: Topic, indexes: range) -> list[Partition]:
        config = self.log_config(topic.configs)
        made: list[Partition] = []
        try:
            for index in indexes:
                made.append(self._store.create(topic.name, topic.topic_id, index, config))  # noqa: PERF401 — what was made before a failure is unmade
        except Exception:
            for partition in made:
                self._store.delete(topic.topic_id, partition.index)
            raise
        return made

    def _changed(self, key: Key) -> None:
        if key[0] == "topic":
            topic = self._metadata.image.topics_by_id.get(bytes.fromhex(key[1]))
            if topic is not None:
                self._configure(topic)
        elif key[0] == "config" and key[1] == "broker":
            for topic in self._metadata.image.topics.values():
                self._configure(topic)

    def _configure(self, topic: Topic) -> None:
        config = self.log_config(topic.configs)
        for partition in self._open.get(topic.name, ()):
            if partition.config != config:
                partition.config = config


def _collision_name(name: str) -> str:
    return name.replace(".", "_")
