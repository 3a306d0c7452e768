"""The log behind the metadata: partition 0 of `__sluice_metadata` in the ordinary store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.cluster.metadata import Topic
from broker.log.config import LogConfig
from broker.wire import batch

if TYPE_CHECKING:
    from broker.log.partition import Partition
    from broker.log.store import Store
    from broker.server.commit import Commit

TOPIC = "__sluice_metadata"
TOPIC_ID = bytes(15) + b"\x01"
CONFIGS = {"cleanup.policy": "compact", "segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.5"}
READ_BYTES = 1 << 20


def partition_of(store: Store) -> Partition:
    """The metadata partition, made when the store is new."""
    for partition in store.partitions():
        if partition.topic_id == TOPIC_ID:
            return partition
    return store.create(TOPIC, TOPIC_ID, 0, LogConfig.parse(CONFIGS))


def described(now: int) -> Topic:
    """The metadata log as a topic of the metadata: super-users can read it like any other."""
    return Topic(name=TOPIC, topic_id=TOPIC_ID, partitions=1, created=now, configs=CONFIGS)


class PartitionLog:
    """A `MetadataLog` over a partition and the commit shell."""

    def __init__(self, partition: Partition, commit: Commit, now: Callable[[], int]) -> None:
        self._partition = partition
        self._commit = commit
        self._now = now

    def append(self, records: list[tuple[bytes, bytes | None]]) -> int:
        now = self._now()
        return self._partition.append(batch.split(batch.keyed(records, now)), now).position

    async def durable(self, position: int) -> None:
        await self._commit.durable(position)

    def replay(self) -> Iterator[tuple[bytes, bytes | None]]:
        offset = self._partition.log_start_offset
        while True:
            found = self._partition.read(offset, READ_BYTES)
            if not found.size:
                return
            for one in batch.split(b"".join(found.buffers)):
                for record in batch.records(one):
                    if record.offset >= offset and record.key is not None:
                        yield bytes(record.key), None if record.value is None else bytes(record.value)
                offset = one.last_offset + 1
