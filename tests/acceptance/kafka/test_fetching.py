"""Reading as the protocol has it: waits, limits, incremental sessions, leader epochs, pages of partitions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.api.table import advertised, handlers
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.acceptance.kafka.conftest import Node
from tests.integration.broker.wire_client import Connection, fetch_fields, produce, records, values_of


async def connect(cluster: Node) -> Connection:
    host, _, port = cluster.bootstrap.rpartition(":")
    return Connection(*await asyncio.open_connection(host, int(port)))


@pytest.fixture
async def connection(cluster: Node) -> AsyncIterator[Connection]:
    opened = await connect(cluster)
    yield opened
    await opened.close()


@pytest.fixture
async def writer(cluster: Node) -> AsyncIterator[Connection]:
    opened = await connect(cluster)
    yield opened
    await opened.close()


async def write(connection: Connection, topic: str, *values: bytes, partition: int = 0) -> int:
    """One batch of today (older ones than retention.ms are deleted soon); its first offset."""
    batch = records(*values, timestamp=int(time.time() * 1000))
    answer = await produce(connection, topic, batch=batch, partition=partition)
    assert answer.error_code == 0
    return int(answer.base_offset)


def told(answer: Any) -> dict[int, list[bytes]]:
    """The values of each partition that the answer speaks of."""
    return {one.partition_index: values_of(one.records) for each in answer.responses for one in each.partitions}


async def test_a_fetch_waits_for_min_bytes_and_no_longer_than_max_wait(
    connection: Connection, writer: Connection, topic: Callable[..., str]
) -> None:
    made = topic(1)
    began = time.monotonic()
    assert told(await connection.call("Fetch", 12, **fetch_fields(made, (0, 0), max_wait_ms=300))) == {0: []}
    assert time.monotonic() - began > 0.25
    connection.send("Fetch", 12, **fetch_fields(made, (0, 0), min_bytes=300, max_wait_ms=30_000))
    await write(writer, made, b"x" * 100)
    await write(writer, made, b"x" * 200)
    async with asyncio.timeout(60):
        answer = await connection.receive("Fetch", 12)
    assert told(answer) == {0: [b"x" * 100, b"x" * 200]}


async def test_the_first_batch_comes_whole_and_the_limits_hold_for_the_rest(
    connection: Connection, topic: Callable[..., str]
) -> None:
    made = topic(2)
    for value in (b"a", b"b", b"c"):
        for partition in (0, 1):
            await write(connection, made, value * 5000, partition=partition)
    for limits, sizes in (
        ({"size": 100, "max_bytes": 100}, [1, 0]),
        ({"size": 100}, [1, 0]),
        ({"size": 11_000}, [2, 2]),
        ({"max_bytes": 11_000}, [2, 0]),
        ({}, [3, 3]),
    ):
        answer = told(await connection.call("Fetch", 12, **fetch_fields(made, (0, 0), (1, 0), **limits)))
        whole = [len(answer.get(partition, [])) for partition in (0, 1)]
        assert whole == sizes, limits


async def test_a_session_tells_only_what_changed_and_is_refused_out_of_step(
    connection: Connection, writer: Connection, topic: Callable[..., str]
) -> None:
    """KIP-227."""
    made = topic(3)
    state = {"session_id": 0, "session_epoch": 0}

    async def fetch(*wanted: tuple[int, int], **more: Any) -> Any:
        fields = fetch_fields(made, *wanted, **state, **more)
        if not wanted:
            fields["topics"] = []
        answer = await connection.call("Fetch", 12, **fields)
        if not answer.error_code:
            state.update(session_id=answer.session_id, session_epoch=state["session_epoch"] + 1)
        return answer

    assert sorted(told(await fetch((0, 0), (1, 0), (2, 0)))) == [0, 1, 2]
    assert state["session_id"]
    deadline = time.monotonic() + 60
    while told(await fetch()):  # a leader that has just come up may tell its high watermark once more
        assert time.monotonic() < deadline
    waiting = asyncio.create_task(fetch(max_wait_ms=30_000))
    await write(writer, made, b"x", partition=2)
    async with asyncio.timeout(60):
        assert told(await waiting) == {2: [b"x"]}
    assert told(await fetch()) == {2: [b"x"]}, "until another offset is asked for it is owed"
    assert told(await fetch((2, 1))) == {}
    gone = struct("FetchRequest.ForgottenTopic")(topic=made, partitions=[0])
    await fetch(forgotten_topics_data=[gone])
    for partition in (0, 1):
        await write(writer, made, b"y", partition=partition)
    assert told(await fetch()) == {1: [b"y"]}
    state["session_epoch"] += 5
    assert (await fetch()).error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    state["session_id"] += 1
    assert (await fetch()).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


async def test_the_end_of_a_leaders_epoch_is_told(connection: Connection, topic: Callable[..., str]) -> None:
    """KIP-320: (the greatest epoch not after the one asked for, where it ended)."""
    made = topic(1)
    await write(connection, made, b"a", b"b")

    async def end(epoch: int, *, version: int = 4, partition: int = 0, current: int = -1) -> tuple[int, int, int]:
        wanted = struct("OffsetForLeaderEpochRequest.OffsetForLeaderPartition")(
            partition=partition, current_leader_epoch=current, leader_epoch=epoch
        )
        asked = struct("OffsetForLeaderEpochRequest.OffsetForLeaderTopic")(topic=made, partitions=[wanted])
        answer = await connection.call("OffsetForLeaderEpoch", version, replica_id=-1, topics=[asked])
        one = answer.topics[0].partitions[0]
        return one.error_code, one.leader_epoch, one.end_offset

    for version in (2, 3, 4):
        assert await end(0, version=version) == (0, 0, 2)
    assert await end(0, current=0) == (0, 0, 2)
    assert await end(7) == (0, -1, -1), "an epoch that is not there yet"
    assert await end(-1) == (0, -1, -1)
    assert await end(0, current=9) == (ErrorCode.UNKNOWN_LEADER_EPOCH, -1, -1)
    assert await end(0, partition=5) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)


async def test_partitions_are_described_page_by_page(
    connection: Connection, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    """KIP-966."""
    made, absent = sorted((topic(3), topic(2))), name("none")
    counts = dict.fromkeys(made, 0)
    asked = [struct("DescribeTopicPartitionsRequest.TopicRequest")(name=each) for each in (*reversed(made), absent)]
    seen: list[tuple[str, int]] = []
    errors: dict[str, int] = {}
    cursor = None
    for _ in range(10):
        answer = await connection.call(
            "DescribeTopicPartitions", 0, topics=asked, response_partition_limit=2, cursor=cursor
        )
        for one in answer.topics:
            errors[one.name] = one.error_code
            seen += [(one.name, part.partition_index) for part in one.partitions]
            assert all((part.leader_id, list(part.isr_nodes)) == (1, [1]) for part in one.partitions)
        if answer.next_cursor is None:
            break
        cursor = struct("DescribeTopicPartitionsRequest.Cursor")(
            topic_name=answer.next_cursor.topic_name, partition_index=answer.next_cursor.partition_index
        )
    assert seen == sorted(set(seen)), "in the order of names, none twice"
    for each, _ in seen:
        counts[each] += 1
    assert sorted(counts.values()) == [2, 3]
    assert errors == {made[0]: 0, made[1]: 0, absent: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


@pytest.mark.parametrize(
    ("key", "version"), [(999, 0), (-1, 0), (3, 99), (52, 0)], ids=["unknown", "negative", "too new", "controllers'"]
)
async def test_what_is_not_offered_ends_the_connection(cluster: Node, key: int, version: int) -> None:
    opened = await connect(cluster)
    try:
        request = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff\x00"
        opened.writer.write(len(request).to_bytes(4, "big") + request)
        assert await opened.closed(60)
    finally:
        await opened.close()


async def test_versions_are_told_to_whoever_asks_in_one_too_new(connection: Connection) -> None:
    """KIP-511: an answer of version 0 that says which versions there are."""
    connection.writer.write(b"\x00\x00\x00\x0b\x00\x12\x00\x63\x00\x00\x00\x05\xff\xff\x00")
    async with asyncio.timeout(60):
        size = int.from_bytes(await connection.reader.readexactly(4), "big")
        frame = await connection.reader.readexactly(size)
    assert frame[:4] == b"\x00\x00\x00\x05"
    assert int.from_bytes(frame[4:6], "big") == ErrorCode.UNSUPPORTED_VERSION
    versions = (await connection.call("ApiVersions", 0)).api_keys
    assert {18: (0, 5), 0: (0, 13), 1: (4, 18), 3: (0, 13)}.items() <= {
        each.api_key: (each.min_version, each.max_version) for each in versions
    }.items()


async def test_the_same_is_offered(cluster: Node, connection: Connection) -> None:
    """Every API and version that docs/compatibility.md says, and nothing else; what only one of both has is named."""
    answer = await connection.call("ApiVersions", 4, client_software_name="test", client_software_version="1")
    offered = {each.api_key: (each.min_version, each.max_version) for each in answer.api_keys}
    ours = {entry.api_key: (entry.min_version, entry.max_version) for entry in advertised(handlers().values())}
    different = {key for key in offered.keys() | ours.keys() if offered.get(key) != ours.get(key)}
    assert different == (set() if cluster.name == "embedded" else ONLY_ONE_OFFERS), {
        key: (offered.get(key), ours.get(key)) for key in different
    }


# telemetry, which Kafka offers with a reporter plugin only; between Kafka's brokers; streams groups
ONLY_ONE_OFFERS = {71, 72, 83, 84, 85, 86, 87, 88, 93}
