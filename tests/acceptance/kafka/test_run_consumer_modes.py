"""run_consumer's modes against a cluster: retry topics, order by key, many workers, expiry; killed workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.client import (
    Admin,
    Consumer,
    Expired,
    Ladder,
    Order,
    Producer,
    Record,
    Retry,
    Settings,
    TopicPartition,
    deadletter,
    records,
)
from tests.acceptance.kafka.conftest import Node
from tests.acceptance.kafka.test_run_consumer import Running, eventually, fill, read_all

ROOT = Path(__file__).resolve().parents[3]
PROTOCOLS = ["classic", "consumer"]
# a cluster takes a KIP-848 member for dead after 45 s at the earliest
KILLED = ["classic", pytest.param("consumer", marks=pytest.mark.torture)]


def send(
    settings: Settings, topic: str, found: list[tuple[bytes | None, bytes, list[tuple[str, str | bytes | None]]]]
) -> None:
    producer = Producer(settings)
    assert producer.send_many((topic, value, key, headers) for key, value, headers in found) == []
    producer.close()


def retry_records(settings: Settings, topic: str, partitions: int) -> list[Record]:
    """Everything a read_committed reader sees in a retry topic."""
    consumer = Consumer(settings, overrides={"enable.partition.eof": True})
    places = [TopicPartition(topic, index) for index in range(partitions)]
    consumer.assign(dict.fromkeys(places, 0))
    found: list[Record] = []
    deadline = time.monotonic() + 60
    while set(consumer.ends) != set(places):
        assert time.monotonic() < deadline
        found += consumer.poll(500, 0.2)
    consumer.close()
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_ladder_tries_again_later_without_holding_others_up_and_then_buries(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str], protocol: str
) -> None:
    made, group = topic(2), name("group")
    calls: dict[bytes | None, list[tuple[float, str, int]]] = defaultdict(list)

    def handle(record: Record) -> None:
        calls[record.value].append((time.time(), record.topic, record.offset))
        if record.value == b"bad" or (record.value == b"late" and len(calls[record.value]) < 2):
            raise ValueError("not yet")

    fill(settings, made, [b"bad", b"late"] + [b"%d" % n for n in range(50)], 2)
    ladder = Ladder(delays=(0.5, 3.0))
    running = Running(settings, made, group, handle, retry=ladder, protocol=protocol)
    eventually(
        lambda: running.progress.dead == 1 and running.progress.handled == 51, lambda: (running.progress, running.error)
    )
    running.stop()
    assert len(calls) == 52
    assert all(len(times) == 1 for value, times in calls.items() if value not in (b"bad", b"late"))
    first, second, third = [at for at, _, _ in calls[b"bad"]]
    assert second - first >= 0.499
    assert third - second >= 2.999
    # the fifty were not held up by the two
    assert max(times[0][0] for value, times in calls.items() if value not in (b"bad", b"late")) < third
    assert {(where, offset) for _, where, offset in calls[b"bad"]} == {(made, 0)}
    (letter,) = read_all(settings, f"dlq.{made}", 1)
    told = deadletter.describe(letter)
    assert (told.reason, told.attempts, told.topic, told.partition, told.offset) == ("handler", 3, made, 0, 0)
    assert (letter.key, letter.header("a")) == (b"k0", b"1")
    moved = retry_records(settings, f"retry.{group}", 2)
    assert sorted((r.value, r.partition, r.text(records.ATTEMPTS)) for r in moved) == [
        (b"bad", 0, "1"),
        (b"bad", 1, "2"),
        (b"late", 0, "1"),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_workers_keep_the_order_of_each_key_through_retries_and_a_slow_key_holds_up_no_other(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str], protocol: str
) -> None:
    made, group = topic(2), name("group")
    keys, each = 20, 15
    send(settings, made, [(b"key%d" % (n % keys), b"%d" % (n // keys), []) for n in range(keys * each)])
    seen: dict[bytes | None, list[int]] = defaultdict(list)
    busy: Counter[bytes | None] = Counter()
    most = failed = 0
    slow_done = threading.Event()
    lock = threading.Lock()
    tried: Counter[tuple[bytes | None, bytes | None]] = Counter()

    def handle(record: Record) -> None:
        nonlocal most, failed
        with lock:
            busy[record.key] += 1
            most = max(most, sum(busy.values()))
            assert busy[record.key] == 1
            tried[record.key, record.value] += 1
            fails = record.value == b"3" and tried[record.key, record.value] < 3
        try:
            if record.key == b"key0" and record.value == b"0":
                slow_done.wait(300)
            time.sleep(0.002)
            if fails:
                failed += 1
                raise ValueError("again")
            seen[record.key].append(int(record.value or b""))
        finally:
            with lock:
                busy[record.key] -= 1

    running = Running(
        settings,
        made,
        group,
        handle,
        order=Order.KEY,
        workers=8,
        protocol=protocol,
        retry=Retry(attempts=3, first=0.05),
    )
    others = (keys - 1) * each
    eventually(lambda: running.progress.handled == others, lambda: (running.progress, running.error))
    assert seen[b"key0"] == []
    # what is finished beyond the slow key's first record is committed all the same: as the offset's metadata
    slow = next(p for p in (0, 1) if read_first(settings, made, p).key == b"key0")
    eventually(lambda: admin.group_offsets([group]).get(group, {}).get(TopicPartition(made, slow)) is not None)
    assert admin.group_offsets([group])[group][TopicPartition(made, slow)].offset == 0
    slow_done.set()
    eventually(lambda: running.progress.handled == keys * each, lambda: (running.progress, running.error))
    running.stop()
    assert all(order == list(range(each)) for order in seen.values())
    assert (most, failed) == (8, keys * 2)
    ends = admin.offsets([TopicPartition(made, p) for p in (0, 1)])
    committed = admin.group_offsets([group])[group]
    assert {p: c.offset for p, c in committed.items()} == {p: end.offset for p, end in ends.items()}


def read_first(settings: Settings, topic: str, partition: int) -> Record:
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(topic, partition): 0})
    found: list[Record] = []
    while not found:
        found = consumer.poll(1, 1.0)
    consumer.close()
    return found[0]


def test_what_was_finished_out_of_order_is_not_done_again_by_the_next_owner(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    fill(settings, made, [b"%d" % n for n in range(30)])
    seen: Counter[bytes | None] = Counter()

    def handle(record: Record) -> None:
        if record.value == b"0" and not may_pass.is_set():
            raise ValueError("not yet")
        seen[record.value] += 1

    may_pass = threading.Event()
    patient = Retry(attempts=1000, first=0.05, factor=1.0)
    first = Running(settings, made, group, handle, order=Order.KEY, retry=patient)
    eventually(lambda: first.progress.handled == 29, lambda: (first.progress, first.error))
    first.stop()
    may_pass.set()
    second = Running(settings, made, group, handle, order=Order.KEY, retry=patient)
    eventually(lambda: second.progress.handled == 1, lambda: (second.progress, second.error))
    time.sleep(0.3)
    second.stop()
    assert second.progress.handled == 1
    assert set(seen.values()) == {1}


def test_coroutines_run_side_by_side_one_per_key(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    import asyncio

    made, group = topic(1), name("group")
    send(settings, made, [(b"key%d" % (n % 4), b"%d" % n, []) for n in range(40)])
    busy: Counter[bytes | None] = Counter()
    most = 0
    seen: dict[bytes | None, list[int]] = defaultdict(list)

    async def handle(record: Record) -> None:
        nonlocal most
        busy[record.key] += 1
        most = max(most, sum(busy.values()))
        assert busy[record.key] == 1
        await asyncio.sleep(0.01)
        busy[record.key] -= 1
        seen[record.key].append(int(record.value or b""))

    running = Running(settings, made, group, handle, order=Order.KEY, workers=4)  # type: ignore[arg-type]  # a coroutine function is a handler too
    eventually(lambda: running.progress.handled == 40, lambda: (running.progress, running.error))
    running.stop()
    assert most == 4
    assert all(order == sorted(order) for order in seen.values())


def test_expired_records_are_buried_or_discarded_and_counted_and_odd_headers_pass(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made = topic(1)
    past, far = str(int(time.time() * 1000) - 1), str(int(time.time() * 1000) + 10**9)
    given: list[tuple[bytes | None, bytes, list[tuple[str, str | bytes | None]]]] = [
        (None, b"late", [("sluice.expires.at", past)]),
        (None, b"late by mqtt", [("mqtt.message.expiry", "0")]),
        (None, b"fresh", [("sluice.expires.at", far)]),
        (None, b"odd", [("sluice.expires.at", "tomorrow"), ("mqtt.message.expiry", "-1")]),
        (None, b"plain", []),
    ]
    send(settings, made, given)
    handled: list[bytes | None] = []
    burying = Running(settings, made, name("group"), lambda record: handled.append(record.value))
    eventually(lambda: burying.progress.handled + burying.progress.dead == 5, lambda: (burying.progress, burying.error))
    burying.stop()
    assert handled == [b"fresh", b"odd", b"plain"]
    assert (burying.progress.expired, burying.progress.dead) == (2, 2)
    assert burying.progress.odd == {"sluice.expires.at": 1, "mqtt.message.expiry": 1}
    letters = read_all(settings, f"dlq.{made}", 2)
    assert [(letter.value, deadletter.describe(letter).reason) for letter in letters] == [
        (b"late", "expired"),
        (b"late by mqtt", "expired"),
    ]
    discarding = Running(settings, made, name("group"), lambda _: None, expired=Expired.DISCARD)
    eventually(lambda: discarding.progress.handled + discarding.progress.expired == 5, lambda: discarding.error)
    discarding.stop()
    assert (discarding.progress.expired, discarding.progress.dead) == (2, 0)
    assert len(retry_records(settings, f"dlq.{made}", 1)) == 2


WORKER = """
import json, os, sys, time
from broker.client import Ladder, Order, Retry, Settings, run_consumer
from broker.client.ledger import SqliteLedger
bootstrap, topic, group, journal, mode, ledger = sys.argv[1:7]
out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(kind, record):
    os.write(out, (json.dumps([kind, os.getpid(), record.key.decode(), int(record.value)]) + "\\n").encode())
