"""Several workers share one port, and the process that keeps them starts them again and takes them along."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.gateway.people import Device311, until
from tests.acceptance.gateway.stack import Stack
from tests.ports import free_port


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, SLUICE_GATEWAY_WORKERS="2", SLUICE_GATEWAY_METRICS=f"127.0.0.1:{free_port()}")
    try:
        stack.broker.start()
        stack.gateway.start(ready=False)
        assert until(lambda: b"ready: 2 workers" in stack.gateway.since_start())
        yield stack
    finally:
        stack.stop()
        assert until(lambda: not workers(stack), 60)


def workers(stack: Stack) -> dict[int, int]:
    """Process ids by worker number."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            environ = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        mine = re.search(rb"\0SLUICE_GATEWAY_WORKER=(\d+)\0", b"\0" + environ + b"\0")
        if mine and str(stack.folder).encode() in environ and state != "Z":
            found[int(mine.group(1))] = int(folder.name)
    return found


def by_worker(stack: Stack, name: str, *, total: float) -> dict[str, float]:
    """One of the metrics, by worker, once it adds up to `total`; empty before."""
    with urllib.request.urlopen(f"http://{stack.environ['SLUICE_GATEWAY_METRICS']}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"sluice_gateway_{name}"
    }
    return found if sum(found.values()) == total else {}


def test_workers_share_a_port_and_what_is_known_of_sessions(crowd: Stack) -> None:
    assert sorted(workers(crowd)) == [1, 2]
    listeners = [Device311(crowd, f"listener-{number}") for number in range(8)]
    for listener in listeners:
        listener.subscribe("all/#")
    Device311(crowd, "writer").publish("all/x", b"to everybody")
    assert all(until(lambda each=each: each.received) for each in listeners)  # type: ignore[misc]  # bound per turn
    assert until(lambda: by_worker(crowd, "clients", total=9)), "one scrape shows the devices of both workers"
    assert set(by_worker(crowd, "received_total", total=1)) == {"1", "2"}
    for _ in range(6):
        previous = listeners[0]
        listeners[0] = Device311(crowd, "listener-0")
        assert previous.gone.wait(60)
    os.kill(workers(crowd)[1], signal.SIGKILL)
    assert until(lambda: len(workers(crowd)) == 2 and crowd.gateway.since_start().count(b"message=ready\n") >= 3)
    assert until(lambda: by_worker(crowd, "worker_up", total=2)), "the one that was started again answers too"
    assert crowd.gateway.stop() == 0
    assert not workers(crowd)


def test_workers_end_with_the_process_that_keeps_them(crowd: Stack) -> None:
    crowd.gateway.kill()
    assert until(lambda: not workers(crowd), 60)
