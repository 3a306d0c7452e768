"""Topics, partitions, configs, offsets and quotas through their APIs, with Kafka's codes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.cluster.configs import ResourceKind, Source
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.wire_client import Connection, Running, produce, records, settings, started


def creatable(name: str, partitions: int = 1, replication: int = -1, **configs: str) -> Any:
    return struct("CreateTopicsRequest.CreatableTopic")(
        name=name,
        num_partitions=partitions,
        replication_factor=replication,
        configs=[
            struct("CreateTopicsRequest.CreatableTopicConfig")(name=key.replace("_", "."), value=value)
            for key, value in configs.items()
        ],
    )


async def create(connection: Connection, *topics: Any, validate_only: bool = False) -> list[Any]:
    answer = await connection.call("CreateTopics", 7, topics=list(topics), validate_only=validate_only)
    return list(answer.topics)


async def names(connection: Connection) -> set[str]:
    return {one.name for one in (await connection.call("Metadata", 12, topics=None)).topics}


async def test_a_topic_is_created_described_grown_and_deleted(running: Running) -> None:
    connection = await running.connect()
    made = (await create(connection, creatable("t", 3, retention_ms="60000")))[0]
    assert (made.error_code, made.num_partitions, made.replication_factor) == (0, 3, 1)
    shown = {one.name: (one.value, one.config_source) for one in made.configs}
    assert shown["retention.ms"] == ("60000", Source.TOPIC)
    assert shown["segment.bytes"] == ("1073741824", Source.DEFAULT)
    listed = (await connection.call("Metadata", 12, topics=None)).topics[0]
    assert (listed.topic_id, len(listed.partitions), listed.partitions[0].leader_id) == (made.topic_id, 3, 1)
    wanted = struct("CreatePartitionsRequest.CreatePartitionsTopic")(name="t", count=5, assignments=None)
    for validate_only, count in ((True, 3), (False, 5)):
        answer = await connection.call("CreatePartitions", 3, topics=[wanted], validate_only=validate_only)
        assert answer.results[0].error_code == 0
        assert len((await connection.call("Metadata", 12, topics=None)).topics[0].partitions) == count
    again = await connection.call("CreatePartitions", 3, topics=[wanted])
    assert again.results[0].error_code == ErrorCode.INVALID_PARTITIONS
    gone = struct("DeleteTopicsRequest.DeleteTopicState")(name=None, topic_id=made.topic_id)
    answer = await connection.call("DeleteTopics", 6, topics=[gone])
    assert (answer.responses[0].error_code, answer.responses[0].name) == (0, "t")
    assert await names(connection) == set()


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (creatable("t"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (creatable("a/b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (creatable(""), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (creatable("x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (creatable("with_dash.es"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (creatable("new", 0), ErrorCode.INVALID_PARTITIONS),
        (creatable("new", 1, 3), ErrorCode.INVALID_REPLICATION_FACTOR),
        (creatable("new", 1, 1, retention_ms="x"), ErrorCode.INVALID_CONFIG),
        (creatable("new", 1, 1, nothing="x"), ErrorCode.INVALID_CONFIG),
        (creatable("__mine"), ErrorCode.TOPIC_AUTHORIZATION_FAILED),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else str(value),
)
async def test_a_topic_that_can_not_be_is_refused(running: Running, topic: Any, code: ErrorCode) -> None:
    connection = await running.connect()
    await create(connection, creatable("t"), creatable("with.dash_es"))
    assert (await create(connection, topic))[0].error_code == code
    assert (await create(connection, topic, validate_only=True))[0].error_code == code
    assert await names(connection) == {"t", "with.dash_es"}


async def test_a_name_twice_in_one_request_is_refused_and_the_others_are_made(running: Running) -> None:
    connection = await running.connect()
    answers = await create(connection, creatable("a"), creatable("b"), creatable("a"))
    assert {one.name: one.error_code for one in answers} == {"a": ErrorCode.INVALID_REQUEST, "b": 0}


async def test_validating_creates_nothing(running: Running) -> None:
    connection = await running.connect()
    assert (await create(connection, creatable("t"), validate_only=True))[0].error_code == 0
    assert await names(connection) == set()


async def test_asking_for_a_topic_creates_it_only_when_wanted_and_allowed(running: Running, tmp_path: Path) -> None:
    connection = await running.connect()
    wanted = [struct("MetadataRequest.MetadataRequestTopic")(name="made")]
    quiet = await connection.call("Metadata", 12, topics=wanted, allow_auto_topic_creation=False)
    assert quiet.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    made = await connection.call("Metadata", 12, topics=wanted, allow_auto_topic_creation=True)
    assert (made.topics[0].error_code, len(made.topics[0].partitions)) == (0, 1)
    async with started(settings(tmp_path / "other", auto_create_topics=False)) as other:
        answer = await (await other.connect()).call("Metadata", 12, topics=wanted)
        assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_two_clients_asking_for_one_new_topic_get_the_same(running: Running) -> None:
    wanted = [struct("MetadataRequest.MetadataRequestTopic")(name="made")]
    connections = [await running.connect() for _ in range(8)]
    answers = await asyncio.gather(*(one.call("Metadata", 12, topics=wanted) for one in connections))
    assert len({one.topics[0].topic_id for one in answers}) == 1


@pytest.mark.parametrize("version", range(14))
async def test_every_version_of_metadata_is_answered(running: Running, version: int) -> None:
    await running.broker.topics.create("t", 2)
    connection = await running.connect()
    answer = await connection.call("Metadata", version, topics=[] if version == 0 else None)
    assert [(one.name, len(one.partitions)) for one in answer.topics] == [("t", 2)]
    assert (answer.brokers[0].host, answer.brokers[0].port) == ("127.0.0.1", running.port())


def resource(kind: int, name: str, *configs: tuple[str, int, str | None]) -> Any:
    return struct("IncrementalAlterConfigsRequest.AlterConfigsResource")(
        resource_type=kind,
        resource_name=name,
        configs=[
            struct("IncrementalAlterConfigsRequest.AlterableConfig")(name=key, config_operation=op, value=value)
            for key, op, value in configs
        ],
    )


async def describe(connection: Connection, kind: int, name: str) -> dict[str, tuple[str, int]]:
    wanted = struct("DescribeConfigsRequest.DescribeConfigsResource")(
        resource_type=kind, resource_name=name, configuration_keys=None
    )
    answer = await connection.call("DescribeConfigs", 4, resources=[wanted], include_synonyms=True)
    assert answer.results[0].error_code == 0, answer
    return {one.name: (one.value, one.config_source) for one in answer.results[0].configs}


async def alter(connection: Connection, *resources: Any, validate_only: bool = False) -> list[int]:
    answer = await connection.call("IncrementalAlterConfigs", 1, resources=list(resources), validate_only=validate_only)
    return [one.error_code for one in answer.responses]


async def test_configs_are_altered_and_reach_the_log(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    change = resource(ResourceKind.TOPIC, "t", ("max.message.bytes", 0, "100"))
    assert await alter(connection, change, validate_only=True) == [0]
    assert (await describe(connection, ResourceKind.TOPIC, "t"))["max.message.bytes"] == ("1048588", Source.DEFAULT)
    assert await alter(connection, change) == [0]
    assert (await describe(connection, ResourceKind.TOPIC, "t"))["max.message.bytes"] == ("100", Source.TOPIC)
    assert (await produce(connection, "t", b"x" * 200)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert await alter(connection, resource(ResourceKind.TOPIC, "t", ("max.message.bytes", 1, None))) == [0]
    assert (await produce(connection, "t", b"x" * 200)).error_code == 0


async def test_the_brokers_default_holds_where_the_topic_says_nothing(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    assert await alter(connection, resource(ResourceKind.BROKER, "", ("message.max.bytes", 0, "100"))) == [0]
    shown = await describe(connection, ResourceKind.TOPIC, "t")
    assert shown["max.message.bytes"] == ("100", Source.DYNAMIC_DEFAULT_BROKER)
    assert (await produce(connection, "t", b"x" * 200)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    fixed = resource(ResourceKind.BROKER, "1", ("node.id", 0, "2"))
    assert await alter(connection, fixed) == [ErrorCode.INVALID_REQUEST]


async def test_groups_and_client_metrics_have_configs_too(running: Running) -> None:
    connection = await running.connect()
    changes = [
        resource(ResourceKind.GROUP, "g", ("share.delivery.count.limit", 0, "7")),
        resource(ResourceKind.CLIENT_METRICS, "m", ("interval.ms", 0, "60000")),
        resource(ResourceKind.GROUP, "g2", ("share.delivery.count.limit", 0, "70")),
        resource(ResourceKind.TOPIC, "nope", ("retention.ms", 0, "5")),
    ]
    assert await alter(connection, *changes) == [
        0,
        0,
        ErrorCode.INVALID_CONFIG,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    assert (await describe(connection, ResourceKind.GROUP, "g"))["share.delivery.count.limit"] == ("7", Source.GROUP)
    listed = await connection.call("ListConfigResources", 1, resource_types=[])
    assert {(one.resource_type, one.resource_name) for one in listed.config_resources} >= {
        (ResourceKind.GROUP, "g"),
        (ResourceKind.CLIENT_METRICS, "m"),
        (ResourceKind.BROKER, "1"),
    }
    old = await connection.call("ListConfigResources", 0)
    assert [one.resource_name for one in old.config_resources] == ["m"]


async def offsets(connection: Connection, *timestamps: int, version: int = 11) -> list[tuple[int, int]]:
    wanted = struct("ListOffsetsRequest.ListOffsetsPartition")
    found = []
    for timestamp in timestamps:
        one = struct("ListOffsetsRequest.ListOffsetsTopic")(
            name="t", partitions=[wanted(partition_index=0, timestamp=timestamp)]
        )
        answer = (await connection.call("ListOffsets", version, replica_id=-1, topics=[one])).topics[0].partitions[0]
        found.append((answer.error_code, answer.offset))
    return found


async def test_offsets_by_time_and_by_kafkas_special_times(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    assert await offsets(connection, -1, -2, -3, -4, -5, 0) == [(0, 0), (0, 0), (0, -1), (0, 0), (0, -1), (0, -1)]
    await produce(connection, "t", batch=records(b"a", b"b", timestamp=1000))
    await produce(connection, "t", batch=records(b"c", b"d", timestamp=500))
    assert await offsets(connection, -1, -2, -3, 1001, 1, 1002) == [(0, 4), (0, 0), (0, 1), (0, 1), (0, 0), (0, -1)]
    assert await offsets(connection, -3, version=6) == [(ErrorCode.UNSUPPORTED_VERSION, -1)]


async def test_records_are_deleted_up_to_an_offset(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    await produce(connection, "t", b"a", b"b", b"c")

    async def delete(offset: int) -> tuple[int, int]:
        partition = struct("DeleteRecordsRequest.DeleteRecordsPartition")(partition_index=0, offset=offset)
        one = struct("DeleteRecordsRequest.DeleteRecordsTopic")(name="t", partitions=[partition])
        answer = (await connection.call("DeleteRecords", 2, topics=[one])).topics[0].partitions[0]
        return answer.error_code, answer.low_watermark

    assert await delete(2) == (0, 2)
    assert await offsets(connection, -2) == [(0, 2)]
    assert (await delete(9))[0] == ErrorCode.OFFSET_OUT_OF_RANGE
    assert await delete(-1) == (0, 3)


async def test_topic_partitions_are_described_page_by_page(running: Running) -> None:
    for name, count in (("a", 3), ("b", 2)):
        await running.broker.topics.create(name, count)
    connection = await running.connect()
    seen: list[tuple[str, int]] = []
    cursor = None
    while True:
        answer = await connection.call(
            "DescribeTopicPartitions", 0, topics=[], response_partition_limit=2, cursor=cursor
        )
        seen += [(one.name, part.partition_index) for one in answer.topics for part in one.partitions]
        if answer.next_cursor is None:
            break
        cursor = struct("DescribeTopicPartitionsRequest.Cursor")(
            topic_name=answer.next_cursor.topic_name, partition_index=answer.next_cursor.partition_index
        )
    assert seen == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


async def test_one_node_answers_placement_questions_as_one_node(running: Running) -> None:
    await running.broker.topics.create("t", 2)
    connection = await running.connect()
    dirs = await connection.call("DescribeLogDirs", 4, topics=None)
    assert {one.name for one in dirs.results[0].topics} >= {"t"}
    assert dirs.results[0].total_bytes > dirs.results[0].usable_bytes > 0
    election = await connection.call(
        "ElectLeaders",
        2,
        topic_partitions=[struct("ElectLeadersRequest.TopicPartitions")(topic="t", partitions=[0, 9])],
    )
    assert [one.error_code for one in election.replica_election_results[0].partition_result] == [
        ErrorCode.ELECTION_NOT_NEEDED,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    assert (await connection.call("ListPartitionReassignments", 0, topics=None)).topics == []
    cluster = await connection.call("DescribeCluster", 2)
    assert [one.broker_id for one in cluster.brokers] == [1]
    found = await connection.call("FindCoordinator", 6, key_type=0, coordinator_keys=["a", "b"])
    assert [(one.node_id, one.error_code) for one in found.coordinators] == [(1, 0), (1, 0)]


async def test_clients_are_told_to_push_no_telemetry(running: Running) -> None:
    connection = await running.connect()
    answer = await connection.call("GetTelemetrySubscriptions", 0, client_instance_id=bytes(16))
    assert (answer.error_code, answer.requested_metrics) == (0, [])
    assert answer.client_instance_id != bytes(16)
    push = await connection.call("PushTelemetry", 0, client_instance_id=b"i" * 16, subscription_id=3, metrics=b"")
    assert push.error_code == ErrorCode.UNKNOWN_SUBSCRIPTION_ID
