"""The clusters that are measured: the embedded broker, and Apache Kafka where its Maven artifacts can be had."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running cluster: its name in the tables, its bootstrap address, its process, the seconds its start took: on
    a folder that it had been started on before, from the command to the first answer."""

    name: str
    bootstrap: str
    pid: int
    started_in: float
    folder: Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=0.2):
        return True
    return False


def answers(address: str) -> bool:
    """Whether a Kafka client gets an answer there."""
    if not accepts(address):
        return False
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    with contextlib.suppress(KafkaException):
        return bool(client.list_topics(timeout=2).brokers)
    return False


def wait_ready(address: str, process: subprocess.Popen[bytes], serves: Callable[[str], bool] = accepts) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not serves(address):
        if process.poll() is not None:
            raise RuntimeError(f"the server for {address} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on {address} after {READY_SECONDS:g} s")
        time.sleep(0.01)


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder beside the temporary files, removed at the end whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def embedded(**environment: str) -> Iterator[Cluster]:
    """`python -m broker` on a free loopback port, with durable acknowledgements as always."""
    with data_folder() as folder:
        address = f"127.0.0.1:{free_port()}"
        environ = {
            **os.environ,
            "SLUICE_DATA": str(folder),
            "SLUICE_BROKER_LISTENERS": f"PLAINTEXT://{address}",
            **environment,
        }
        for first in (True, False):
            started = time.monotonic()
            with (folder / "broker.out").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "broker"], env=environ, stdout=output, stderr=subprocess.STDOUT
                )
            try:
                wait_ready(address, process, answers)
                if first:
                    continue
                yield Cluster(
                    name="Sluice",
                    bootstrap=address,
                    pid=process.pid,
                    started_in=time.monotonic() - started,
                    folder=folder,
                )
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def apache(name: str, more: str = "") -> Iterator[Cluster]:
    """Apache Kafka, one KRaft node, 1 GiB of heap as its start script gives it; raises if it can't be had."""
    from tests.acceptance.kafka.apache import ApacheKafka

    kafka = ApacheKafka(heap="1g", more=more, quick=False)
    try:
        kafka.start()  # this one formats its folder too
        kafka.stop(keep=True)
        started = time.monotonic()
        kafka.start()
        yield Cluster(
            name=name,
            bootstrap=kafka.bootstrap,
            pid=kafka.pid,
            started_in=time.monotonic() - started,
            folder=kafka.folder,
        )
    finally:
        kafka.stop()
