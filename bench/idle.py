"""What idle things cost the broker: partitions that nobody writes to, connections that say nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.clusters import Cluster, embedded
from bench.kafka import create_topic
from bench.machine import usage
from bench.tables import table

RATE = 500
CONNECTIONS = 5_000


def trickle(cluster: Cluster, partitions: int, seconds: float) -> float:
    """CPU share of the broker with RATE messages a second over 8 of the topic's partitions and a consumer of all."""
    topic = create_topic(cluster, partitions)
    stop = threading.Event()
    consumer = Consumer(
        {"bootstrap.servers": cluster.bootstrap, "group.id": "trickle", "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])

    def read() -> None:
        while not stop.is_set():
            consumer.poll(0.2)

    reader = threading.Thread(target=read)
    reader.start()
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0})
    try:
        send(producer, topic, 3.0)  # until the consumer follows every partition
        before, started = usage(cluster.pid).cpu, time.monotonic()
        send(producer, topic, seconds)
        return (usage(cluster.pid).cpu - before) / (time.monotonic() - started)
    finally:
        producer.flush(10)
        stop.set()
        reader.join()
        consumer.close()


def send(producer: Producer, topic: str, seconds: float) -> None:
    started = time.monotonic()
    for number in range(int(RATE * seconds)):
        wait = started + number / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        producer.produce(topic, b"x" * 100, partition=number % 8)
        producer.poll(0)


def silent(cluster: Cluster, count: int) -> float:
    """MiB more that the broker holds with `count` silent connections."""
    host, _, port = cluster.bootstrap.rpartition(":")
    before = usage(cluster.pid).rss
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(socket.create_connection((host, int(port)), timeout=10))
        time.sleep(2)
        return (usage(cluster.pid).rss - before) / 2**20


def section(scale: float) -> None:
    """Print the table."""
    seconds = max(5.0, 20 * scale)
    with embedded(SLUICE_BROKER_MAX_CONNECTIONS_PER_ADDRESS="20000") as cluster:
        connections = silent(cluster, CONNECTIONS)
    with embedded() as cluster:
        few = trickle(cluster, 8, seconds)
    with embedded() as cluster:
        many = trickle(cluster, 1_000, seconds)
    rows = [
        [f"{RATE} msg/s over 8 partitions: CPU of one core", f"{few:.1%}"],
        ["the same beside 992 idle partitions, all followed: CPU of one core", f"{many:.1%}"],
        ["ratio", f"{many / few:.2f}"],
        [f"{CONNECTIONS:,} silent connections: memory more", f"{connections:.1f} MiB"],
    ]
    print(table("What idle things cost the broker", ["what", "figure"], rows))
