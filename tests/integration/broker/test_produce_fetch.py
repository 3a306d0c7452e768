"""Produce and Fetch on a real port: what is acknowledged is read back, and every refusal has Kafka's code."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.cluster.metadata import Topic
from broker.wire import batch
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.wire_client import (
    Connection,
    Running,
    fetch_fields,
    produce,
    records,
    settings,
    started,
    values_of,
)


async def topic(running: Running, name: str = "t", partitions: int = 1, **configs: str) -> Topic:
    return await running.broker.topics.create(
        name, partitions, {key.replace("_", "."): value for key, value in configs.items()}
    )


async def fetch(connection: Connection, *args: Any, version: int = 12, **more: Any) -> Any:
    return await connection.call("Fetch", version, **fetch_fields(*args, **more))


def only(answer: Any) -> Any:
    return answer.responses[0].partitions[0]


@pytest.mark.parametrize("version", range(3, 13))
async def test_what_was_produced_is_fetched(running: Running, version: int) -> None:
    await topic(running)
    connection = await running.connect()
    first = await produce(connection, "t", b"a", b"b", version=version)
    second = await produce(connection, "t", b"c", version=version)
    assert (first.error_code, first.base_offset, second.base_offset) == (0, 0, 2)
    assert values_of(only(await fetch(connection, "t", (0, 0))).records) == [b"a", b"b", b"c"]


async def test_topics_are_addressed_by_id_from_version_13(running: Running) -> None:
    made = await topic(running)
    connection = await running.connect()
    answer = await produce(connection, "", b"a", version=13, topic_id=made.topic_id)
    assert answer.error_code == 0
    found = await fetch(connection, "", (0, 0), version=16, topic_id=made.topic_id)
    assert values_of(only(found).records) == [b"a"]
    unknown = await produce(connection, "", b"a", version=13, topic_id=b"u" * 16)
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert only(await fetch(connection, "", (0, 0), version=16, topic_id=b"u" * 16)).error_code == (
        ErrorCode.UNKNOWN_TOPIC_ID
    )


async def test_a_fetch_from_within_a_batch_gives_the_whole_batch(running: Running) -> None:
    await topic(running)
    connection = await running.connect()
    await produce(connection, "t", b"a", b"b", b"c")
    assert values_of(only(await fetch(connection, "t", (0, 2))).records) == [b"a", b"b", b"c"]


async def test_the_first_batch_comes_whole_whatever_the_limits(running: Running) -> None:
    await topic(running, partitions=2)
    connection = await running.connect()
    for partition in (0, 1):
        await produce(connection, "t", b"x" * 5000, partition=partition)
    answer = await fetch(connection, "t", (0, 0), (1, 0), size=100, max_bytes=100)
    sizes = [len(one.records or b"") for one in answer.responses[0].partitions]
    assert sizes[0] > 5000
    assert sizes[1] == 0


async def test_a_poll_waits_for_min_bytes_and_no_longer_than_max_wait(running: Running) -> None:
    await topic(running)
    reader, writer = await running.connect(), await running.connect()
    reader.send("Fetch", 12, **fetch_fields("t", (0, 0), min_bytes=300, max_wait_ms=20_000))
    await produce(writer, "t", b"x" * 100)
    await produce(writer, "t", b"x" * 200)
    async with asyncio.timeout(60):
        answer = await reader.receive("Fetch", 12)
    assert [len(value) for value in values_of(only(answer).records)] == [100, 200]
    empty = await fetch(reader, "t", (0, 2), max_wait_ms=50)
    assert values_of(only(empty).records) == []


@pytest.mark.parametrize("offset", [-1, 5])
async def test_an_offset_out_of_range_is_said_at_once(running: Running, offset: int) -> None:
    await topic(running)
    connection = await running.connect()
    await produce(connection, "t", b"x")
    answer = only(await fetch(connection, "t", (0, offset), max_wait_ms=20_000))
    assert answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE


async def test_unknown_topics_and_partitions_are_refused(running: Running) -> None:
    await topic(running)
    connection = await running.connect()
    assert (await produce(connection, "nope", b"x")).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert (await produce(connection, "t", b"x", partition=7)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert only(await fetch(connection, "t", (7, 0))).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert only(await fetch(connection, "nope", (0, 0))).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (damaged(records(b"x")), ErrorCode.CORRUPT_MESSAGE),
        (records(b"x")[:-3], ErrorCode.CORRUPT_MESSAGE),
        (records(b"x") + records(b"y"), ErrorCode.INVALID_RECORD),
        (batch.marker(5, 0, commit=True, coordinator_epoch=0, timestamp=1), ErrorCode.INVALID_RECORD),
        (
            records(b"x", transactional=True, producer_id=5, producer_epoch=0, base_sequence=0),
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        (records(b"x" * 2000), ErrorCode.MESSAGE_TOO_LARGE),
    ],
    ids=["crc", "cut", "two batches", "control", "transactional without id", "too large"],
)
async def test_a_batch_that_can_not_be_taken_is_refused(running: Running, data: bytes, code: ErrorCode) -> None:
    await topic(running, max_message_bytes="1000")
    connection = await running.connect()
    assert (await produce(connection, "t", batch=data)).error_code == code
    assert running.broker.partition("t", 0).log_end_offset == 0  # type: ignore[union-attr]  # it was created


async def test_keys_are_needed_on_a_compacted_topic(running: Running) -> None:
    await topic(running, cleanup_policy="compact")
    connection = await running.connect()
    assert (await produce(connection, "t", b"x")).error_code == ErrorCode.INVALID_RECORD
    assert (await produce(connection, "t", batch=records(b"x", key=b"k"))).error_code == 0


async def test_an_idempotent_repeat_gives_the_first_offset_and_a_gap_is_refused(running: Running) -> None:
    await topic(running)
    connection = await running.connect()

    async def send(sequence: int, epoch: int = 0) -> Any:
        data = records(b"x", producer_id=9, producer_epoch=epoch, base_sequence=sequence)
        return await produce(connection, "t", batch=data)

    assert [(await send(number)).base_offset for number in (0, 1, 1, 0, 2)] == [0, 1, 1, 0, 2]
    assert (await send(9)).error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert (await send(0, epoch=1)).error_code == 0
    assert (await send(3)).error_code == ErrorCode.INVALID_PRODUCER_EPOCH


async def test_the_broker_stamps_records_where_the_topic_says_so(running: Running) -> None:
    await topic(running, message_timestamp_type="LogAppendTime")
    connection = await running.connect()
    answer = await produce(connection, "t", b"x")
    assert answer.log_append_time_ms > 1_600_000_000_000
    found = only(await fetch(connection, "t", (0, 0)))
    assert next(iter(batch.records(batch.split(bytes(found.records))[0]))).timestamp == answer.log_append_time_ms


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd", "uncompressed"])
async def test_a_topic_with_a_codec_of_its_own_keeps_batches_in_it(running: Running, codec: str) -> None:
    await topic(running, compression_type=codec)
    connection = await running.connect()
    sent = records(
        b"x" * 50, b"y", compression=batch.Compression.GZIP, producer_id=9, producer_epoch=0, base_sequence=0
    )
    assert (await produce(connection, "t", batch=sent)).error_code == 0
    found = only(await fetch(connection, "t", (0, 0)))
    kept = batch.split(bytes(found.records))[0]
    assert kept.compression.name.lower() == codec.replace("uncompressed", "none")
    assert (kept.producer_id, kept.base_sequence, kept.count) == (9, 0, 2)
    assert values_of(found.records) == [b"x" * 50, b"y"]


async def test_unwanted_acknowledgements_are_not_sent_and_odd_ones_refused(running: Running) -> None:
    await topic(running)
    connection = await running.connect()
    data = struct("ProduceRequest.PartitionProduceData")(index=0, records=records(b"x"))
    one = struct("ProduceRequest.TopicProduceData")(name="t", partition_data=[data])
    connection.send("Produce", 9, acks=0, timeout_ms=1, topic_data=[one])
    await connection.call("ApiVersions", 0)
    assert connection.received == 2
    odd = await connection.call("Produce", 9, acks=2, timeout_ms=1, topic_data=[one])
    assert odd.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_REQUIRED_ACKS
    missing = struct("ProduceRequest.TopicProduceData")(name="nope", partition_data=[data])
    connection.send("Produce", 9, acks=0, timeout_ms=1, topic_data=[missing])
    assert await connection.closed()


@pytest.mark.parametrize("name", ["__sluice_metadata", "__consumer_offsets"])
async def test_the_brokers_own_logs_are_written_by_nobody_else(running: Running, name: str) -> None:
    anybody, root = await running.connect(), await running.root()
    assert (await produce(anybody, name, b"x")).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert (await produce(root, name, b"x")).error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert only(await fetch(anybody, name, (0, 0))).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    assert only(await fetch(root, name, (0, 0))).error_code == 0


async def test_everything_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async with started(settings(tmp_path)) as running:
        made = await topic(running, partitions=3, retention_ms="5000000")
        connection = await running.connect()
        for number in range(9):
            await produce(connection, "t", b"%d" % number, partition=number % 3)
        cluster_id = running.broker.metadata.image.cluster_id
    async with started(settings(tmp_path)) as running:
        connection = await running.connect()
        again = running.broker.topics.get("t")
        assert again == made
        assert running.broker.metadata.image.cluster_id == cluster_id
        answer = await fetch(connection, "t", (0, 0), (1, 0), (2, 0))
        found = [values_of(one.records) for one in answer.responses[0].partitions]
        assert found == [[b"0", b"3", b"6"], [b"1", b"4", b"7"], [b"2", b"5", b"8"]]


class Session:
    """An incremental fetch session as a client keeps it (KIP-227)."""

    def __init__(self, connection: Connection, name: str = "t") -> None:
        self.connection = connection
        self.name = name
        self.id = 0
        self.epoch = 0

    async def fetch(self, *wanted: tuple[int, int], **more: Any) -> Any:
        fields = fetch_fields(self.name, *wanted, session_id=self.id, session_epoch=self.epoch, **more)
        if not wanted:
            fields["topics"] = []
        answer = await self.connection.call("Fetch", 12, **fields)
        if not answer.error_code:
            self.id, self.epoch = answer.session_id, self.epoch + 1
        return answer


def told(answer: Any) -> dict[int, list[bytes]]:
    return {one.partition_index: values_of(one.records) for t in answer.responses for one in t.partitions}


async def test_a_session_tells_only_what_changed(running: Running) -> None:
    await topic(running, partitions=5)
    connection = await running.connect()
    session = Session(connection)
    first = await session.fetch(*((index, 0) for index in range(5)))
    assert session.id
    assert sorted(told(first)) == [0, 1, 2, 3, 4]
    assert told(await session.fetch()) == {}
    await produce(connection, "t", b"x", partition=3)
    assert told(await session.fetch()) == {3: [b"x"]}
    assert told(await session.fetch()) == {3: [b"x"]}, "until the client asks for another offset it is owed"
    assert told(await session.fetch((3, 1))) == {}
    await produce(connection, "t", b"y", partition=3)
    assert told(await session.fetch()) == {3: [b"y"]}


async def test_a_parked_session_wakes_for_the_partition_that_moved(running: Running) -> None:
    await topic(running, partitions=3)
    reader, writer = await running.connect(), await running.connect()
    session = Session(reader)
    await session.fetch(*((index, 0) for index in range(3)))
    waiting = asyncio.create_task(session.fetch(max_wait_ms=20_000))
    await asyncio.sleep(0.05)
    await produce(writer, "t", b"x", partition=1)
    assert told(await waiting) == {1: [b"x"]}


async def test_a_session_forgets_what_it_is_told_to(running: Running) -> None:
    await topic(running, partitions=2)
    connection = await running.connect()
    session = Session(connection)
    await session.fetch((0, 0), (1, 0))
    gone = struct("FetchRequest.ForgottenTopic")(topic="t", partitions=[0])
    await session.fetch(forgotten_topics_data=[gone])
    for partition in (0, 1):
        await produce(connection, "t", b"x", partition=partition)
    assert told(await session.fetch()) == {1: [b"x"]}


async def test_a_session_is_refused_out_of_step_or_unknown(running: Running) -> None:
    await topic(running)
    connection = await running.connect()
    session = Session(connection)
    await session.fetch((0, 0))
    session.epoch += 5
    assert (await session.fetch()).error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    session.id += 1
    assert (await session.fetch()).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


async def test_a_session_hears_of_a_deleted_topic_at_once(running: Running) -> None:
    made = await topic(running)
    connection = await running.connect()
    session = Session(connection)
    await session.fetch((0, 0))
    waiting = asyncio.create_task(session.fetch(max_wait_ms=20_000))
    await asyncio.sleep(0.05)
    await running.broker.topics.delete(made)
    async with asyncio.timeout(60):
        answer = await waiting
    assert only(answer).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_a_parked_fetch_hears_of_a_deleted_topic_at_once(running: Running) -> None:
    made = await topic(running)
    connection = await running.connect()
    connection.send("Fetch", 12, **fetch_fields("t", (0, 0), max_wait_ms=20_000))
    await connection.writer.drain()
    await asyncio.sleep(0.05)
    await running.broker.topics.delete(made)
    async with asyncio.timeout(60):
        answer = await connection.receive("Fetch", 12)
    assert only(answer).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
