"""run_consumer against a cluster: retries, dead letters, rebalances, crashes, the ledger."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from broker.client import (
    Admin,
    Consumer,
    DeadLetterTopic,
    Producer,
    Progress,
    Record,
    Reject,
    Retry,
    Settings,
    TopicPartition,
    deadletter,
    run_consumer,
)
from broker.client.administration.types import ConfigKind, ConfigResource, NewTopic
from broker.client.ledger import SqliteLedger
from tests.acceptance.kafka.embedded import EmbeddedBroker

QUICK = Retry(attempts=3, first=0.05, longest=0.1)


def fill(settings: Settings, topic: str, values: list[bytes], partitions: int = 1) -> None:
    producer = Producer(settings)
    batch = producer.batch(lambda _: None)
    for number, value in enumerate(values):
        batch.send(topic, value, b"k%d" % number, [("a", b"1")], partition=number % partitions)
    assert producer.flush(60) == 0
    producer.close()


def read_all(settings: Settings, topic: str, count: int, timeout: float = 60) -> list[Record]:
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(topic, 0): 0})
    found: list[Record] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.poll(100, 0.2)
    consumer.close()
    return found


def eventually(check: Callable[[], bool], what: Callable[[], object] = lambda: "", timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Running:
    """run_consumer in a thread."""

    def __init__(self, settings: Settings, topic: str, group: str, handler: Callable[[Record], None], **more: object):
        self.progress = Progress()
        self.error: BaseException | None = None
        self._halt = threading.Event()

        def run() -> None:
            try:
                run_consumer(
                    [topic],
                    group,
                    handler,
                    settings=settings,
                    stop=self._halt,
                    progress=self.progress,
                    **({"retry": QUICK} | more),  # type: ignore[arg-type]
                )
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._halt.set()
        self._thread.join(40)
        assert not self._thread.is_alive()
        assert self.error is None, self.error


def test_one_bad_record_becomes_a_dead_letter_and_the_others_are_handled_in_order(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    fill(settings, made, [b"%d" % n for n in range(10)])
    handled: list[bytes | None] = []
    attempts: Counter[bytes | None] = Counter()

    def handle(record: Record) -> None:
        attempts[record.value] += 1
        if record.value == b"4":
            raise ValueError("four is not a number")
        if record.value == b"7":
            raise Reject("never seven", reason="schema")
        handled.append(record.value)

    running = Running(settings, made, group, handle)
    eventually(lambda: running.progress.handled == 8, lambda: (running.progress, running.error))
    running.stop()
    assert handled == [b"%d" % n for n in range(10) if n not in (4, 7)]
    assert (attempts[b"4"], attempts[b"7"]) == (3, 1)
    letters = read_all(settings, f"dlq.{made}", 2)
    described = [deadletter.describe(letter) for letter in letters]
    assert [(each.reason, each.attempts, each.offset) for each in described] == [("handler", 3, 4), ("schema", 1, 7)]
    assert {(each.convention, each.topic, each.partition, each.group) for each in described} == {
        ("sluice", made, 0, group)
    }
    assert [(letter.key, letter.value, letter.header("a")) for letter in letters] == [
        (b"k4", b"4", b"1"),
        (b"k7", b"7", b"1"),
    ]
    place = TopicPartition(made, 0)
    assert admin.group_offsets([group])[group][place].offset == 10


def test_a_record_whose_dead_letter_cant_be_written_is_not_committed(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(2), name("group")
    dead = name("dead")
    admin.create_topic(dead, 1, 1, {"max.message.bytes": "200"})
    fill(settings, made, [b"x" * 1000, b"small"], 2)
    calls: Counter[int] = Counter()

    def handle(record: Record) -> None:
        calls[record.partition] += 1
        if record.partition == 0:
            raise Reject("no")

    running = Running(settings, made, group, handle, dead_letter=DeadLetterTopic(topic=dead))
    # the other partition goes on
    eventually(lambda: running.progress.handled == 1, lambda: (running.progress, running.error))
    eventually(lambda: TopicPartition(made, 1) in admin.group_offsets([group])[group])
    assert TopicPartition(made, 0) not in admin.group_offsets([group])[group]
    assert running.progress.dead == 0
    admin.alter_configs(ConfigResource(ConfigKind.TOPIC, dead), set={"max.message.bytes": "100000"})
    eventually(lambda: running.progress.dead == 1, lambda: (running.progress, running.error))
    running.stop()
    assert admin.group_offsets([group])[group][TopicPartition(made, 0)].offset == 1
    assert calls[0] == 1


def test_rebalances_lose_nothing(settings: Settings, topic: Callable[..., str], name: Callable[[str], str]) -> None:
    made, group = topic(4), name("group")
    seen: Counter[bytes | None] = Counter()
    lock = threading.Lock()

    def handle(record: Record) -> None:
        time.sleep(0.004)
        with lock:
            seen[record.value] += 1

    fill(settings, made, [b"%d" % n for n in range(1000)], 4)
    first = Running(settings, made, group, handle)
    eventually(lambda: first.progress.handled > 20, lambda: first.error)
    second = Running(settings, made, group, handle)
    eventually(lambda: second.progress.handled > 5, lambda: (second.progress, second.error))
    first.stop()
    eventually(lambda: len(seen) == 1000, lambda: len(seen))
    second.stop()
    # a revoked partition's settled records are committed before it goes, so nobody handles them again
    assert set(seen.values()) == {1}


WORKER = """
import os, sys, time, json
from pathlib import Path
from broker.client import Settings, run_consumer, Retry
from broker.client.ledger import SqliteLedger
bootstrap, topic, group, ledger, journal, pause = sys.argv[1:7]
def handle(record):
    with open(journal, "a") as out:
        out.write(json.dumps(["start", os.getpid(), record.text("sluice.message.id")]) + "\\n")
    time.sleep(float(pause))
    with open(journal, "a") as out:
        out.write(json.dumps(["end", os.getpid(), record.text("sluice.message.id")]) + "\\n")
