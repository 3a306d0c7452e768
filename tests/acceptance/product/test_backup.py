"""`manage.py backup` while everything runs, and `manage.py restore`: what was acknowledged before is there again."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.acceptance.kafka.embedded import EmbeddedBroker
from tests.running_product import ROOT, Product

PARTITIONS = 8
TOPIC, GROUP = "backed-up", "readers"


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A broker that has had its first checkpoint."""
    started = EmbeddedBroker(environ={"SLUICE_BROKER_ACLS": "auto"})
    try:
        started.start()
        started.stop(keep=True)
        yield started.start()
    finally:
        started.stop()


def manage(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DATABASE_URL"))}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env={**environ, "SLUICE_DATA": str(data)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def one_line(refused: subprocess.CompletedProcess[str]) -> str:
    assert refused.returncode == 1, refused.stdout + refused.stderr
    (line,) = refused.stderr.strip().splitlines()
    return line


class Sending:
    """Numbers sent without a pause, plain and in transactions by turns; `acknowledged`: (partition, offset) of each."""

    def __init__(self, bootstrap: str) -> None:
        self.acknowledged: dict[int, tuple[int, int]] = {}
        self.committed: list[range] = []  # numbers of transactions whose commit was answered
        self.aborted: list[range] = []
        self._plain = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1})
        self._transactional = Producer({"bootstrap.servers": bootstrap, "transactional.id": "backup", "linger.ms": 1})
        self._transactional.init_transactions(30)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            for plain in range(number, number + 50):
                self._send(self._plain, plain)
            self._plain.poll(0)
            numbers = range(number + 50, number + 60)
            self._transactional.begin_transaction()
            for each in numbers:
                self._send(self._transactional, each)
            if len(self.committed) % 3 == 2:
                self._transactional.abort_transaction(30)
                self.aborted.append(numbers)
                self.committed.append(range(0))
            else:
                self._transactional.commit_transaction(30)
                self.committed.append(numbers)
            number += 60
        self._plain.flush(30)

    def _send(self, producer: Producer, number: int) -> None:
        def told(error: object, message: object, number: int = number) -> None:
            if error is None:
                self.acknowledged[number] = (message.partition(), message.offset())  # type: ignore[attr-defined]  # a Message

        producer.produce(TOPIC, b"%d" % number, partition=number % PARTITIONS, on_delivery=told)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def read_all(bootstrap: str, isolation: str) -> dict[tuple[int, int], int]:
    """(partition, offset) → number, from the beginning to the ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reads-all",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    consumer.assign([TopicPartition(TOPIC, index, 0) for index in range(PARTITIONS)])
    found, ends, deadline = {}, set(), time.monotonic() + 60
    while len(ends) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(1000, timeout=1.0):
            if message.error():
                ends.add(message.partition())
            else:
                found[message.partition(), message.offset()] = int(message.value())
    consumer.close()
    assert len(ends) == PARTITIONS
    return found


def committed_offsets(bootstrap: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP})
    answer = consumer.committed([TopicPartition(TOPIC, index) for index in range(PARTITIONS)], timeout=60)
    consumer.close()
    return {each.partition: each.offset for each in answer}


def test_what_was_acknowledged_before_a_backup_of_a_busy_broker_is_in_what_is_restored(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
    group = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": GROUP, "enable.auto.commit": False})
    group.commit(offsets=[TopicPartition(TOPIC, index, 3 + index) for index in range(PARTITIONS)], asynchronous=False)
    group.close()
    sending = Sending(broker.bootstrap)
    deadline = time.monotonic() + 60
    while (len(sending.aborted) < 3 or len(sending.acknowledged) < 600) and time.monotonic() < deadline:
        time.sleep(0.02)
    before, committed, aborted = dict(sending.acknowledged), list(sending.committed), list(sending.aborted)
    assert len(before) > 500

    made = manage(broker.folder / "data", "backup", str(tmp_path / "copy"))
    during = dict(sending.acknowledged)
    sending.stop()
    assert made.returncode == 0, made.stderr
    assert len(during) > len(before), "nothing was sent during the backup"

    restored = EmbeddedBroker(environ={"SLUICE_BROKER_ACLS": "auto"})
    try:
        put_back = manage(restored.folder / "data", "restore", str(tmp_path / "copy"))
        assert put_back.returncode == 0, put_back.stderr
        restored.start()
        raw = read_all(restored.bootstrap, "read_uncommitted")
        for number, place in before.items():
            assert raw[place] == number
        later = sending.acknowledged
        for place, number in raw.items():  # nothing else: whatever came later stands where it was sent
            assert number not in later or later[number] == place
        stable = set(read_all(restored.bootstrap, "read_committed").values())
        assert all(set(numbers) <= stable for numbers in committed)
        assert not any(set(numbers) & stable for numbers in aborted)
        for numbers in sending.committed[
            len(committed) :
        ]:  # one that ended during the backup is there whole or not at all
            assert not numbers or set(numbers) <= stable or not set(numbers) & stable
        assert committed_offsets(restored.bootstrap) == {index: 3 + index for index in range(PARTITIONS)}
        again = Producer({"bootstrap.servers": restored.bootstrap, "transactional.id": "backup"})
        again.init_transactions(30)  # fences what was open
        again.begin_transaction()
        again.produce(TOPIC, b"-1", partition=0)
        again.commit_transaction(30)
        assert -1 in read_all(restored.bootstrap, "read_committed").values()
    finally:
        restored.stop()


def test_a_running_product_is_backed_up_into_a_file_and_stands_up_again_from_it(
    product: Product, tmp_path: Path
) -> None:
    assert product.manage("device", "add", "kept-device").returncode == 0
    producer = Producer({"bootstrap.servers": product.kafka})
    producer.produce("kept", b"value")
    assert producer.flush(60) == 0
    file = tmp_path / "sluice.tar"
    made = product.manage("backup", str(file), within=120)
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sluice.tar"]

    again = Product(tmp_path / "again", password=None)
    try:
        assert again.manage("restore", "--check", str(file)).returncode == 0
        put_back = again.manage("restore", str(file))
        assert put_back.returncode == 0, put_back.stderr
        secrets = ["internal.json", "console.sqlite3", "first-login.txt", "secret_key", "sealing_key"]
        for name in (name for name in secrets if (product.data / name).exists()):
            assert stat.S_IMODE((again.data / name).stat().st_mode) == 0o600, name
        again.start()
        assert "kept-device" in again.manage("device", "list").stdout
        assert again.generated_password() == product.generated_password()
        consumer = Consumer({"bootstrap.servers": again.kafka, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("kept", 0, 0)])
        (message,) = consumer.consume(1, timeout=60)
        assert message.value() == b"value"
        consumer.close()
    finally:
        again.stop()
    assert "holds a product already" in one_line(again.manage("restore", str(file)))


def test_a_restore_into_a_running_product_or_from_what_is_no_backup_is_one_line(
    product: Product, tmp_path: Path
) -> None:
    assert "in use" in one_line(product.manage("restore", str(tmp_path)))
    (tmp_path / "empty").mkdir()
    assert "no finished backup" in one_line(manage(tmp_path / "new", "restore", str(tmp_path / "empty")))
    assert "is not there" in one_line(manage(tmp_path / "new", "restore", str(tmp_path / "nowhere.tar")))
    (tmp_path / "other.tar").write_bytes(b"no archive" * 100)
    assert "no backup" in one_line(manage(tmp_path / "new", "restore", str(tmp_path / "other.tar")))
    assert "holds no product" in one_line(manage(tmp_path / "new", "backup", str(tmp_path / "target")))
    assert not (tmp_path / "target").exists()
    (tmp_path / "there.tar").write_bytes(b"")
    assert "is there already" in one_line(product.manage("backup", str(tmp_path / "there.tar")))


def test_a_backup_with_a_byte_changed_is_refused_and_restores_nothing(product: Product, tmp_path: Path) -> None:
    made = product.manage("backup", str(tmp_path / "copy"), within=120)
    assert made.returncode == 0, made.stderr
    for number, name in enumerate(("console.sqlite3", "internal.json", "manifest.json", "broker/checkpoint")):
        spoiled = shutil.copytree(tmp_path / "copy", tmp_path / f"spoiled-{number}")
        raw = bytearray((spoiled / name).read_bytes())
        raw[len(raw) // 2] ^= 4
        (spoiled / name).write_bytes(raw)
        data = tmp_path / f"new-{number}"
        refused = one_line(manage(data, "restore", str(spoiled)))
        assert "damaged" in refused or "names a file" in refused or "format" in refused, refused
        assert not (data / "broker").exists()
        assert not (data / "console.sqlite3").exists()
