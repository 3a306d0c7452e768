"""Produce, consume and end-to-end latency through confluent-kafka: one client, every cluster, one run."""

from __future__ import annotations

import os
import statistics
import threading
import time
import uuid
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.clusters import Cluster
from bench.machine import usage

DEADLINE = 180.0
WARM_UP = 20_000
RUN = 500
"""Messages that go to one partition before the next one's turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Messages per second, and the server's CPU in microseconds per message (None: its process isn't known)."""

    rate: float
    cpu: float


def create_topic(cluster: Cluster, partitions: int) -> str:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
    return name


def delete_topic(cluster: Cluster, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})  # kept: its futures end with it
    admin.delete_topics([name])[name].result(30)


class Sender:
    """Sends, and returns when everything is acknowledged; raises for a message that was not."""

    def __init__(self, cluster: Cluster, **settings: object) -> None:
        self.acknowledged = 0
        self.failure: KafkaError | None = None
        self.producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "acks": "all",
                "linger.ms": 5,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 512 * 1024,
                "delivery.report.only.error": True,  # else a Python call per message is what is measured
                **settings,
            }
        )

    def _failed(self, error: KafkaError | None, _: object) -> None:
        self.failure = error

    def send(self, topic: str, value: bytes, count: int, partitions: int) -> None:
        """Send `count` messages round robin over the partitions and wait for every acknowledgement."""
        batch = [{"value": value} for _ in range(RUN)]
        sent, partition = 0, 0
        while sent < count:
            run = batch[: count - sent]
            taken = self.producer.produce_batch(topic, run, partition=partition, on_delivery=self._failed)
            sent += taken
            partition = (partition + 1) % partitions
            full = taken < len(run)
            if full:
                batch = [{"value": value} for _ in range(RUN)]  # those that found no room say so
            self.producer.poll(0.05 if full else 0)
        left = self.producer.flush(DEADLINE)
        if self.failure or left:
            raise RuntimeError(f"{left} of {count} not acknowledged; {self.failure}")
        self.acknowledged += count


def produce(cluster: Cluster, topic: str, *, size: int, partitions: int, count: int) -> Flow:
    """Durable produce: from the first send to the last acknowledgement."""
    sender = Sender(cluster)
    value = os.urandom(size)
    sender.send(topic, value, WARM_UP, partitions)
    before, started = usage(cluster.pid).cpu, time.perf_counter()
    sender.send(topic, value, count, partitions)
    elapsed = time.perf_counter() - started
    return Flow(rate=count / elapsed, cpu=(usage(cluster.pid).cpu - before) / count * 1e6)


def consume(cluster: Cluster, topic: str, *, partitions: int, count: int) -> Flow:
    """Read `count` records from the beginning; time and CPU count from the first ones' arrival, so those don't."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": f"bench-{uuid.uuid4().hex[:8]}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 256 * 1024,
            "fetch.message.max.bytes": 4 * 1024 * 1024,
        }
    )
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])
    deadline = time.monotonic() + DEADLINE
    try:
        first = len(consumer.consume(1, timeout=DEADLINE))
        before, started = usage(cluster.pid).cpu, time.perf_counter()
        seen = 0
        while seen < count - first:
            seen += len(consumer.consume(min(10_000, count - first - seen), timeout=1.0))
            if time.monotonic() > deadline:
                raise RuntimeError(f"read {seen} of {count} records within {DEADLINE:g} s")
        elapsed = time.perf_counter() - started
    finally:
        consumer.close()
    return Flow(rate=seen / elapsed, cpu=(usage(cluster.pid).cpu - before) / seen * 1e6)


def warm(cluster: Cluster) -> None:
    """Load that is not measured: what compiles itself while it runs is compiled, pools and caches are filled."""
    for size, partitions, messages in ((100, 64, 200_000), (1000, 8, 50_000), (100, 1, 200_000)):
        topic = create_topic(cluster, partitions)
        sender = Sender(cluster)
        sender.send(topic, os.urandom(size), messages, partitions)
        consume(cluster, topic, partitions=partitions, count=sender.acknowledged)
        delete_topic(cluster, topic)
    latency(cluster, create_topic(cluster, 1), rate=1_000, seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds from send to receipt by a consumer in the same process."""

    p50: float
    p99: float


def latency(cluster: Cluster, topic: str, *, rate: int, seconds: float) -> Latency:
    """End to end, linger 0: a steady `rate` of 100-byte messages carrying their own send time."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": f"bench-{uuid.uuid4().hex[:8]}",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 500,
            "fetch.queue.backoff.ms": 1,
        }
    )
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0})
    producer.produce(topic, b"warm", partition=0)
    producer.flush(30)
    consumer.assign([TopicPartition(topic, 0, 0)])
    count = int(rate * seconds)
    times: list[float] = []

    def receive() -> None:
        deadline = time.monotonic() + seconds + 30
        while len(times) < count and time.monotonic() < deadline:
            # one at a time: `consume(n)` waits until n are there
            message = consumer.poll(0.5)
            value = message.value() if message and not message.error() else None
            if value and len(value) == 100:
                times.append((time.perf_counter_ns() - int.from_bytes(value[:8], "big")) / 1e6)

    receiver = threading.Thread(target=receive)
    receiver.start()
    filler = bytes(92)
    started = time.perf_counter()
    for number in range(count):
        wait = started + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        producer.produce(topic, time.perf_counter_ns().to_bytes(8, "big") + filler, partition=0)
        producer.poll(0)
    producer.flush(30)
    receiver.join()
    consumer.close()
    if len(times) < count:
        raise RuntimeError(f"{len(times)} of {count} messages arrived")
    settled = times[count // 10 :]  # the first tenth warms up
    quantiles = statistics.quantiles(settled, n=100)
    return Latency(p50=statistics.median(settled), p99=quantiles[98])
