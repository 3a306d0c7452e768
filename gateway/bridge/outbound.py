"""What a bridge sends: the log read from a stored offset, which moves only once the upstream has acknowledged.

Offsets are committed under the group `__sluice_bridge.<name>`. A partition without one is read from where the bridge
came to be. Records are taken in batches; all of a batch's messages are under way together (up to a window), and only
when every one is acknowledged do the offsets move. Whatever fails, reading begins anew at what was committed: at least
once, in the order of each partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from broker.client import AsyncAdmin, Consumer, Record, TopicPartition
from broker.client.administration.types import At
from gateway.bridge.upstream import Disconnected, Upstream
from gateway.bridges import Bridge
from gateway.delivering.messages import message_of
from gateway.registry import Registry
from gateway.routes import DEFAULT, could_write

GROUP = "__sluice_bridge."
BATCH = 500
WINDOW = 50
COMMIT_SECONDS = 0.5
LOOK_SECONDS = 3.0


class Outbound:
    """`run` until the connection is lost. `lag` is None until it is known."""

    def __init__(
        self,
        bridge: Bridge,
        registry: Registry,
        admin: AsyncAdmin,
        consumer: Callable[[], Consumer],
        *,
        clock: Callable[[], float],
    ) -> None:
        self.sent = 0
        self.lag: int | None = None
        self._bridge = bridge
        self._registry = registry
        self._admin = admin
        self._make = consumer
        self._clock = clock
        self._next: dict[TopicPartition, int] = {}  # everything before is acknowledged
        self._committed: dict[TopicPartition, int] = {}

    async def run(self, upstream: Upstream) -> None:
        """Raises Disconnected or ClientError."""
        consumer = self._make()
        self._next, self._committed = {}, {}
        looked = committed = float("-inf")
        try:
            while True:
                now = time.monotonic()
                if now - looked > LOOK_SECONDS:
                    await self._look(consumer)
                    looked = now
                records = await consumer.records(BATCH, 0.2)
                if upstream.lost.done():
                    raise Disconnected(upstream.lost.result())
                await self._send(upstream, records)
                for record in records:
                    self._next[record.origin] = record.offset + 1
                if time.monotonic() - committed > COMMIT_SECONDS:
                    await self._commit()
                    committed = time.monotonic()
        finally:
            await asyncio.get_running_loop().run_in_executor(None, consumer.close)

    def _topics(self, names: Sequence[str]) -> list[str]:
        """The broker topics that may hold MQTT messages."""
        routes = self._registry.table.routes
        return [
            name
            for name in names
            if not name.startswith("__")
            and (name == DEFAULT.topic or any(could_write(route, name) for route in routes))
        ]

    async def _look(self, consumer: Consumer) -> None:
        """Take in topics and partitions that are new, and count what is still to be sent."""
        found = await self._admin.topics()
        wanted = [
            TopicPartition(name, partition.index)
            for name in self._topics(list(found))
            for partition in found[name].partitions
        ]
        places = await self._admin.offsets(wanted, At.LATEST, committed_only=True)
        ends = {key: place.offset for key, place in places.items() if not place.error}
        new = [key for key in ends if key not in self._next]
        if new:
            starts = await self._starts(new, ends)
            self._next |= starts
            await asyncio.get_running_loop().run_in_executor(None, consumer.add, starts)
        self.lag = sum(max(0, end - self._next[key]) for key, end in ends.items())

    async def _starts(
        self, partitions: Sequence[TopicPartition], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        group = GROUP + self._bridge.name
        stored = (await self._admin.group_offsets([group])).get(group, {})
        starts = {key: stored[key].offset for key in partitions if key in stored and stored[key].offset >= 0}
        self._committed |= starts
        fresh = [key for key in partitions if key not in starts]
        if fresh:
            since = await self._admin.offsets(fresh, int(self._bridge.since * 1000))
            for key in fresh:
                place = since.get(key)
                starts[key] = place.offset if place and not place.error and place.offset >= 0 else ends[key]
        return starts

    async def _send(self, upstream: Upstream, records: Sequence[Record]) -> None:
        """All of these; raises Disconnected if one of them was not acknowledged."""
        room = asyncio.Semaphore(WINDOW)

        async def one(topic: str, record: Record, retain: bool) -> None:
            try:
                await upstream.publish(topic, record.value or b"", retain)
                self.sent += 1
            finally:
                room.release()

        tasks: list[asyncio.Task[None]] = []
        try:
            for record in records:
                message = message_of(record)
                if message is None or message.sender == self._bridge.origin:
                    continue
                if message.expires_at is not None and message.expires_at <= self._clock():
                    continue
                topic = self._bridge.remote_topic(message.topic)
                if topic is not None:
                    await room.acquire()
                    tasks.append(asyncio.get_running_loop().create_task(one(topic, record, message.retain)))
                    if upstream.lost.done():
                        break
            if tasks:
                await asyncio.wait(tasks)
            for task in tasks:
                task.result()
            if upstream.lost.done():
                raise Disconnected(upstream.lost.result())
        finally:
            for task in tasks:
                task.cancel()

    async def _commit(self) -> None:
        moved = {key: offset for key, offset in self._next.items() if self._committed.get(key) != offset}
        if moved:
            await self._admin.alter_group_offsets(GROUP + self._bridge.name, moved)
            self._committed |= moved