def handle(record):
    note("start", record)
    time.sleep(0.004)
    if int(record.value) % 5 == 0 and record.text("sluice.attempts") is None and mode == "ladder":
        raise ValueError("move me")
    note("end", record)
chosen = (
    {"retry": Ladder(delays=(0.5,)), "order": Order.NONE, "workers": 4}
    if mode == "ladder"
    else {"order": Order.KEY, "workers": 4, "retry": Retry(attempts=50, first=0.02)}
)
run_consumer(
    [topic], group, handle, settings=Settings(bootstrap=bootstrap), session_timeout=6,
    protocol=os.environ["PROTOCOL"], ledger=SqliteLedger(ledger) if ledger else None, lease=2, **chosen
)
"""


class Workers:
    """Processes that run a consumer of one group and note what they do in one file."""

    def __init__(
        self, bootstrap: str, topic: str, group: str, folder: Path, mode: str, protocol: str, ledger: str = ""
    ):
        self.journal = folder / "journal"
        self.journal.touch()
        self._command = [sys.executable, "-c", WORKER, bootstrap, topic, group, str(self.journal), mode, ledger]
        self._environ = os.environ | {"PROTOCOL": protocol}
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.running.append(subprocess.Popen(self._command, cwd=ROOT, env=self._environ, stderr=subprocess.DEVNULL))

    def kill_oldest(self) -> int:
        victim = self.running.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(60)
        return victim.pid

    def stop(self) -> None:
        for worker in self.running:
            worker.kill()
            worker.wait(60)

    def entries(self) -> list[tuple[str, int, str, int]]:
        return [tuple(json.loads(line)) for line in self.journal.read_text().splitlines()]

    def ended(self) -> set[tuple[str, int]]:
        return {(key, number) for kind, _, key, number in self.entries() if kind == "end"}


@pytest.mark.parametrize("protocol", KILLED)
def test_a_killed_worker_loses_nothing_and_what_it_moved_is_moved_once(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str], tmp_path: Path, protocol: str
) -> None:
    """Every fifth record goes by the retry topic; one of two workers is killed -9 in the midst of it."""
    made, group, count = topic(4), name("group"), 600
    send(settings, made, [(b"k%d" % (n % 7), b"%d" % n, []) for n in range(count)])
    workers = Workers(settings.bootstrap, made, group, tmp_path, "ladder", protocol)
    workers.start()
    workers.start()
    try:
        eventually(lambda: len(workers.ended()) > 60, workers.entries, timeout=180)
        workers.kill_oldest()
        workers.start()
        eventually(lambda: len(workers.ended()) == count, lambda: count - len(workers.ended()), timeout=180)
    finally:
        workers.stop()
    moved = Counter(int(r.value or b"-1") for r in retry_records(settings, f"retry.{group}", 1))
    assert moved == Counter(range(0, count, 5))


@pytest.mark.parametrize("protocol", KILLED)
def test_a_killed_worker_breaks_no_keys_order_and_with_a_ledger_each_record_is_done_once(
    cluster: Node,
    settings: Settings,
    topic: Callable[..., str],
    name: Callable[[str], str],
    tmp_path: Path,
    protocol: str,
) -> None:
    made, group, keys, each = topic(4), name("group"), 24, 25
    send(settings, made, [(b"k%d" % (n % keys), b"%d" % (n // keys), []) for n in range(keys * each)])
    workers = Workers(settings.bootstrap, made, group, tmp_path, "key", protocol, str(tmp_path / "ledger"))
    workers.start()
    workers.start()
    killed = 0
    try:
        eventually(lambda: len(workers.ended()) > 60, workers.entries, timeout=180)
        killed = workers.kill_oldest()
        workers.start()
        eventually(lambda: len(workers.ended()) == keys * each, lambda: keys * each - len(workers.ended()), timeout=180)
    finally:
        workers.stop()
    order: dict[str, list[int]] = defaultdict(list)
    ends: Counter[tuple[str, int]] = Counter()
    for kind, _, key, number in workers.entries():
        if kind == "end":
            ends[key, number] += 1
            if not order[key] or order[key][-1] != number:
                order[key].append(number)
    assert all(found == list(range(each)) for found in order.values()), order
    # only a process that died between the handler's end and the ledger's can have done a record that is done again
    twice = {what for what, times in ends.items() if times > 1}
    by_the_killed = {(key, number) for kind, pid, key, number in workers.entries() if kind == "end" and pid == killed}
    assert twice <= by_the_killed
    assert len(twice) <= 4
    assert max(ends.values()) <= 2
