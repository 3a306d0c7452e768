"""Quotas as a client of either cluster meets them: told in the answer, and the connection muted for that long."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from broker.client import Admin
from broker.client.administration.types import QuotaEntity
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.acceptance.kafka.conftest import Node
from tests.integration.broker.wire_client import Connection, fetch_fields, produce, records, values_of

SECONDS = 60.0


@contextlib.asynccontextmanager
async def connected(cluster: Node, source: str = "127.0.0.1") -> AsyncIterator[Connection]:
    host, _, port = cluster.bootstrap.rpartition(":")
    connection = Connection(*await asyncio.open_connection(host, int(port), local_addr=(source, 0)))
    try:
        yield connection
    finally:
        await connection.close()


async def muted_for(connection: Connection, at: float) -> float:
    """Milliseconds from `at`, before the request that was throttled, until the next one is answered."""
    await connection.call("ApiVersions", 0)
    return (time.monotonic() - at) * 1000


@contextlib.contextmanager
def limited(admin: Admin, entity: QuotaEntity, **limits: float) -> Iterator[None]:
    """The quota holds within the block."""
    admin.alter_quota(entity, set=limits)
    try:
        yield
    finally:
        admin.alter_quota(entity, remove=list(limits))


def new_topic(name: str, partitions: int) -> Any:
    return struct("CreateTopicsRequest.CreatableTopic")(name=name, num_partitions=partitions, replication_factor=1)


async def test_a_consumer_beyond_its_quota_is_muted_and_loses_nothing(
    cluster: Node, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, client = topic(1), name("client")
    entity = QuotaEntity(client_id=client)
    values = [bytes([65 + number]) * 10_000 for number in range(40)]
    async with connected(cluster) as connection:
        for value in values:  # of today: older ones than retention.ms are deleted while they are read
            batch = records(value, timestamp=int(time.time() * 1000))
            assert (await produce(connection, made, batch=batch)).error_code == 0
    found: list[bytes] = []

    async def read(connection: Connection) -> int:
        connection.send("Fetch", 11, client_id=client, **fetch_fields(made, (0, len(found)), size=30_000))
        answer = await connection.receive("Fetch", 11)
        if answer.responses:  # Apache Kafka answers a throttled fetch with nothing
            partition = answer.responses[0].partitions[0]
            assert partition.error_code == 0
            found.extend(values_of(partition.records))
        return int(answer.throttle_time_ms)

    async with connected(cluster) as connection:
        with limited(admin, entity, consumer_byte_rate=20_000):
            deadline = time.monotonic() + SECONDS
            while not any(each.entity == entity for each in admin.quotas()):
                assert time.monotonic() < deadline, "the quota did not arrive"
            throttle = 0
            while not throttle:
                assert time.monotonic() < deadline, f"{len(found)} records came, and nothing was throttled"
                at = time.monotonic()
                throttle = await read(connection)
                if len(found) == len(values):
                    found.clear()
            assert await muted_for(connection, at) > throttle * 0.8
        deadline = time.monotonic() + 2 * SECONDS
        while len(found) < len(values):
            assert time.monotonic() < deadline, f"{len(found)} of {len(values)} records came"
            await read(connection)
    assert found == values


async def test_a_producer_beyond_its_quota_is_muted(
    cluster: Node, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, client = topic(1), name("client")
    data = struct("ProduceRequest.PartitionProduceData")(index=0, records=records(b"x" * 30_000))
    one = struct("ProduceRequest.TopicProduceData")(name=made, partition_data=[data])
    async with connected(cluster) as connection:
        with limited(admin, QuotaEntity(client_id=client), producer_byte_rate=20_000):
            deadline = time.monotonic() + SECONDS
            throttle = 0
            while not throttle:
                assert time.monotonic() < deadline
                at = time.monotonic()
                connection.send("Produce", 9, client_id=client, acks=-1, timeout_ms=5000, topic_data=[one])
                answer = await connection.receive("Produce", 9)
                assert answer.responses[0].partition_responses[0].error_code == 0
                throttle = answer.throttle_time_ms
            assert await muted_for(connection, at) > throttle * 0.8


async def test_a_client_that_takes_too_much_of_the_brokers_time_is_muted(
    cluster: Node, admin: Admin, name: Callable[[str], str]
) -> None:
    client = name("client")
    async with connected(cluster) as connection:
        with limited(admin, QuotaEntity(client_id=client), request_percentage=0.01):
            deadline = time.monotonic() + SECONDS
            throttle = 0
            while not throttle:
                assert time.monotonic() < deadline
                at = time.monotonic()
                connection.send("Metadata", 9, client_id=client, topics=None)
                throttle = (await connection.receive("Metadata", 9)).throttle_time_ms
            assert throttle <= 1000
            assert await muted_for(connection, at) > throttle * 0.8


async def test_partitions_beyond_the_mutation_quota_are_refused_or_slowed_down_by_the_clients_version(
    cluster: Node, admin: Admin, name: Callable[[str], str]
) -> None:
    client = name("client")

    async def create(connection: Connection, version: int, partitions: int) -> tuple[int, int]:
        """Have it checked only; it counts all the same."""
        fields = {"topics": [new_topic(name("topic"), partitions)], "timeout_ms": 5000, "validate_only": True}
        connection.send("CreateTopics", version, client_id=client, **fields)
        answer = await connection.receive("CreateTopics", version)
        return answer.topics[0].error_code, answer.throttle_time_ms

    async with connected(cluster) as connection, connected(cluster) as second:
        with limited(admin, QuotaEntity(client_id=client), controller_mutation_rate=10):
            deadline, slowed = time.monotonic() + SECONDS, 0
            while not slowed:  # a machine that stands still in between has paid the debt when the second one comes
                assert time.monotonic() < deadline
                code, throttle = await create(connection, 7, 40)
                if not code:
                    continue
                assert code == ErrorCode.THROTTLING_QUOTA_EXCEEDED
                assert 0 < throttle <= 4000
                code, slowed = await create(second, 5, 5)
                assert code == 0
            assert slowed <= 4500


async def test_an_address_that_opens_connections_too_fast_is_turned_away(cluster: Node, admin: Admin) -> None:
    source = "127.0.0.77"

    async def welcome() -> bool:
        async with connected(cluster, source) as connection:
            try:
                connection.send("ApiVersions", 0)
                await connection.receive("ApiVersions", 0)
            except (asyncio.IncompleteReadError, ConnectionError):
                return False
            return True

    assert await welcome()
    with limited(admin, QuotaEntity(ip=source), connection_creation_rate=2):
        deadline = time.monotonic() + SECONDS
        while all(await asyncio.gather(*(welcome() for _ in range(5)))):
            assert time.monotonic() < deadline, "every connection was welcome"
        async with connected(cluster) as another:
            assert await another.call("ApiVersions", 0), "another address is not bound by it"
    deadline = time.monotonic() + SECONDS
    while not await welcome():
        assert time.monotonic() < deadline, "the quota is gone"
