"""Queues: a share group and a classic group, RabbitMQ and a NATS work queue; every worker a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import nats
import pika
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from bench import kafka, peers, queue_workers
from bench.clusters import Cluster, embedded
from bench.machine import usage
from bench.queue_workers import Tally
from bench.tables import count, table

MESSAGES = 1_000_000
PEER_MESSAGES = 200_000
SIZE = 100
WORKERS = (1, 32)
DEADLINE = 240.0
IN_FLIGHT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Messages per second from the first receipt to the last acknowledgement, and microseconds of the server's CPU."""

    rate: float
    cpu: float


def drain(
    work: Callable[..., None], address: str, queue: str, group: str, *, workers: int, messages: int, pids: Sequence[int]
) -> Drained:
    """Let workers empty a queue that holds so many messages."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.queue_workers"])
    tally = Tally(context)
    processes = [context.Process(target=work, args=(address, queue, group, tally), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + DEADLINE
    try:
        _wait(lambda: tally.ready.value == workers, deadline, "the workers did not start")
        before = sum(usage(pid).cpu for pid in pids)
        tally.go.set()
        _wait(lambda: tally.count.value >= messages, deadline, f"{messages:,} messages were not acknowledged in time")
        elapsed = time.monotonic() - tally.first.value
        spent = sum(usage(pid).cpu for pid in pids) - before
    finally:
        tally.stop.set()
        for process in processes:
            process.join(10)
            process.kill()
    return Drained(rate=messages / elapsed, cpu=spent / messages * 1e6)


def _wait(done: Callable[[], bool], deadline: float, what: str) -> None:
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.002)


def sluice(scale: float) -> Iterator[list[object]]:
    """The embedded broker; a partition per worker."""
    messages = int(MESSAGES * scale)
    with embedded() as cluster:
        for workers in WORKERS:
            for name, work in (("share group", queue_workers.share), ("classic group", queue_workers.group)):
                topic, group = kafka.create_topic(cluster, workers), f"bench-{uuid.uuid4().hex[:8]}"
                if work is queue_workers.share:
                    _from_the_beginning(cluster, group)
                sender, before = kafka.Sender(cluster), time.monotonic()
                sender.send(topic, bytes(SIZE), messages, workers)
                made = messages / (time.monotonic() - before)
                pids = [cluster.pid] if cluster.pid else []
                run = drain(work, cluster.bootstrap, topic, group, workers=workers, messages=messages, pids=pids)
                yield _row(f"Sluice, {name}", workers, messages, made, run)
                kafka.delete_topic(cluster, topic)


def _from_the_beginning(cluster: Cluster, group: str) -> None:
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.GROUP, group, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30)


def rabbitmq(scale: float) -> Iterator[list[object]]:
    """A durable queue, persistent messages, publisher confirms."""
    messages = int(PEER_MESSAGES * scale)
    with peers.rabbitmq() as peer:
        address = f"127.0.0.1:{peer.ports['amqp']}"
        for workers in WORKERS:
            queue = f"bench-{workers}"
            made = publish_confirmed(peer.ports["amqp"], queue, messages)
            run = drain(queue_workers.rabbitmq, address, queue, "", workers=workers, messages=messages, pids=peer.pids)
            yield _row("RabbitMQ, durable queue", workers, messages, made, run)


def publish_confirmed(port: int, queue: str, messages: int) -> float:
    """Publish with up to `IN_FLIGHT` messages unconfirmed; returns the confirmed messages per second."""
    body, properties = bytes(SIZE), pika.BasicProperties(delivery_mode=2)
    sent = confirmed = 0
    started = 0.0
    failure: list[str] = []

    def send(channel: Any) -> None:
        nonlocal sent
        while sent < messages and sent - confirmed < IN_FLIGHT:
            channel.basic_publish("", queue, body, properties)
            sent += 1

    def settled(channel: Any, frame: Any) -> None:
        nonlocal confirmed
        if isinstance(frame.method, pika.spec.Basic.Nack):
            failure.append("a message was refused")
        confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
        if failure or confirmed >= messages:
            connection.close()
        elif sent - confirmed <= IN_FLIGHT // 2:
            send(channel)

    def declared(channel: Any, _: Any) -> None:
        nonlocal started
        channel.confirm_delivery(partial(settled, channel))
        started = time.monotonic()
        send(channel)

    def opened(channel: Any) -> None:
        channel.queue_declare(queue, durable=True, callback=partial(declared, channel))

    connection = pika.SelectConnection(
        pika.ConnectionParameters("127.0.0.1", port),
        on_open_callback=lambda made: made.channel(on_open_callback=opened),
        on_close_callback=lambda made, _: made.ioloop.stop(),
    )
    connection.ioloop.start()
    if failure or confirmed < messages:
        raise RuntimeError(f"{confirmed} of {messages} confirmed; {failure}")
    return messages / (time.monotonic() - started)


def jetstream(scale: float) -> Iterator[list[object]]:
    """A work queue in a file; NATS syncs it every two minutes by default."""
    messages = int(PEER_MESSAGES * scale)
    with peers.nats() as peer:
        address = f"127.0.0.1:{peer.ports['nats']}"
        for workers in WORKERS:
            queue = f"bench-{workers}"
            made = asyncio.run(publish_jetstream(address, queue, messages))
            run = drain(
                queue_workers.jetstream, address, queue, "workers", workers=workers, messages=messages, pids=peer.pids
            )
            yield _row("NATS JetStream, work queue", workers, messages, made, run)


async def publish_jetstream(address: str, queue: str, messages: int) -> float:
    """Publish with up to `IN_FLIGHT` messages unacknowledged; returns the acknowledged messages per second."""
    client = await nats.connect(f"nats://{address}")
    stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
    await stream.add_stream(StreamConfig(name=queue, subjects=[queue], retention=RetentionPolicy.WORK_QUEUE))
    consumer = ConsumerConfig(durable_name="workers", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=100_000)
    await stream.add_consumer(queue, consumer)
    body, started = bytes(SIZE), time.monotonic()
    for _ in range(messages):
        await stream.publish_async(queue, body)
    await stream.publish_async_completed()
    elapsed = time.monotonic() - started
    await client.close()
    return messages / elapsed


def _row(name: str, workers: int, messages: int, made: float, run: Drained) -> list[object]:
    return [name, workers, f"{messages:,}", count(made), count(run.rate), f"{run.cpu:.1f}"]


def section(scale: float) -> None:
    rows: list[list[object]] = []
    for system in (sluice, rabbitmq, jetstream):
        try:
            rows += system(scale)
        except Exception as error:
            print(f"not measured: {system.__name__}: {error}\n")
    head = ["queue", "workers", "messages", "produced /s", "worked off /s", "server µs CPU each"]
    print(table("Queues: 100-byte messages, each received and acknowledged; clients in Python", head, rows))
