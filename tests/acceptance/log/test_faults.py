"""A real broker on a disk that fails: nothing is acknowledged falsely, the failure is told, and it heals as it says."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import confluent_kafka
import pytest

from broker.client import Admin, Consumer, Settings, TopicPartition
from broker.client.administration.types import Storage, StorageState
from tests.acceptance.kafka.embedded import EmbeddedBroker
from tests.acceptance.log import strace

PLACE = TopicPartition("records", 0)
WRITES = "pwritev,pwrite64,pwritev2"


class Scene:
    """A broker with one topic, a producer that never tries twice, and what was acknowledged."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.settings = Settings(bootstrap=broker.bootstrap)
        self.acknowledged: list[str] = []
        self._number = 0
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": broker.bootstrap, "acks": "all", "retries": 0, "linger.ms": 0}
            | {"message.timeout.ms": 60_000, "reconnect.backoff.max.ms": 200, "log_level": 0}
        )
        with Admin(self.settings) as admin:
            admin.create_topic(PLACE.topic, 1)

    def send(self) -> str:
        """One record; the name of the error that came instead of the acknowledgement, or ""."""
        told: list[str] = []
        value = f"value-{self._number}"
        self._number += 1

        def delivered(error: confluent_kafka.KafkaError | None, message: object) -> None:
            told.append(error.name() if error is not None else "")

        self._producer.produce(PLACE.topic, value, partition=0, on_delivery=delivered)
        self._producer.flush(90)
        if told == [""]:
            self.acknowledged.append(value)
        return told[0]

    def storage(self) -> Storage:
        with Admin(self.settings) as admin:
            return admin.storage()[0]

    def wait_for(self, state: StorageState) -> Storage:
        """The broker's word for its storage, once it is this."""
        return eventually(lambda: one if (one := self.storage()).state == state else None)

    def values(self) -> list[str]:
        """Everything that can be read."""
        with Admin(self.settings) as admin:
            end = admin.offsets([PLACE])[PLACE].offset
        consumer = Consumer(self.settings)
        consumer.assign({PLACE: 0})
        found: list[str] = []
        deadline = time.monotonic() + 60
        while consumer.position([PLACE]).get(PLACE, 0) < end and time.monotonic() < deadline:
            found.extend((record.value or b"").decode() for record in consumer.poll(1000, 0.1))
        consumer.close()
        return found


def eventually(look: Callable[[], Storage | None]) -> Storage:
    deadline = time.monotonic() + 60
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    broker = EmbeddedBroker().start()
    try:
        made = Scene(broker)
        assert [made.send() for _ in range(5)] == [""] * 5
        yield made
    finally:
        broker.stop()


@strace.needed
def test_a_write_that_fails_is_refused_told_of_and_heals_without_a_restart(scene: Scene) -> None:
    for error in ("ENOSPC", "EFBIG", "EIO"):
        with strace.injected(scene.broker.pid, WRITES, f"error={error}"):
            assert [scene.send() for _ in range(3)] == ["KAFKA_STORAGE_ERROR"] * 3
            told = scene.wait_for(StorageState.UNWRITABLE)
            assert told.since > 0
            assert told.reason
            with Admin(scene.settings) as admin:
                assert admin.log_dirs()[0].error == "KAFKA_STORAGE_ERROR"
            assert scene.values() == scene.acknowledged
        scene.wait_for(StorageState.OK)
        assert scene.send() == ""
    assert scene.values() == scene.acknowledged
    scene.broker.kill()
    scene.broker.start()
    assert scene.values() == scene.acknowledged


@strace.needed
def test_an_fsync_that_fails_stops_acknowledgements_until_a_restart_and_says_so(scene: Scene) -> None:
    for error in ("EIO", "ENOSPC"):
        with strace.injected(scene.broker.pid, "fdatasync", f"error={error}"):
            before = len(scene.values())
            assert scene.send() == "KAFKA_STORAGE_ERROR"
            told = scene.wait_for(StorageState.STOPPED)
            assert "until a restart" in told.reason
            assert len(scene.values()) == before
        # the disk is well again, and what was lost meanwhile nobody knows
        assert [scene.send() for _ in range(3)] == ["KAFKA_STORAGE_ERROR"] * 3
        assert scene.storage() == told
        assert len(scene.values()) == before
        scene.broker.kill()
        scene.broker.start()
        scene.wait_for(StorageState.OK)
        assert scene.send() == ""
        assert [value for value in scene.values() if value in scene.acknowledged] == scene.acknowledged


@strace.needed
def test_on_a_slow_disk_nothing_is_shown_or_acknowledged_before_it_is_durable(scene: Scene) -> None:
    with Admin(scene.settings) as admin, strace.injected(scene.broker.pid, "fdatasync", "delay_enter=700ms"):
        before = admin.offsets([PLACE])[PLACE].offset
        sent = threading.Thread(target=scene.send)
        sent.start()
        looked = 0
        while sent.is_alive():
            end = admin.offsets([PLACE])[PLACE].offset
            assert end == before or len(scene.values()) == end
            looked += end == before
        sent.join()
        assert looked > 0, "the disk held up everybody, not the one who waits for it"
    assert len(scene.acknowledged) == 6
    assert scene.values() == scene.acknowledged


@pytest.fixture
def small_disk() -> Iterator[EmbeddedBroker]:
    """A broker on a tmpfs of 48 MiB; where mounting is not allowed the test is not run, and says so."""
    broker = EmbeddedBroker()
    folder = broker.folder / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        broker.stop()
        pytest.skip(f"not run: mount: {done.stderr.strip()}")
    try:
        yield broker.start()
    finally:
        broker.stop(keep=True)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        broker.stop()


def test_a_full_disk_refuses_records_lets_topics_go_and_heals_without_a_restart(small_disk: EmbeddedBroker) -> None:
    scene = Scene(small_disk)
    with Admin(scene.settings) as admin:
        admin.create_topic("big", 1)
        big = {"bootstrap.servers": small_disk.bootstrap, "retries": 0, "message.timeout.ms": 60_000, "log_level": 0}
        producer = confluent_kafka.Producer(big)
        refused: list[str] = []
        taken = 0
        deadline = time.monotonic() + 60
        while not refused and time.monotonic() < deadline:
            told: list[confluent_kafka.KafkaError | None] = []
            for _ in range(4):
                producer.produce("big", bytes(500_000), on_delivery=lambda error, _, into=told: into.append(error))
            producer.flush(90)
            refused += [error.name() for error in told if error is not None]
            taken += sum(error is None for error in told)
        assert set(refused) == {"KAFKA_STORAGE_ERROR"}
        assert admin.offsets([TopicPartition("big", 0)])[TopicPartition("big", 0)].offset == taken
        assert eventually(lambda: one if "nearly full" in (one := scene.storage()).reason else None).since > 0
        assert scene.send() == "KAFKA_STORAGE_ERROR"
        admin.delete_topic("big")
    scene.wait_for(StorageState.OK)
    assert scene.send() == ""
    assert scene.values() == scene.acknowledged
