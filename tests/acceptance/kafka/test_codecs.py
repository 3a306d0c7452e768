"""Every client writes with every codec, and every other client reads it."""

import asyncio
import subprocess
import time
from collections.abc import Callable

import aiokafka
import confluent_kafka
import kafka
import pytest

from tests.acceptance.kafka.conftest import Node

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COUNT = 40


def records(codec: str) -> list[tuple[bytes, bytes]]:
    return [(f"{codec}-{n}".encode(), (f"{codec} {n} " * 20).encode()) for n in range(COUNT)]


def read_with_confluent(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "check.crcs": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found: list[tuple[bytes | None, bytes | None]] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(500, 0.5):
            assert message.error() is None, message.error()
            found.append((message.key(), message.value()))
    consumer.close()
    return found


async def read_with_aiokafka(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        found: list[tuple[bytes | None, bytes | None]] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                message = await consumer.getone()
                found.append((message.key, message.value))
        return found
    finally:
        await consumer.stop()


def read_with_kafka_python(bootstrap: str, topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", check_crcs=True)
    try:
        consumer.assign([kafka.TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        found: list[tuple[bytes | None, bytes | None]] = []
        deadline = time.monotonic() + 60
        while len(found) < count and time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=500).values():
                found += [(message.key, message.value) for message in batch]
        return found
    finally:
        consumer.close()


def read_with_kcat(kcat: str, bootstrap: str, topic: str) -> list[tuple[bytes, bytes]]:
    done = subprocess.run(
        [kcat, "-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning", "-f", "%k\t%s\n"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    lines = done.stdout.splitlines()
    return [(key, value) for key, _, value in (line.partition(b"\t") for line in lines)]


def write_with_confluent(bootstrap: str, topic: str, codec: str) -> None:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 20, "acks": "all"}
    )
    failures = []
    for key, value in records(codec):
        producer.produce(topic, value, key, 0, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(60) == 0
    assert failures == []


async def write_with_aiokafka(bootstrap: str, topic: str, codec: str) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec, acks="all", linger_ms=20
    )
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key, partition=0) for key, value in records(codec)]
        offsets = [(await future).offset for future in sent]
        assert offsets == list(range(offsets[0], offsets[0] + COUNT))
    finally:
        await producer.stop()


def write_with_kafka_python(bootstrap: str, topic: str, codec: str) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec, acks="all", linger_ms=20
    )
    try:
        sent = [producer.send(topic, value, key, partition=0) for key, value in records(codec)]
        for future in sent:
            future.get(timeout=60)
    finally:
        producer.close()


def write_with_kcat(kcat: str, bootstrap: str, topic: str, codec: str) -> None:
    lines = b"".join(key + b"\t" + value + b"\n" for key, value in records(codec))
    command = [kcat, "-P", "-b", bootstrap, "-t", topic, "-p", "0", "-K", "\t", "-z", codec]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""


WRITERS = ("confluent", "aiokafka", "kafka-python", "kcat")


@pytest.mark.parametrize("writer", WRITERS)
async def test_what_one_client_writes_with_any_codec_all_clients_read(
    cluster: Node, topic: Callable[..., str], kcat: str, writer: str
) -> None:
    bootstrap, made = cluster.bootstrap, topic(1)

    codecs = CODECS
    expected = [record for codec in codecs for record in records(codec)]
    for codec in codecs:
        match writer:
            case "confluent":
                await asyncio.to_thread(write_with_confluent, bootstrap, made, codec)
            case "aiokafka":
                await write_with_aiokafka(bootstrap, made, codec)
            case "kafka-python":
                await asyncio.to_thread(write_with_kafka_python, bootstrap, made, codec)
            case "kcat":
                await asyncio.to_thread(write_with_kcat, kcat, bootstrap, made, codec)
    assert await asyncio.to_thread(read_with_confluent, bootstrap, made, len(expected)) == expected
    assert await read_with_aiokafka(bootstrap, made, len(expected)) == expected
    assert await asyncio.to_thread(read_with_kafka_python, bootstrap, made, len(expected)) == expected
    if writer == "kcat":
        assert await asyncio.to_thread(read_with_kcat, kcat, bootstrap, made) == expected
