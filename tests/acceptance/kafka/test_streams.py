"""A Kafka Streams job with exactly-once semantics, killed and started again: it loses and doubles nothing."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.client import Admin, Consumer, Producer, Record, Settings, TopicPartition
from tests.acceptance.kafka import java
from tests.acceptance.kafka.embedded import EmbeddedBroker

if not java.installed():
    pytest.skip("java and mvn are not installed", allow_module_level=True)

KEYS, PER_KEY = 6, 150


def test_a_stream_job_that_is_killed_twice_counts_every_record_once(
    embedded: EmbeddedBroker, name: Callable[[str], str], tmp_path: Path
) -> None:
    settings = Settings(bootstrap=embedded.bootstrap)
    job, source, target = name("job"), name("in"), name("out")
    with Admin(settings) as admin:
        admin.create_topic(source, 2)
        admin.create_topic(target, 2)
    arguments = (embedded.bootstrap, job, source, target, str(tmp_path / "state"))
    command = java.command("sluice.tests.Counting", *arguments, module="streams", heap="160m")
    log = open(tmp_path / "log", "ab")  # noqa: SIM115 - the job writes to it beyond any block

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    producer, reader = Producer(settings), Consumer(settings, isolation="read_committed", fetch_wait=0.1)
    reader.assign({TopicPartition(target, index): 0 for index in range(2)})
    found: list[Record] = []
    running = start()
    try:
        for step in range(3):
            for number in range(step * PER_KEY // 3, (step + 1) * PER_KEY // 3):
                failures = producer.send_many(
                    [(source, b"%d-%d" % (key, number), b"key%d" % key, None) for key in range(KEYS)]
                )
                assert failures == []
            # killed in the middle of what it was given, each time
            target_count = KEYS * PER_KEY // 3 * step + KEYS * PER_KEY // 6
            _read_until(reader, found, target_count, tmp_path / "log")
            if step < 2:
                running.kill()
                running.wait(60)
                running = start()
        _read_until(reader, found, KEYS * PER_KEY, tmp_path / "log")
        found += reader.poll(500, 1.0)
    finally:
        running.kill()
        running.wait(60)
        log.close()
        reader.close()
        producer.close()
    for key in range(KEYS):
        values = [(record.value or b"").decode() for record in found if record.key == b"key%d" % key]
        assert values == [f"{key}-{number}#{number + 1}" for number in range(PER_KEY)]


def _read_until(reader: Consumer, found: list[Record], count: int, log: Path) -> None:
    deadline = time.monotonic() + 180
    while len(found) < count:
        found += reader.poll(500, 0.2)
        assert time.monotonic() < deadline, f"{len(found)} of {count}: {log.read_text()[-3000:]}"
