"""Requests at the edge of what makes sense: both clusters answer them with the same code."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.acceptance.kafka.conftest import Node
from tests.integration.broker.wire_client import Connection, fetch_fields, records

NO_ID, SOME_ID = bytes(16), b"0123456789abcdef"
MEMBER = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
async def connection(cluster: Node) -> AsyncIterator[Connection]:
    host, _, port = cluster.bootstrap.rpartition(":")
    opened = Connection(*await asyncio.open_connection(host, int(port)))
    yield opened
    await opened.close()


def new_topic(name: str, **fields: Any) -> Any:
    configs = [
        struct("CreateTopicsRequest.CreatableTopicConfig")(name=key, value=value)
        for key, value in fields.pop("configs", {}).items()
    ]
    assignments = [
        struct("CreateTopicsRequest.CreatableReplicaAssignment")(partition_index=index, broker_ids=brokers)
        for index, brokers in fields.pop("assignments", ())
    ]
    usual = {"num_partitions": 1, "replication_factor": 1} | fields
    return struct("CreateTopicsRequest.CreatableTopic")(name=name, configs=configs, assignments=assignments, **usual)


NEW_TOPICS: list[tuple[str, dict[str, Any], ErrorCode]] = [
    ("", {}, ErrorCode.INVALID_TOPIC_EXCEPTION),
    ("..", {}, ErrorCode.INVALID_TOPIC_EXCEPTION),
    ("a b", {}, ErrorCode.INVALID_TOPIC_EXCEPTION),
    ("x" * 250, {}, ErrorCode.INVALID_TOPIC_EXCEPTION),
    ("t", {"num_partitions": 0}, ErrorCode.INVALID_PARTITIONS),
    ("t", {"num_partitions": -2}, ErrorCode.INVALID_PARTITIONS),
    ("t", {"replication_factor": 0}, ErrorCode.INVALID_REPLICATION_FACTOR),
    ("t", {"replication_factor": 2}, ErrorCode.INVALID_REPLICATION_FACTOR),
    ("t", {"num_partitions": -1, "replication_factor": -1}, ErrorCode.NONE),
    ("t", {"configs": {"nonsense": "1"}}, ErrorCode.INVALID_CONFIG),
    ("t", {"configs": {"retention.ms": "-2"}}, ErrorCode.INVALID_CONFIG),
    ("t", {"configs": {"retention.ms": " 5000 "}}, ErrorCode.NONE),
    ("t", {"configs": {"preallocate": "TRUE"}}, ErrorCode.NONE),
    ("t", {"configs": {"segment.bytes": "1000"}}, ErrorCode.INVALID_CONFIG),
    ("t", {"configs": {"remote.storage.enable": "true"}}, ErrorCode.INVALID_CONFIG),
    ("t", {"configs": {"remote.log.copy.disable": "true"}}, ErrorCode.NONE),
    (
        "t",
        {"configs": {"min.compaction.lag.ms": "20", "max.compaction.lag.ms": "10"}},
        ErrorCode.INVALID_CONFIG,
    ),
    ("t", {"num_partitions": -1, "replication_factor": -1, "assignments": [(0, [1]), (1, [1])]}, ErrorCode.NONE),
    (
        "t",
        {"num_partitions": -1, "replication_factor": -1, "assignments": [(0, [1]), (2, [1])]},
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    ),
    ("t", {"num_partitions": 1, "replication_factor": -1, "assignments": [(0, [1])]}, ErrorCode.INVALID_REQUEST),
]


async def test_topics_that_can_not_be_made(connection: Connection, name: Callable[[str], str]) -> None:
    for word, fields, code in NEW_TOPICS:
        topic = new_topic(name("odd") if word == "t" else word, **fields)
        answer = await connection.call("CreateTopics", 7, topics=[topic], timeout_ms=5000, validate_only=True)
        assert answer.topics[0].error_code == code, (word, fields)


async def test_configs_that_can_not_be_set(
    connection: Connection, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    cases: list[tuple[int, str, list[tuple[str, int, str | None]], ErrorCode]] = [
        (2, name("none"), [("retention.ms", 0, "5")], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (2, "a b", [("retention.ms", 0, "5")], ErrorCode.INVALID_TOPIC_EXCEPTION),
        (2, "", [("retention.ms", 0, "5")], ErrorCode.INVALID_REQUEST),
        (2, made, [("nonsense", 0, "5")], ErrorCode.INVALID_CONFIG),
        (2, made, [("retention.ms", 0, "five")], ErrorCode.INVALID_CONFIG),
        (2, made, [("retention.ms", 2, "5")], ErrorCode.INVALID_CONFIG),
        (2, made, [("cleanup.policy", 2, "compact")], ErrorCode.NONE),
        (2, made, [("cleanup.policy", 3, "never there")], ErrorCode.NONE),
        (2, made, [("retention.ms", 1, None)], ErrorCode.NONE),
        (2, made, [("retention.ms", 0, None)], ErrorCode.INVALID_REQUEST),
        (2, made, [("retention.ms", 0, "5"), ("retention.ms", 0, "6")], ErrorCode.INVALID_REQUEST),
        (
            2,
            made,
            [("min.compaction.lag.ms", 0, "10"), ("max.compaction.lag.ms", 0, "5")],
            ErrorCode.INVALID_CONFIG,
        ),
        (4, "9", [("log.retention.ms", 0, "5")], ErrorCode.INVALID_REQUEST),
        (4, "1", [("node.id", 0, "5")], ErrorCode.INVALID_REQUEST),
        (32, group, [("nonsense", 0, "5")], ErrorCode.INVALID_CONFIG),
        (32, group, [("share.auto.offset.reset", 0, "sometime")], ErrorCode.INVALID_CONFIG),
        (32, group, [("share.auto.offset.reset", 0, "by_duration:PT1H")], ErrorCode.NONE),
        (32, group, [("share.record.lock.duration.ms", 0, "61000")], ErrorCode.INVALID_CONFIG),
        (32, group, [("share.delivery.count.limit", 0, "11")], ErrorCode.INVALID_CONFIG),
        (32, group, [("share.renew.acknowledge.enable", 0, "false")], ErrorCode.NONE),
        (32, group, [("errors.deadletterqueue.topic.name", 0, "__internal")], ErrorCode.INVALID_CONFIG),
        (32, "", [("consumer.session.timeout.ms", 0, "50000")], ErrorCode.INVALID_REQUEST),
        (16, name("metrics"), [("match", 0, "nonsense=x")], ErrorCode.INVALID_CONFIG),
        (16, name("metrics"), [("match", 0, "client_id=x.*")], ErrorCode.NONE),
    ]
    for kind, resource, changes, code in cases:
        asked = struct("IncrementalAlterConfigsRequest.AlterConfigsResource")(
            resource_type=kind,
            resource_name=resource,
            configs=[
                struct("IncrementalAlterConfigsRequest.AlterableConfig")(name=key, config_operation=op, value=value)
                for key, op, value in changes
            ],
        )
        answer = await connection.call("IncrementalAlterConfigs", 1, resources=[asked], validate_only=True)
        assert answer.responses[0].error_code == code, (kind, resource, changes, answer.responses[0].error_message)
    twice = [asked, asked]
    answer = await connection.call("IncrementalAlterConfigs", 1, resources=twice, validate_only=True)
    assert {one.error_code for one in answer.responses} == {ErrorCode.INVALID_REQUEST}


async def test_configs_that_can_not_be_described(connection: Connection, topic: Callable[..., str]) -> None:
    made = topic(1)
    for kind, resource, code in (
        (2, made, ErrorCode.NONE),
        (2, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (2, "", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (4, "9", ErrorCode.INVALID_REQUEST),
        (32, "", ErrorCode.INVALID_REQUEST),
        (16, "", ErrorCode.INVALID_REQUEST),
    ):
        asked = struct("DescribeConfigsRequest.DescribeConfigsResource")(
            resource_type=kind, resource_name=resource, configuration_keys=[]
        )
        answer = await connection.call("DescribeConfigs", 4, resources=[asked])
        assert answer.results[0].error_code == code, (kind, resource)
        assert bool(answer.results[0].configs) == (code == ErrorCode.NONE), "no keys means all of them"


async def test_topics_have_the_configs_of_apache_kafka(connection: Connection, topic: Callable[..., str]) -> None:
    asked = struct("DescribeConfigsRequest.DescribeConfigsResource")(
        resource_type=2, resource_name=topic(1), configuration_keys=None
    )
    answer = await connection.call("DescribeConfigs", 4, resources=[asked])
    assert {one.name for one in answer.results[0].configs} == TOPIC_CONFIGS


TOPIC_CONFIGS = frozenset(
    """
    cleanup.policy compression.gzip.level compression.lz4.level compression.type compression.zstd.level
    delete.retention.ms errors.deadletterqueue.group.enable file.delete.delay.ms flush.messages flush.ms
    follower.replication.throttled.replicas index.interval.bytes leader.replication.throttled.replicas
    local.retention.bytes local.retention.ms max.compaction.lag.ms max.decompressed.message.bytes max.message.bytes
    message.timestamp.after.max.ms message.timestamp.before.max.ms message.timestamp.type min.cleanable.dirty.ratio
    min.compaction.lag.ms min.insync.replicas preallocate remote.copy.lag.bytes remote.copy.lag.ms
    remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable retention.bytes retention.ms
    segment.bytes segment.index.bytes segment.jitter.ms segment.ms unclean.leader.election.enable
    """.split()  # noqa: SIM905 — forty names are read more easily so
)


async def test_records_that_can_not_be_taken(connection: Connection, topic: Callable[..., str]) -> None:
    made, compacted = topic(1), topic(1, cleanup_policy="compact")
    now = int(time.time() * 1000)
    usual = {"timestamp": now}
    corrupt, old = bytearray(records(b"x", **usual)), bytearray(records(b"x", **usual))
    corrupt[-1] ^= 1
    old[16] = 1
    transactional = records(b"x", transactional=True, producer_id=1, producer_epoch=0, base_sequence=0, **usual)
    for partition, where, data, code in (
        (0, made, records(b"x", **usual), ErrorCode.NONE),
        (9, made, records(b"x", **usual), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (0, made, b"", ErrorCode.INVALID_RECORD),
        (0, made, records(b"x", **usual) + records(b"y", **usual), ErrorCode.INVALID_RECORD),
        (0, made, bytes(corrupt), ErrorCode.CORRUPT_MESSAGE),
        (0, made, bytes(old), ErrorCode.INVALID_RECORD),
        (0, made, records(b"x", timestamp=now + 3 * 86_400_000), ErrorCode.INVALID_TIMESTAMP),
        (0, made, transactional, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        (0, compacted, records(b"x", **usual), ErrorCode.INVALID_RECORD),
    ):
        part = struct("ProduceRequest.PartitionProduceData")(index=partition, records=data)
        one = struct("ProduceRequest.TopicProduceData")(name=where, partition_data=[part])
        answer = await connection.call("Produce", 9, acks=-1, timeout_ms=5000, topic_data=[one])
        assert answer.responses[0].partition_responses[0].error_code == code, (where, data)


async def test_offsets_that_can_not_be_told_or_fetched(connection: Connection, topic: Callable[..., str]) -> None:
    made = topic(1)
    for timestamp, version, code in (
        (-1, 1, ErrorCode.NONE),
        (-3, 1, ErrorCode.UNSUPPORTED_VERSION),
        (-3, 7, ErrorCode.NONE),
        (-4, 7, ErrorCode.UNSUPPORTED_VERSION),
        (-4, 8, ErrorCode.NONE),
        (-5, 9, ErrorCode.NONE),
        (-6, 10, ErrorCode.UNSUPPORTED_VERSION),
        (-6, 11, ErrorCode.NONE),
        (-7, 11, ErrorCode.UNSUPPORTED_VERSION),
    ):
        wanted = struct("ListOffsetsRequest.ListOffsetsPartition")(
            partition_index=0, timestamp=timestamp, current_leader_epoch=-1
        )
        asked = struct("ListOffsetsRequest.ListOffsetsTopic")(name=made, partitions=[wanted])
        answer = await connection.call("ListOffsets", version, replica_id=-1, topics=[asked])
        assert answer.topics[0].partitions[0].error_code == code, (timestamp, version)
    for place, changes, code in (
        ((0, 1000), {}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ((0, -1), {}, ErrorCode.OFFSET_OUT_OF_RANGE),
        ((7, 0), {}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ((0, 0), {"current_leader_epoch": 7}, ErrorCode.UNKNOWN_LEADER_EPOCH),
        ((0, 0), {"last_fetched_epoch": 7}, ErrorCode.OFFSET_OUT_OF_RANGE),
    ):
        fields = fetch_fields(made, place)
        for field, value in changes.items():
            setattr(fields["topics"][0].partitions[0], field, value)
        answer = await connection.call("Fetch", 12, session_epoch=-1, **fields)
        assert answer.responses[0].partitions[0].error_code == code, (place, changes)


async def test_groups_that_are_not_there(
    connection: Connection, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, nobody, simple = topic(1), name("nobody"), name("simple")

    async def committed(group: str, partition: int = 0, **fields: Any) -> int:
        part = struct("OffsetCommitRequest.OffsetCommitRequestPartition")(partition_index=partition, committed_offset=5)
        one = struct("OffsetCommitRequest.OffsetCommitRequestTopic")(name=made, partitions=[part])
        usual = {"generation_id_or_member_epoch": -1, "member_id": ""} | fields
        answer = await connection.call("OffsetCommit", 9, group_id=group, topics=[one], **usual)
        return int(answer.topics[0].partitions[0].error_code)

    await coordinator(connection, simple)
    assert await committed(simple) == ErrorCode.NONE
    assert await committed(simple, member_id="whoever") == ErrorCode.NONE
    assert await committed(simple, partition=9) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    generation = {"generation_id_or_member_epoch": 5, "member_id": "m"}
    assert await committed(simple, **generation) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await committed(nobody, **generation) == ErrorCode.GROUP_ID_NOT_FOUND

    async def code(request: str, version: int, path: str = "error_code", **fields: Any) -> int:
        found = await connection.call(request, version, **fields)
        for step in path.split("."):
            found = found[0] if step == "0" else getattr(found, step)
        return int(found)

    part = struct("OffsetDeleteRequest.OffsetDeleteRequestPartition")
    one = struct("OffsetDeleteRequest.OffsetDeleteRequestTopic")
    absent = [one(name=made, partitions=[part(partition_index=9)])]
    where = "topics.0.partitions.0.error_code"
    assert await code("OffsetDelete", 0, where, group_id=simple, topics=absent) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert await code("OffsetDelete", 0, group_id=nobody, topics=absent) == ErrorCode.GROUP_ID_NOT_FOUND
    assert await code("OffsetDelete", 0, group_id="", topics=absent) == ErrorCode.INVALID_GROUP_ID
    member = {"group_id": nobody, "generation_id": 1, "member_id": "m"}
    assert await code("Heartbeat", 4, **member) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await code("SyncGroup", 4, **member) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await code("SyncGroup", 5, **member) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    join = {
        "group_id": nobody,
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "protocol_type": "consumer",
        "protocols": [struct("JoinGroupRequest.JoinGroupRequestProtocol")(name="range", metadata=b"")],
    }
    assert await code("JoinGroup", 9, **join) == ErrorCode.MEMBER_ID_REQUIRED
    assert await code("JoinGroup", 9, **join | {"session_timeout_ms": 5}) == ErrorCode.INVALID_SESSION_TIMEOUT
    assert await code("JoinGroup", 9, **join | {"member_id": "m"}) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await code("JoinGroup", 9, **join | {"protocols": []}) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert await code("JoinGroup", 9, **join | {"group_id": ""}) == ErrorCode.INVALID_GROUP_ID
    described = "groups.0.error_code"
    gone = ErrorCode.GROUP_ID_NOT_FOUND
    assert await code("DescribeGroups", 6, described, groups=[name("none")]) == gone
    assert await code("DescribeGroups", 5, described, groups=[name("none")]) == ErrorCode.NONE
    assert await code("ConsumerGroupDescribe", 1, described, group_ids=[name("none")]) == gone
    assert await code("ConsumerGroupDescribe", 1, described, group_ids=[""]) == ErrorCode.INVALID_GROUP_ID
    assert await code("ShareGroupDescribe", 1, described, group_ids=[name("none")]) == gone
    assert await code("StreamsGroupDescribe", 1, described, group_ids=[name("none")]) == gone
    assert await code("DeleteGroups", 2, "results.0.error_code", groups_names=[name("none")]) == gone


async def coordinator(connection: Connection, group: str) -> None:
    """Wait until the group's coordinator is there: Apache Kafka makes its topic with the first group."""
    deadline = time.monotonic() + 60
    while True:
        answer = await connection.call("FindCoordinator", 6, key_type=0, coordinator_keys=[group])
        beat = await connection.call("Heartbeat", 4, group_id=group, generation_id=1, member_id="m")
        if not answer.coordinators[0].error_code and beat.error_code == ErrorCode.UNKNOWN_MEMBER_ID:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_heartbeats_that_make_no_sense(
    connection: Connection, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    await coordinator(connection, group)
    usual = {
        "group_id": group,
        "member_id": MEMBER,
        "member_epoch": 0,
        "rebalance_timeout_ms": 5000,
        "subscribed_topic_names": [made],
        "topic_partitions": [],
    }
    for changes, code in (
        ({"group_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -5}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rack_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"subscribed_topic_names": None}, ErrorCode.INVALID_REQUEST),
        ({"topic_partitions": None}, ErrorCode.INVALID_REQUEST),
        ({"server_assignor": "none"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"subscribed_topic_names": None, "subscribed_topic_regex": "[a"}, ErrorCode.INVALID_REGULAR_EXPRESSION),
        ({"member_epoch": -2}, ErrorCode.INVALID_REQUEST),
        ({}, ErrorCode.NONE),
        ({"member_epoch": 99}, ErrorCode.FENCED_MEMBER_EPOCH),
        ({"member_id": "B" * 22, "member_epoch": 3}, ErrorCode.UNKNOWN_MEMBER_ID),
    ):
        answer = await connection.call("ConsumerGroupHeartbeat", 1, **usual | changes)
        assert answer.error_code == code, (changes, answer.error_message)


async def test_what_only_a_quorum_of_controllers_could_change_is_refused(connection: Connection) -> None:
    listener = struct("AddRaftVoterRequest.Listener")(name="CONTROLLER", host="127.0.0.1", port=9)
    voter = {"cluster_id": None, "voter_id": 9, "voter_directory_id": SOME_ID}
    added = await connection.call("AddRaftVoter", 1, listeners=[listener], **voter)
    assert added.error_code == ErrorCode.UNSUPPORTED_VERSION
    removed = await connection.call("RemoveRaftVoter", 0, **voter)
    assert removed.error_code == ErrorCode.UNSUPPORTED_VERSION
    gone = await connection.call("UnregisterController", 0, controller_id=9)
    assert gone.error_code == ErrorCode.CONTROLLER_ID_NOT_REGISTERED
    gone = await connection.call("UnregisterBroker", 0, broker_id=9)
    assert gone.error_code == ErrorCode.BROKER_ID_NOT_REGISTERED


async def test_a_client_that_meant_another_cluster_is_told_to_begin_anew(connection: Connection) -> None:
    """KIP-1242."""
    cluster_id = (await connection.call("DescribeCluster", 2)).cluster_id
    who = {"client_software_name": "test", "client_software_version": "1"}
    for more, code in (
        ({}, ErrorCode.NONE),
        ({"cluster_id": cluster_id, "node_id": 1}, ErrorCode.NONE),
        ({"cluster_id": cluster_id}, ErrorCode.INVALID_REQUEST),
        ({"node_id": 1}, ErrorCode.INVALID_REQUEST),
        ({"cluster_id": "another", "node_id": 1}, ErrorCode.REBOOTSTRAP_REQUIRED),
        ({"cluster_id": cluster_id, "node_id": 9}, ErrorCode.REBOOTSTRAP_REQUIRED),
    ):
        assert (await connection.call("ApiVersions", 5, **who, **more)).error_code == code, more
