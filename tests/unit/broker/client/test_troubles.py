"""Clients that let go at once, and troubles that are told at a pace."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.client import ClientError, Consumer, Producer, Settings, ShareConsumer
from broker.client.producing import Batch
from broker.client.troubles import Pace

NOBODY = Settings(bootstrap="127.0.0.1:1")
TASKS = Path("/proc/self/task")


@pytest.fixture
def without_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def librdkafka_threads() -> set[str]:
    if not TASKS.exists():
        pytest.skip("this system does not list a process's threads")
    found = set()
    for task in TASKS.iterdir():
        try:
            name = (task / "comm").read_text()
        except OSError:  # it ended meanwhile
            continue
        if name.startswith("rdk:"):
            found.add(task.name)
    return found


def eventually(condition: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("make", [Producer, Consumer, lambda settings: ShareConsumer(settings, "group")])
@pytest.mark.usefixtures("without_collection")
def test_a_closed_client_has_no_threads_left(make: Callable[[Settings], Any]) -> None:
    before = librdkafka_threads()
    client = make(NOBODY)
    assert librdkafka_threads() - before
    client.close()
    assert eventually(lambda: librdkafka_threads() <= before)


@pytest.mark.parametrize("make", [Producer, Consumer])
@pytest.mark.usefixtures("without_collection")
def test_a_forgotten_client_has_no_threads_left_either(make: Callable[[Settings], Any]) -> None:
    before = librdkafka_threads()
    client = make(NOBODY)
    assert librdkafka_threads() - before
    del client
    assert eventually(lambda: librdkafka_threads() <= before)


@pytest.mark.usefixtures("without_collection")
def test_a_producer_closed_with_messages_outstanding_drops_them_and_lets_go() -> None:
    before = librdkafka_threads()
    producer = Producer(NOBODY)
    finished: list[Batch] = []
    batch = producer.batch(finished.append)
    batch.send("topic", b"value")
    batch.seal()
    assert producer.close(0.0) == 1
    assert [len(each.failures) for each in finished] == [1]
    del batch
    finished.clear()
    assert eventually(lambda: librdkafka_threads() <= before)


def test_a_closed_producer_takes_nothing_more_and_says_so() -> None:
    producer = Producer(NOBODY)
    producer.close()
    assert (producer.close(), len(producer), producer.poll(), producer.flush(1)) == (0, 0, 0, 0)
    with pytest.raises(ClientError, match="closed"):
        producer.post("topic", b"value")
    with pytest.raises(ClientError, match="closed"):
        producer.partitions("topic")
    with pytest.raises(ClientError, match="closed"):
        producer.batch(lambda batch: None).send("topic", b"value")


def test_nothing_of_librdkafka_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    producer, consumer = Producer(NOBODY), Consumer(NOBODY)
    assert eventually(lambda: producer.poll(0.1) >= 0 and producer.last_error is not None)
    assert eventually(lambda: consumer.poll(1, 0.1) == [] and consumer.last_error is not None)
    producer.close()
    consumer.close()
    assert "127.0.0.1:1/" not in capfd.readouterr().err


def test_a_trouble_is_logged_once_in_a_while_with_how_often_it_came(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="broker.client")
    pace = Pace(30.0)
    for now in (0.0, 1.0, 29.9, 31.0, 62.0):
        pace.tell(-195, "refused", now)
        pace.tell(-187, "all down", now)
    told = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert told[0::2] == ["refused", "refused (and 2 times like it before)", "refused"]
    assert told[1::2] == ["all down", "all down (and 2 times like it before)", "all down"]
