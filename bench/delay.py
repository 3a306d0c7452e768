"""The delay service with a million pending deliveries: its memory, what it costs produce, how punctually it fires."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.clusters import Cluster, apache, data_folder, embedded
from bench.kafka import create_topic, produce
from bench.machine import usage
from bench.tables import count, table
from broker.client import ClientError, Settings
from broker.client.delays import Delays

PENDING = 1_000_000
RATE = 1_000
LOAD = 5_000
PAIRS = 7
DAY_MS = 86_400_000
CLUSTERS: Sequence[Callable[[], contextlib.AbstractContextManager[Cluster]]] = (
    embedded,
    lambda: apache("Kafka, defaults"),
)


def where(cluster: Cluster) -> dict[str, str]:
    """The environment in which the product finds the cluster: the embedded broker by its credential."""
    if (cluster.folder / "internal.json").exists():
        return {"SLUICE_DATA": str(cluster.folder)}
    return {"SLUICE_KAFKA": cluster.bootstrap}


@contextlib.contextmanager
def service(cluster: Cluster, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One delay service beside the cluster, ready."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | where(cluster)
    if "SLUICE_DATA" not in environ:
        environ["SLUICE_DATA"] = str(folder)
    with (folder / "delay.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "broker.delay"], env=environ, stdout=log, stderr=log)
    try:
        wait_for(cluster, None)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_for(cluster: Cluster, pending: int | None, seconds: float = 300.0) -> None:
    """Until every partition is served and, if said, so many deliveries are pending."""
    deadline = time.monotonic() + seconds
    with Delays(Settings.from_env(where(cluster)), timeout=5.0) as delays:
        while True:
            with contextlib.suppress(ClientError):
                found = delays.counts().pending
                if found is not None and (pending is None or found >= pending):
                    return
            if time.monotonic() > deadline:
                raise RuntimeError("the delay service did not get there")
            time.sleep(0.1)


def fill(cluster: Cluster, target: str, wanted: int, process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Ask for deliveries in one to twenty-nine days; how many the service takes in a second, and its highest RSS."""
    producer = Producer(
        {"bootstrap.servers": cluster.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 500_000}
    )
    started, highest = time.monotonic(), 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.1):
            highest = max(highest, usage(process.pid).rss)

    watching = threading.Thread(target=watch)
    watching.start()
    now = int(time.time() * 1000)
    for number in range(wanted):
        due = now + DAY_MS + number * 7919 % (28 * DAY_MS)
        headers = [
            ("sluice.deliver.topic", target.encode()),
            ("sluice.deliver.at", b"%d" % due),
            ("sluice.message.id", b"%d" % number),
        ]
        while True:
            try:
                producer.produce("sluice.delay", b"x" * 100, b"key-%d" % (number % 10_000), headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(120)
    wait_for(cluster, wanted)
    took = time.monotonic() - started
    stop.set()
    watching.join()
    return wanted / took, highest


def paired(cluster: Cluster, process: subprocess.Popen[bytes], messages: int) -> tuple[list[float], list[float]]:
    """Durable produce with the service halted and running, in turn."""
    without, beside = [], []
    topic = create_topic(cluster, 8)
    for _ in range(PAIRS):
        os.kill(process.pid, signal.SIGSTOP)
        try:
            without.append(produce(cluster, topic, size=100, partitions=8, count=messages).rate)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait_for(cluster, None)
        beside.append(produce(cluster, topic, size=100, partitions=8, count=messages).rate)
    return without, beside


def punctuality(cluster: Cluster, target: str, rate: int, load: int, seconds: float) -> list[float]:
    """By how many milliseconds a read_committed consumer sees deliveries after their times, with other producers at
    work. Deliveries are asked for two to five seconds ahead, `rate` a second."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "punctuality",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(target, index) for index in range(4)])
    consumer.consume(1, 1.0)
    errors: list[float] = []
    wanted = int(rate * seconds)

    def read() -> None:
        deadline = time.monotonic() + seconds + 30
        while len(errors) < wanted and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                errors.append(time.time() * 1000 - int(message.value()))

    reader = threading.Thread(target=read)
    loader = subprocess.Popen([sys.executable, "-m", "bench.delay", cluster.bootstrap, str(load), str(seconds + 5)])
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 10})
    reader.start()
    started = time.monotonic()
    try:
        for number in range(wanted):
            pause = started + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            due = b"%d" % (int(time.time() * 1000) + 2000 + number * 7919 % 3000)
            headers = [("sluice.deliver.topic", target.encode()), ("sluice.deliver.at", due)]
            producer.produce("sluice.delay", due, b"%d" % number, headers=headers)
            producer.poll(0)
        producer.flush(30)
        reader.join()
    finally:
        loader.terminate()
        loader.wait(10)
        consumer.close()
    if len(errors) < wanted or min(errors) < 0:
        raise RuntimeError(f"{len(errors)} of {wanted} deliveries seen, the earliest {min(errors)} ms after its time")
    return sorted(errors)


def load_topic(bootstrap: str, rate: int, seconds: float) -> None:
    """A steady stream of ordinary messages: what `punctuality` has beside it."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all"})
    started = time.monotonic()
    for number in range(int(rate * seconds)):
        if number % 50 == 0:
            pause = started + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
        producer.produce("bench-load", b"x" * 100)
        producer.poll(0)
    producer.flush(10)


def measured(cluster: Cluster, folder: Path, pending: int, scale: float) -> list[object]:
    """One cluster's row."""
    with service(cluster, folder) as process:
        empty = usage(process.pid).rss
        target = create_topic(cluster, 4)
        taken, highest = fill(cluster, target, pending, process)
        without, beside = paired(cluster, process, int(400_000 * max(scale, 0.25)))
        errors = punctuality(cluster, target, RATE, LOAD, max(5.0, 20.0 * scale))
        highest = max(highest, usage(process.pid).rss)
    return [
        *(cluster.name, count(pending), f"{empty / 2**20:.0f}", f"{highest / 2**20:.0f}", count(taken)),
        *(count(statistics.median(without)), count(statistics.median(beside))),
        f"{statistics.median(b / a for a, b in zip(without, beside, strict=True)):.3f}",
        *(f"{errors[len(errors) // 2]:.0f}", f"{errors[len(errors) * 99 // 100]:.0f}", f"{errors[-1]:.0f}"),
    ]


def section(
    scale: float, starts: Sequence[Callable[[], contextlib.AbstractContextManager[Cluster]]] = CLUSTERS
) -> None:
    pending = int(PENDING * max(scale, 0.1))
    rows: list[list[object]] = []
    for start in starts:
        try:
            with start() as cluster, data_folder() as folder:
                rows.append(measured(cluster, folder, pending, scale))
        except Exception as error:
            print(f"not measured: {error}\n")
    head = [
        *("cluster", "pending", "MiB, none pending", "MiB, highest", "taken in /s"),
        *("produce /s, service halted", "service running", "ratio", "late p50 ms", "p99", "worst"),
    ]
    title = f"Delayed delivery: medians of {PAIRS} pairs; {RATE} deliveries/s beside {LOAD} other messages/s"
    print(table(title, head, rows))


if __name__ == "__main__":
    load_topic(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
