"""Quotas on a real port: what is too much is told to the client, and its connection is muted for that long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.wire_client import Connection, Running, fetch_fields, produce, records

Values = float | None


async def alter_quota(connection: Connection, entity: dict[str, str | None], **values: Values) -> int:
    """Set quotas of an entity (None: remove); the error code."""
    answer = await connection.call("AlterClientQuotas", 1, entries=[quota_entry(entity, **values)])
    return int(answer.entries[0].error_code)


def quota_entry(entity: dict[str, str | None], **values: Values) -> Any:
    return struct("AlterClientQuotasRequest.EntryData")(
        entity=[
            struct("AlterClientQuotasRequest.EntityData")(entity_type=kind, entity_name=name)
            for kind, name in entity.items()
        ],
        ops=[
            struct("AlterClientQuotasRequest.OpData")(key=key, value=value or 0.0, remove=value is None)
            for key, value in values.items()
        ],
    )


async def assert_muted(connection: Connection, milliseconds: int, at: float) -> None:
    """The next request waits until so long after `at`, before the request that was throttled."""
    await connection.call("ApiVersions", 0)
    assert now() - at > milliseconds / 1000 * 0.8, "the connection is muted for that long"


def now() -> float:
    return asyncio.get_running_loop().time()


def new_topic(name: str, partitions: int) -> Any:
    return struct("CreateTopicsRequest.CreatableTopic")(name=name, num_partitions=partitions, replication_factor=1)


async def test_quotas_are_kept_and_described(running: Running) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": "test"}, producer_byte_rate=1000.0) == 0
    shown = await connection.call("DescribeClientQuotas", 1, components=[], strict=False)
    assert [(one.values[0].key, one.values[0].value) for one in shown.entries] == [("producer_byte_rate", 1000.0)]


@pytest.mark.parametrize(
    ("entity", "values"),
    [
        ({"client-id": "test"}, {"nonsense": 1.0}),
        ({"client-id": "test"}, {"producer_byte_rate": 0.5}),
        ({"client-id": "test"}, {"producer_byte_rate": -1.0}),
        ({"client-id": "test"}, {"producer_byte_rate": float("nan")}),
        ({"client-id": "test"}, {"connection_creation_rate": 1.0}),
        ({"ip": "127.0.0.1"}, {"producer_byte_rate": 1.0}),
        ({"ip": "127.0.0.1"}, {"connection_creation_rate": 1.5}),
        ({"ip": "127.0.0.1"}, {"connection_creation_rate": 2.0**31}),
        ({"ip": "no address"}, {"connection_creation_rate": 1.0}),
        ({"ip": "127.0.0.1", "user": "a"}, {"connection_creation_rate": 1.0}),
        ({"user": ""}, {"producer_byte_rate": 1.0}),
        ({"group": "g"}, {"producer_byte_rate": 1.0}),
        ({}, {"producer_byte_rate": 1.0}),
    ],
)
async def test_a_quota_that_means_nothing_is_refused(
    running: Running, entity: dict[str, str | None], values: dict[str, Values]
) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, entity, **values) == ErrorCode.INVALID_REQUEST
    shown = await connection.call("DescribeClientQuotas", 1, components=[], strict=False)
    assert shown.entries == []


async def test_one_request_may_say_each_thing_once(running: Running) -> None:
    connection = await running.connect()
    twice = [quota_entry({"user": "a"}, producer_byte_rate=float(rate)) for rate in (1, 2)]
    answer = await connection.call("AlterClientQuotas", 1, entries=twice)
    assert {one.error_code for one in answer.entries} == {ErrorCode.INVALID_REQUEST}
    entry = quota_entry({"user": "a"}, producer_byte_rate=1.0)
    entry.ops = [*entry.ops, *entry.ops]
    answer = await connection.call("AlterClientQuotas", 1, entries=[entry])
    assert answer.entries[0].error_code == ErrorCode.INVALID_REQUEST


async def test_a_producer_beyond_its_quota_is_muted(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": "test"}, producer_byte_rate=1000.0) == 0
    data = struct("ProduceRequest.PartitionProduceData")(index=0, records=records(b"x" * 10_400))
    one = struct("ProduceRequest.TopicProduceData")(name="t", partition_data=[data])
    at = now()
    answer = await connection.call("Produce", 9, acks=-1, topic_data=[one])
    assert answer.responses[0].partition_responses[0].error_code == 0
    assert 300 < answer.throttle_time_ms < 1000
    await assert_muted(connection, answer.throttle_time_ms, at)
    assert await alter_quota(connection, {"client-id": "test"}, producer_byte_rate=None) == 0
    assert (await connection.call("Produce", 9, acks=-1, topic_data=[one])).throttle_time_ms == 0


async def test_a_consumer_beyond_its_quota_is_muted_and_gets_everything_in_the_end(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    for _ in range(12):
        assert (await produce(connection, "t", b"x" * 10_000)).error_code == 0
    assert await alter_quota(connection, {"client-id": "test"}, consumer_byte_rate=10_000.0) == 0
    offset, throttles, sizes = 0, [], []
    while offset < 12:
        at = now()
        answer = await connection.call("Fetch", 11, **fetch_fields("t", (0, offset)))
        data = answer.responses[0].partitions[0].records
        sizes.append(len(data))
        offset += len(data) // 10_000
        if answer.throttle_time_ms:
            throttles.append(answer.throttle_time_ms)
            await assert_muted(connection, answer.throttle_time_ms, at)
    assert sizes[0] < 100_000, "what one answer holds is bounded by what an idle client may fetch"
    assert throttles and max(throttles) < 3000
    assert running.broker.meter.throttled == len(throttles)


async def test_a_client_that_takes_too_much_of_the_brokers_time_is_muted(running: Running) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": "test"}, request_percentage=0.01) == 0
    for _ in range(1000):
        at = now()
        answer = await connection.call("Metadata", 9, topics=None)
        if answer.throttle_time_ms:
            break
    assert 0 < answer.throttle_time_ms <= 1000
    await assert_muted(connection, answer.throttle_time_ms, at)
    other = await running.connect()
    other.send("Metadata", 9, client_id="another", topics=None)
    assert (await other.receive("Metadata", 9)).throttle_time_ms == 0


async def test_a_handler_that_waits_is_charged_for_its_steps_only(running: Running) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": "test"}, request_percentage=1.0) == 0
    await running.broker.topics.create("t", 1)
    fields = fetch_fields("t", (0, 0)) | {"max_wait_ms": 1500}
    assert (await connection.call("Fetch", 11, **fields)).throttle_time_ms == 0, "a long poll takes no time of ours"
    topics = [new_topic(f"n{number}", 1) for number in range(3)]
    answer = await connection.call("CreateTopics", 7, topics=topics, timeout_ms=5000)
    assert [one.error_code for one in answer.topics] == [0, 0, 0]


async def ask(connection: Connection, client: str, name: str, version: int, **fields: Any) -> Any:
    """A request in a client's name."""
    connection.send(name, version, client_id=client, timeout_ms=5000, **fields)
    return await connection.receive(name, version)