settings, ledger = Settings(bootstrap=bootstrap), SqliteLedger(ledger)
run_consumer([topic], group, handle, settings=settings, ledger=ledger, lease=4, session_timeout=6)
"""


def test_two_processes_given_the_same_messages_do_each_once_through_crashes_of_either(
    embedded: EmbeddedBroker, name: Callable[[str], str], tmp_path: Path
) -> None:
    """Two topics carry the same messages (by id) to two members; both are killed in mid-work and started again."""
    group, count = name("group"), 30
    settings = Settings(bootstrap=embedded.bootstrap)
    topics = [name("copy"), name("copy")]
    with Admin(settings) as admin:
        admin.create_topics([NewTopic(name=each, partitions=1) for each in topics])
    producer = Producer(settings)
    for made in topics:
        batch = producer.batch(lambda _: None)
        for number in range(count):
            batch.send(made, b"x", None, [("sluice.message.id", f"m{number}")])
        assert producer.flush(60) == 0
    producer.close()
    ledger, journal = str(tmp_path / "ledger"), tmp_path / "journal"
    journal.touch()

    def start(made: str) -> subprocess.Popen[bytes]:
        # each member reads one copy, in the same group's ledger
        command = [sys.executable, "-c", WORKER, settings.bootstrap, made, group, ledger, str(journal), "0.05"]
        return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3], stderr=subprocess.DEVNULL)

    def entries() -> list[tuple[str, int, str]]:
        return [tuple(json.loads(line)) for line in journal.read_text().splitlines()]

    workers = [start(made) for made in topics]
    try:
        for victim, after in ((0, 5), (1, 12)):
            eventually(lambda after=after: sum(e[0] == "end" for e in entries()) >= after, entries)  # type: ignore[misc]
            os.kill(workers[victim].pid, signal.SIGKILL)
            workers[victim].wait(60)
            workers[victim] = start(topics[victim])
        eventually(lambda: _done(ledger) == count, entries, timeout=180)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(60)
    killed_in_work = {message for kind, pid, message in entries() if kind == "start"} - {
        message for kind, pid, message in entries() if kind == "end"
    }
    assert killed_in_work == set()
    ends = Counter(message for kind, _, message in entries() if kind == "end")
    starts = Counter(message for kind, _, message in entries() if kind == "start")
    assert set(ends) == {f"m{number}" for number in range(count)}
    # a handler that ran to its end was run again only where its process died before it could say so
    assert sum(ends.values()) <= count + 2, ends
    assert sum(starts.values()) <= count + 2, starts


def _done(path: str) -> int:
    ledger = SqliteLedger(path)
    try:
        row = ledger._database.execute("SELECT count(*) FROM ledger WHERE done IS NOT NULL").fetchone()
        return int(row[0])
    finally:
        ledger.close()
