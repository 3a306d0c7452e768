"""What a connection promises: order, limits, and that a bad peer harms itself alone."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from broker.config import Limits
from broker.wire.codec import struct
from tests.integration.broker.wire_client import Running, fetch_fields, produce, records, settings, started


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    connection = await running.connect()
    for _ in range(50):
        connection.send("ApiVersions", 0)
    for number in range(1, 51):
        await connection.receive("ApiVersions", 0)
        assert connection.received == number


async def test_a_quick_answer_waits_for_the_slow_one_before_it(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    data = struct("ProduceRequest.PartitionProduceData")(index=0, records=records(b"x"))
    for name in ("t", "nowhere") * 20:
        one = struct("ProduceRequest.TopicProduceData")(name=name, partition_data=[data])
        connection.send("Produce", 9, acks=-1, topic_data=[one])
    for number in range(1, 41):
        answer = await connection.receive("Produce", 9)
        assert connection.received == number
        assert bool(answer.responses[0].partition_responses[0].error_code) == (number % 2 == 0)


async def test_a_parked_fetch_does_not_hold_up_another_connection(running: Running) -> None:
    waiting, other = await running.connect(), await running.connect()
    await running.broker.topics.create("t", 1)
    waiting.send("Fetch", 12, **fetch_fields("t", (0, 0), max_wait_ms=20_000))
    await asyncio.sleep(0)
    answer = await produce(other, "t", b"x")
    assert answer.error_code == 0
    async with asyncio.timeout(60):
        woken = await waiting.receive("Fetch", 12)
    assert woken.responses[0].partitions[0].high_watermark == 1


async def test_a_request_behind_a_parked_fetch_waits_its_turn(running: Running) -> None:
    connection, other = await running.connect(), await running.connect()
    await running.broker.topics.create("t", 1)
    connection.send("Fetch", 12, **fetch_fields("t", (0, 0), max_wait_ms=20_000))
    connection.send("ApiVersions", 0)
    await produce(other, "t", b"x")
    await connection.receive("Fetch", 12)
    await connection.receive("ApiVersions", 0)
    assert connection.received == 2


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x02\x00\x03",
        b"\x00\x00\x00\x0a" + b"\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x12\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff\x00\xff\xff\xff\xff\x0f\x00\x00",
    ],
    ids=["negative size", "huge size", "short header", "unknown api", "http", "huge array"],
)
async def test_junk_closes_its_own_connection_and_no_other(running: Running, junk: bytes) -> None:
    bad, good = await running.connect(), await running.connect()
    bad.writer.write(junk)
    assert await bad.closed()
    assert (await good.call("Metadata", 12, topics=None)).cluster_id


async def test_random_frames_never_stop_the_broker(running: Running) -> None:
    chance = random.Random(7)
    for _ in range(60):
        bad = await running.connect()
        body = chance.randbytes(chance.randrange(8, 60))
        key = chance.choice([0, 1, 2, 3, 8, 11, 17, 18, 19, 32, 36])
        body = key.to_bytes(2, "big") + chance.randrange(0, 14).to_bytes(2, "big") + body
        bad.writer.write(len(body).to_bytes(4, "big") + body)
        bad.writer.write_eof()
        assert await bad.closed()
    good = await running.connect()
    assert (await good.call("Metadata", 12, topics=None)).cluster_id


async def test_an_unknown_version_of_api_versions_is_answered_with_version_0(running: Running) -> None:
    connection = await running.connect()
    body = (18).to_bytes(2, "big") + (99).to_bytes(2, "big") + (7).to_bytes(4, "big") + b"\xff\xff\x00\x01\x01\x00"
    connection.writer.write(len(body).to_bytes(4, "big") + body)
    async with asyncio.timeout(60):
        size = int.from_bytes(await connection.reader.readexactly(4), "big")
        frame = await connection.reader.readexactly(size)
    assert frame[:4] == (7).to_bytes(4, "big")
    assert int.from_bytes(frame[4:6], "big", signed=True) == 35
    assert (await connection.call("ApiVersions", 3, client_software_name="a", client_software_version="1")).api_keys


async def test_produce_0_to_2_are_advertised_and_refused(running: Running) -> None:
    connection = await running.connect()
    answer = await connection.call("ApiVersions", 0)
    assert {one.api_key: (one.min_version, one.max_version) for one in answer.api_keys}[0] == (0, 13)
    body = b"\x00\x00\x00\x02\x00\x00\x00\x09\xff\xff" + b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"
    connection.writer.write(len(body).to_bytes(4, "big") + body)
    assert await connection.closed()


async def test_whoever_does_not_sign_in_in_time_is_cut_off(tmp_path: Path) -> None:
    async with started(settings(tmp_path, limits=Limits(authentication_seconds=0.2))) as running:
        slow = await running.connect("SASL_PLAINTEXT")
        assert await slow.closed()
        free = await running.connect()
        assert not await free.closed(0.5)


async def test_before_signing_in_only_signing_in_is_possible(running: Running) -> None:
    early = await running.connect("SASL_PLAINTEXT")
    assert (await early.call("ApiVersions", 0)).api_keys
    early.send("Metadata", 12, topics=None)
    assert await early.closed()


async def test_before_signing_in_frames_are_small(running: Running) -> None:
    early = await running.connect("SASL_PLAINTEXT")
    early.writer.write((1 << 20).to_bytes(4, "big"))
    assert await early.closed()


async def test_one_address_holds_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with started(settings(tmp_path, limits=Limits(connections_per_address=2))) as running:
        first = await running.connect()
        await running.connect()
        await first.call("ApiVersions", 0)
        third = await running.connect()
        assert await third.closed()
        assert (await first.call("ApiVersions", 0)).api_keys
        await first.close()
        await running.root()


async def test_a_parked_fetch_is_answered_when_the_broker_stops(tmp_path: Path) -> None:
    async with started(settings(tmp_path)) as running:
        connection = await running.connect()
        await running.broker.topics.create("t", 1)
        connection.send("Fetch", 12, **fetch_fields("t", (0, 0), max_wait_ms=60_000))
        await connection.writer.drain()
        while not running.broker.meter.fetch_requests:  # noqa: ASYNC110 — the broker has no event for it
            await asyncio.sleep(0)
        stopping = asyncio.create_task(running.assembly.server.stop())
        async with asyncio.timeout(60):
            assert (await connection.receive("Fetch", 12)).error_code == 0
        await stopping
