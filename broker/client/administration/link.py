"""The way to a cluster: which broker to ask, over which connection, and when to ask again.

Metadata and coordinators are kept until something says that they moved. A request that only reads is asked again after
a lost connection or a moved leader until its deadline; one that changes something is not, once it was sent: its
outcome is unknown (`TimedOut`), and only the caller knows whether to look first.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from broker.client.administration.connection import Connection, ConnectionLost
from broker.client.errors import (
    AuthenticationFailed,
    ClusterError,
    CoordinatorMoved,
    NotYet,
    TimedOut,
    Unreachable,
    from_code,
)
from broker.client.records import TopicPartition
from broker.client.settings import Settings
from broker.wire import codec, schema
from broker.wire.codec import Struct

METADATA, FIND_COORDINATOR = 3, 10
ANY_BROKER = -1
CONTROLLER = -2
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
METADATA_AGE = 30.0

Answer = TypeVar("Answer")


class CoordinatorKind(IntEnum):
    GROUP = 0
    TRANSACTION = 1


@dataclass(slots=True)
class Picture:
    """What metadata said last. `leaders` holds the partitions that were asked about since then."""

    brokers: dict[int, tuple[str, int]] = field(default_factory=dict)
    controller: int = -1
    cluster_id: str = ""
    leaders: dict[TopicPartition, int] = field(default_factory=dict)
    taken: float = float("-inf")


class Link:
    """For one event loop. `timeout` is the deadline of each call in seconds."""

    def __init__(self, settings: Settings, *, timeout: float) -> None:
        self.settings = settings
        self.timeout = timeout
        self._connections: dict[tuple[str, int], Connection] = {}
        self._opening: dict[tuple[str, int], asyncio.Lock] = {}
        self._coordinators: dict[tuple[CoordinatorKind, str], int] = {}
        self.picture = Picture()

    # --- asking

    async def ask(
        self,
        key: int,
        request: Struct,
        broker: int = ANY_BROKER,
        *,
        reads: bool = True,
        at_most: int = schema.MAX_VERSION,
        at_least: int = 0,
    ) -> Struct:
        """The response of one broker (an id, ANY_BROKER or CONTROLLER)."""

        async def attempt(left: float) -> Struct:
            connection = await self._connection(broker, left)
            version = connection.version(key, at_most, at_least)
            try:
                return await connection.exchange(key, version, request, left)
            except ConnectionLost as error:
                if reads:
                    raise
                message = f"{schema.api(key).name}: the connection was lost before the answer; it may have been done"
                raise TimedOut(message) from error

        return await self.retried(attempt)

    async def retried(self, attempt: Callable[[float], Awaitable[Answer]]) -> Answer:
        """The outcome of `attempt(seconds left)`, asked again while the cluster is unreachable or moving."""
        deadline = time.monotonic() + self.timeout
        failures = 0
        while True:
            left = deadline - time.monotonic()
            try:
                return await attempt(max(left, 0.001))
            except (Unreachable, CoordinatorMoved, NotYet):
                self.forget()
                pause = PAUSES[min(failures, len(PAUSES) - 1)] * random.uniform(0.75, 1.25)
                failures += 1
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)

    def forget(self) -> None:
        """Don't trust what was known of leaders and coordinators."""
        self.picture.taken = float("-inf")
        self.picture.leaders.clear()
        self._coordinators.clear()

    async def coordinators(
        self, names: Iterable[str], kind: CoordinatorKind = CoordinatorKind.GROUP
    ) -> dict[int, list[str]]:
        """Broker id → those of the groups (or transactional ids) that it coordinates."""
        wanted = list(dict.fromkeys(names))
        missing = [name for name in wanted if (kind, name) not in self._coordinators]
        if missing:
            await self.retried(lambda left: self._find(missing, kind, left))
        by_broker: dict[int, list[str]] = {}
        for name in wanted:
            by_broker.setdefault(self._coordinators[kind, name], []).append(name)
        return by_broker

    async def _find(self, names: list[str], kind: CoordinatorKind, left: float) -> None:
        connection = await self._connection(ANY_BROKER, left)
        version = connection.version(FIND_COORDINATOR, at_most=4)
        make = codec.struct("FindCoordinatorRequest")
        if version >= 4:
            request = make(key_type=kind, coordinator_keys=names)
            answer = await connection.exchange(FIND_COORDINATOR, version, request, left)
            found = [(each.key, each) for each in answer.coordinators]
        else:
            found = []
            for name in names:
                request = make(key=name, key_type=kind)
                found.append((name, await connection.exchange(FIND_COORDINATOR, version, request, left)))
        for name, each in found:
            if each.error_code:
                raise from_code(each.error_code, each.error_message)
            self.picture.brokers[each.node_id] = (each.host, each.port)
            self._coordinators[kind, name] = each.node_id

    async def leaders(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """Broker id → those of the partitions that it leads; -1 → those without a leader, or unknown."""
        wanted = list(dict.fromkeys(partitions))
        if time.monotonic() - self.picture.taken > METADATA_AGE or any(p not in self.picture.leaders for p in wanted):
            await self.metadata(sorted({topic for topic, _ in wanted}))
        by_broker: dict[int, list[TopicPartition]] = {}
        known = self.picture.leaders
        for partition in wanted:
            by_broker.setdefault(known.get(partition, -1), []).append(partition)
        return by_broker

    async def metadata(self, topics: Iterable[str] | None) -> Struct:
        """Ask about these topics (None: all); creates none. The picture is brought up to date."""
        make = codec.struct("MetadataRequest.MetadataRequestTopic")
        names = None if topics is None else [make(name=name) for name in topics]
        request = codec.struct("MetadataRequest")(topics=names, allow_auto_topic_creation=False)

        async def attempt(left: float) -> Struct:
            connection = await self._any(left)
            return await connection.exchange(METADATA, connection.version(METADATA, 12, 4), request, left)

        answer = await self.retried(attempt)
        picture = self.picture
        picture.brokers = {each.node_id: (each.host, each.port) for each in answer.brokers}
        picture.controller = answer.controller_id
        picture.cluster_id = answer.cluster_id or ""
        picture.taken = time.monotonic()
        for topic in answer.topics:
            if not topic.error_code:
                for each in topic.partitions:
                    picture.leaders[TopicPartition(topic.name, each.partition_index)] = each.leader_id
        return answer

    async def versions(self) -> dict[int, tuple[int, int]]:
        return dict((await self.some()).versions)

    async def features(self) -> dict[str, int]:
        """The cluster's finalized features and their levels."""
        return dict((await self.some()).features)

    async def some(self) -> Connection:
        """A connection to any broker."""
        return await self.retried(self._any)

    async def brokers(self) -> Mapping[int, tuple[str, int]]:
        """All brokers, by id."""
        await self.metadata([])
        return self.picture.brokers

    # --- connections

    async def _connection(self, broker: int, left: float) -> Connection:
        if broker == ANY_BROKER:
            return await self._any(left)
        if broker == CONTROLLER:
            if self.picture.controller not in self.picture.brokers:
                await self.metadata([])
            broker = self.picture.controller
            if broker not in self.picture.brokers:
                return await self._any(left)
        if broker not in self.picture.brokers:
            await self.metadata([])
        address = self.picture.brokers.get(broker)
        if address is None:
            raise Unreachable(f"the cluster has no broker {broker}")
        return await self._open(address, left)

    async def _any(self, left: float) -> Connection:
        for connection in self._connections.values():
            if not connection.lost:
                return connection
        deadline = time.monotonic() + left
        problems: list[str] = []
        for address in dict.fromkeys([*self.settings.addresses, *self.picture.brokers.values()]):
            try:
                return await self._open(address, max(0.05, deadline - time.monotonic()))
            except AuthenticationFailed:
                raise
            except (Unreachable, TimedOut, ClusterError) as error:
                problems.append(str(error))
        raise Unreachable("; ".join(problems) or "no address")

    async def _open(self, address: tuple[str, int], left: float) -> Connection:
        async with self._opening.setdefault(address, asyncio.Lock()):
            known = self._connections.get(address)
            if known is not None and not known.lost:
                return known
            connection = await Connection.connect(self.settings, *address, timeout=left)
            self._connections[address] = connection
            return connection

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.close()
