"""What a worker needs of the cluster; a fake of it stands in for the cluster in the tests."""

from __future__ import annotations

from typing import Protocol

from broker.client import Admin, Consumer, Producer, Settings, TopicPartition
from broker.client.administration.types import At
from broker.client.errors import ClientError

TRANSACTION_SECONDS = 30.0
FETCH_WAIT_SECONDS = 0.25


class Connections(Protocol):
    def producer(self, transactional_id: str) -> Producer: ...

    def reader(self, *, to_the_end: bool = False) -> Consumer:
        """A reader of committed records; with `to_the_end`, its `ends` say where each partition ended."""
        ...

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """The first offset that the partition still has, and the next one it will give; raises ClientError."""
        ...


class ClusterConnections:
    """To a real cluster. Small queues: nothing is worth keeping in memory twice."""

    def __init__(self, settings: Settings, admin: Admin) -> None:
        self._settings = settings
        self._admin = admin

    def producer(self, transactional_id: str) -> Producer:
        return Producer(
            self._settings,
            linger_ms=1,
            transactional_id=transactional_id,
            transaction_timeout=TRANSACTION_SECONDS,
            queue_messages=100_000,
        )

    def reader(self, *, to_the_end: bool = False) -> Consumer:
        overrides = {
            "fetch.message.max.bytes": 1 << 20,
            "queued.min.messages": 2000,
            "enable.partition.eof": to_the_end,
        }
        return Consumer(
            self._settings, reset="error", queue_kbytes=2048, fetch_wait=FETCH_WAIT_SECONDS, overrides=overrides
        )

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        found = [self._admin.offsets([partition], at)[partition] for at in (At.EARLIEST, At.LATEST)]
        for each in found:
            if each.error:
                raise ClientError(each.error)
        return found[0].offset, found[1].offset