async def use_up(running: Running, client: str) -> None:
    """Take what a quota of ten mutations a second holds, and a second and a half more."""
    connection = await running.connect()
    answer = await ask(connection, client, "CreateTopics", 7, topics=[new_topic("no", 125)], validate_only=True)
    assert (answer.topics[0].error_code, answer.throttle_time_ms) == (0, 0), "it may go below once"


async def test_partitions_beyond_the_mutation_quota_are_refused_and_slowed_down_for_old_clients(
    running: Running,
) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": None}, controller_mutation_rate=10.0) == 0
    grown = struct("CreatePartitionsRequest.CreatePartitionsTopic")(name="t", count=3, assignments=None)
    named = struct("DeleteTopicsRequest.DeleteTopicState")(name="t")
    for name, version, results, fields in (
        ("CreateTopics", 7, "topics", {"topics": [new_topic("n", 1)]}),
        ("CreatePartitions", 3, "results", {"topics": [grown]}),
        ("DeleteTopics", 6, "responses", {"topics": [named]}),
    ):
        await use_up(running, name)
        fresh = await running.connect()
        at = now()
        answer = await ask(fresh, name, name, version, **fields)
        assert getattr(answer, results)[0].error_code == ErrorCode.THROTTLING_QUOTA_EXCEEDED, name
        assert 0 < answer.throttle_time_ms <= 1500
        await assert_muted(fresh, answer.throttle_time_ms, at)
    for name, version, results, fields in (
        ("CreateTopics", 5, "topics", {"topics": [new_topic("n", 1)]}),
        ("CreatePartitions", 2, "results", {"topics": [grown]}),
        ("DeleteTopics", 4, "responses", {"topic_names": ["t"]}),
    ):
        await use_up(running, f"old {name}")
        fresh = await running.connect()
        answer = await ask(fresh, f"old {name}", name, version, **fields)
        assert getattr(answer, results)[0].error_code == 0, name
        assert 0 < answer.throttle_time_ms <= 1900


async def test_a_topic_beyond_the_mutation_quota_is_not_created_by_being_asked_for(running: Running) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, {"client-id": "test"}, controller_mutation_rate=1.0) == 0
    await connection.call("CreateTopics", 7, topics=[new_topic("a", 13)], timeout_ms=5000)
    wanted = [struct("MetadataRequest.MetadataRequestTopic")(name="wanted")]
    answer = await connection.call("Metadata", 9, topics=wanted, allow_auto_topic_creation=True)
    assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert running.broker.topics.get("wanted") is None


async def test_connections_beyond_an_addresss_rate_are_held_and_closed(running: Running) -> None:
    connection = await running.connect()
    assert await alter_quota(connection, {"ip": "127.0.0.1"}, connection_creation_rate=1.0) == 0
    for _ in range(10):
        welcome = await running.connect()
        await welcome.call("ApiVersions", 0)
    refused = False
    for _ in range(50):  # each second makes room for one more
        late = await running.connect()
        late.send("ApiVersions", 0)
        try:
            async with asyncio.timeout(60):
                await late.receive("ApiVersions", 0)
        except (asyncio.IncompleteReadError, ConnectionError):
            refused = True
            break
    assert refused, "held for a while, answered nothing, closed"
    assert await connection.call("ApiVersions", 0), "connections there are already go on"
    inner = await running.root()
    assert await inner.call("ApiVersions", 0), "the product's own listener is not bound by it"
    assert await alter_quota(connection, {"ip": "127.0.0.1"}, connection_creation_rate=None) == 0
    assert await (await running.connect()).call("ApiVersions", 0)
