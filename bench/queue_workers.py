"""Workers of the queue benchmark, one process each: receive, acknowledge, count. All are Python; confluent-kafka's core
is C, pika and nats-py are Python throughout."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

import nats
import pika
from confluent_kafka import Consumer, ShareConsumer
from nats.errors import TimeoutError as NothingThere

BATCH = 500


class Tally:
    """What all workers of a run have acknowledged, and when the first of them received something."""

    def __init__(self, context: Any) -> None:
        self.go: Event = context.Event()
        self.stop: Event = context.Event()
        self.ready: Synchronized[int] = context.Value("i", 0)
        self.count: Synchronized[int] = context.Value("q", 0)
        self.first: Synchronized[float] = context.Value("d", 0.0)

    def wait(self) -> None:
        with self.ready.get_lock():
            self.ready.value += 1
        self.go.wait(120)

    def begin(self) -> None:
        with self.first.get_lock():
            self.first.value = self.first.value or time.monotonic()

    def add(self, number: int) -> None:
        with self.count.get_lock():
            self.count.value += number


def share(address: str, topic: str, group: str, tally: Tally) -> None:
    """A member of a share group; a batch is acknowledged, and that is durable, before the next is asked for."""
    consumer = ShareConsumer(
        {"bootstrap.servers": address, "group.id": group, "share.acknowledgement.mode": "implicit"}
        | {"max.poll.records": BATCH}
    )
    tally.wait()
    consumer.subscribe([topic])
    while not tally.stop.is_set():
        found = [message for message in consumer.poll(0.2) if message.error() is None]
        if found:
            tally.begin()
            consumer.commit_sync(10.0)
            tally.add(len(found))
    consumer.close()


def group(address: str, topic: str, name: str, tally: Tally) -> None:
    """A member of a classic group; a batch's offsets are committed before the next is asked for."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": name, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        | {"fetch.queue.backoff.ms": 5}
    )
    tally.wait()
    consumer.subscribe([topic])
    while not tally.stop.is_set():
        found = [message for message in consumer.consume(BATCH, 0.2) if message.error() is None]
        if found:
            tally.begin()
            consumer.commit(asynchronous=False)
            tally.add(len(found))
    consumer.close()


def rabbitmq(address: str, queue: str, _: str, tally: Tally) -> None:
    """Manual acknowledgement, one for up to a batch (`multiple`)."""
    host, port = address.rsplit(":", 1)
    connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2 * BATCH)
    tally.wait()
    pending, last = 0, 0
    for method, _properties, _body in channel.consume(queue, inactivity_timeout=0.2):
        if method is not None:
            if not pending:
                tally.begin()
            pending, last = pending + 1, method.delivery_tag
        if pending and (pending == BATCH or method is None):
            channel.basic_ack(last, multiple=True)
            tally.add(pending)
            pending = 0
        if method is None and tally.stop.is_set():
            break
    connection.close()


def jetstream(address: str, subject: str, durable: str, tally: Tally) -> None:
    """A pull consumer of a work queue; every message has its own acknowledgement, as a work queue demands."""

    async def work() -> None:
        client = await nats.connect(f"nats://{address}")
        pull = await client.jetstream().pull_subscribe(subject, durable)
        tally.wait()
        while not tally.stop.is_set():
            try:
                found = await pull.fetch(BATCH, timeout=0.5)
            except (NothingThere, TimeoutError):
                continue
            tally.begin()
            for message in found:
                await message.ack()
            await client.flush()
            tally.add(len(found))
        await client.close()

    asyncio.run(work())
