"""Share groups (KIP-932) whose workers are killed between receipt and acknowledgement."""

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.client import Admin, Producer, Settings, ShareConsumer, TopicPartition, Verdict, deadletter
from broker.client.administration.types import ConfigKind, ConfigResource
from tests.acceptance.kafka import java, share_workers
from tests.acceptance.kafka.conftest import Node
from tests.acceptance.kafka.test_run_consumer import eventually, read_all

ROOT = Path(__file__).resolve().parents[3]
LOCK = 15.0
JOIN = 10.0
"""Seconds in which workers find a restarted broker again."""
ATTEMPTS = 10
ENABLED = "errors.deadletterqueue.group.enable"


def fill(settings: Settings, topic: str, jobs: int, poison: int) -> set[int]:
    """That many jobs over all partitions, of which so many are poison; returns how many each partition has."""
    producer = Producer(settings)
    every = jobs // poison if poison else jobs + 1
    values = [b"poison %d" % n if n % every == every // 2 else b"job %d" % n for n in range(jobs)]
    assert producer.send_many((topic, value, b"%d" % n, None) for n, value in enumerate(values)) == []
    producer.close()
    return {n for n, value in enumerate(values) if value.startswith(b"poison")}


def share_group(admin: Admin, group: str, dead_letters: str = "") -> None:
    configs = {
        "share.auto.offset.reset": "earliest",
        "share.record.lock.duration.ms": str(int(LOCK * 1000)),
        "share.delivery.count.limit": str(ATTEMPTS),
    }
    if dead_letters:
        admin.create_topic(dead_letters, 1, 1, {ENABLED: "true"})
        configs["errors.deadletterqueue.topic.name"] = dead_letters
        configs["errors.deadletterqueue.copy.record.enable"] = "true"
    admin.alter_configs(ConfigResource(ConfigKind.GROUP, group), set=configs)


def run(
    node: Node,
    topic: str,
    group: str,
    folder: Path,
    *,
    jobs: int,
    poison: int,
    kills: int,
    restarts: int,
    timeout: float,
    partitions: int = 4,
    workers: int = 5,
    seed: int = 7,
) -> share_workers.Told:
    """Kill workers until everything is settled."""
    settings, dead = Settings(bootstrap=node.bootstrap), f"dlq.{group}"
    with Admin(settings) as admin:
        letters = bool(admin.probe().share_dead_letters)
        admin.create_topic(topic, partitions, 1)
        share_group(admin, group, dead if letters else "")
    poisoned = fill(settings, topic, jobs, poison)
    journal, restarted = folder / "journal", list[tuple[float, float]]()
    journal.touch()
    command = [sys.executable, "-m", "tests.acceptance.kafka.share_workers", node.bootstrap, topic, group]
    driver = subprocess.Popen(
        [*command, str(journal), str(workers), str(kills), str(seed)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        for number in range(1, restarts + 1):
            part = jobs * number // (restarts + 1)
            eventually(lambda part=part: len(share_workers.read(journal).done) > part, lambda: "", timeout)  # type: ignore[misc]  # bound for the call
            away = time.time()
            node.kill()
            node.start()
            restarted.append((away, time.time() + JOIN))
        with Admin(settings) as admin:

            def settled() -> bool:
                told = share_workers.read(journal)
                places = admin.share_offsets([group]).get(group, {})
                complete = len(places) == partitions and all(place.lag == 0 for place in places.values())
                return complete and len(told.got) == jobs

            eventually(settled, lambda: share_workers.read(journal).killed, timeout)
    finally:
        driver.send_signal(signal.SIGTERM)
        driver.wait(60)
    told = share_workers.read(journal)
    told.restarts = restarted
    check(told, settings, dead if letters else "", jobs, poisoned)
    return told


def check(told: share_workers.Told, settings: Settings, dead: str, jobs: int, poisoned: set[int]) -> None:
    undone = [place for place in told.got if not told.done[place]]
    # what the broker took while the worker, or the broker itself, was killed and could not say so any more
    last = {place: told.got[place][-1] for place in undone}
    assert sum(count == ATTEMPTS for _, count, _ in last.values()) >= len(poisoned)
    lost = [place for place, (pid, _, _) in last.items() if pid not in told.killed and (pid, *place) not in told.unsure]
    assert lost == [], "not acknowledged, and nobody was killed"
    assert all(len(pids) <= 1 for pids in told.done.values()), "acknowledged twice"
    for place, pids in told.done.items():
        assert not pids or told.got[place][-1][0] == pids[0], "delivered again after it was acknowledged"
    for place, gots in told.got.items():
        counts = [count for _, count, _ in gots]
        # the last attempt comes again where the broker itself died in it
        assert all(a < b or a == b == ATTEMPTS for a, b in itertools.pairwise(counts)), (place, counts)
        assert counts[-1] <= ATTEMPTS
    assert told.longest_wait() <= LOCK + 5
    if dead:
        letters = read_all(settings, dead, len(poisoned))
        assert sorted(int((letter.value or b"").split()[1]) for letter in letters) == sorted(poisoned)


def test_what_a_killed_worker_had_in_hand_reaches_another_and_poison_stalls_nobody(
    cluster: Node, name: Callable[[str], str], tmp_path: Path
) -> None:
    told = run(
        cluster,
        name("jobs"),
        name("share"),
        tmp_path,
        jobs=400,
        poison=1,
        kills=6,
        restarts=0,
        timeout=90,
        partitions=1,
    )
    assert told.kills_with_records_in_hand >= 6


@pytest.mark.torture
@pytest.mark.parametrize("node", ["embedded", "apache"])
def test_two_hundred_workers_killed_between_receipt_and_acknowledgement(
    request: pytest.FixtureRequest, node: str, name: Callable[[str], str], tmp_path: Path
) -> None:
    cluster: Node = request.getfixturevalue(node)
    restarts = 3 if node == "embedded" else 0
    told = run(
        cluster,
        name("jobs"),
        name("share"),
        tmp_path,
        jobs=40_000,
        poison=24,
        kills=220,
        restarts=restarts,
        timeout=500,
        partitions=2,
        workers=8,
    )
    print(f"{node}: {len(told.killed)} killed, {told.kills_with_records_in_hand} with records in hand")
    print(f"longest wait for the next delivery {told.longest_wait():.1f} s")
    assert told.kills_with_records_in_hand >= 200


@pytest.mark.torture
@pytest.mark.parametrize("node", ["embedded", "apache"])
def test_javas_share_consumers_killed_between_receipt_and_acknowledgement(
    request: pytest.FixtureRequest, node: str, name: Callable[[str], str], tmp_path: Path
) -> None:
    cluster: Node = request.getfixturevalue(node)
    settings, topic, group = Settings(bootstrap=cluster.bootstrap), name("jobs"), name("share")
    jobs, kills, journal = 10_000, 10, tmp_path / "journal"
    with Admin(settings) as admin:
        admin.create_topic(topic, 2, 1)
        share_group(admin, group)
    fill(settings, topic, jobs, 0)
    journal.touch()
    command = java.command("sluice.tests.ShareWorker", cluster.bootstrap, topic, group, str(journal))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def has_records_in_hand(pid: int) -> bool:
        told = share_workers.read(journal)
        working = {pid for gots in told.got.values() for pid, _, _ in gots}
        if not all(worker.pid in working for worker in workers):
            return False  # a JVM is slow to start: there shall be somebody to take over
        return any(gots[-1][0] == pid and not told.done[place] for place, gots in told.got.items())

    workers = [start() for _ in range(3)]
    try:
        for _ in range(kills):
            victim = workers.pop(0)
            eventually(lambda victim=victim: has_records_in_hand(victim.pid), lambda: "nothing in hand", 60)  # type: ignore[misc]  # bound for the call
            victim.kill()
            victim.wait(60)
            with journal.open("a") as notes:
                notes.write(f'["killed", {victim.pid}, {time.time()}]\n')
            workers.append(start())
        with Admin(settings) as admin:

            def settled() -> bool:
                places = admin.share_offsets([group]).get(group, {})
                all_there = len(share_workers.read(journal).got) == jobs
                return all_there and len(places) == 2 and all(place.lag == 0 for place in places.values())

            eventually(settled, lambda: len(share_workers.read(journal).got), 120)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(60)
    told = share_workers.read(journal)
    check(told, settings, "", jobs, set())
    print(f"{node}, Java: {told.kills_with_records_in_hand} killed, longest wait {told.longest_wait():.1f} s")


def test_a_record_whose_dead_letter_cant_be_written_stays_available_and_says_why(
    embedded: Node, name: Callable[[str], str]
) -> None:
    """KIP-1191 leaves open what becomes of it; other records go on meanwhile."""
    settings, topic, group, dead = Settings(bootstrap=embedded.bootstrap), name("jobs"), name("share"), name("dead")
    resource = ConfigResource(ConfigKind.GROUP, group)
    with Admin(settings) as admin:
        admin.create_topic(topic, 1, 1)
        share_group(admin, group, dead)
        admin.alter_configs(ConfigResource(ConfigKind.TOPIC, dead), set={ENABLED: "false"})
        fill(settings, topic, 20, 1)

        def failure() -> str | None:
            return next(e.value for e in admin.configs([resource])[resource] if e.name.endswith("queue.failure"))

        assert failure() == ""
        consumer = ShareConsumer(settings, group)
        consumer.subscribe([topic])
        rejected: list[int] = []
        accepted: set[int] = set()

        def work() -> None:
            for shared in consumer.poll(0.2):
                poison = (shared.record.value or b"").startswith(b"poison")
                consumer.acknowledge(shared, Verdict.REJECT if poison else Verdict.ACCEPT)
                if poison:
                    rejected.append(shared.attempt)
                else:
                    accepted.add(shared.record.offset)
            consumer.commit()

        def until(done: Callable[[], bool]) -> None:
            eventually(lambda: work() is None and done(), lambda: (rejected, accepted, failure()))

        until(lambda: len(rejected) >= 3 and len(accepted) == 19)
        assert failure() == f"the topic does not say {ENABLED}=true"
        admin.alter_configs(ConfigResource(ConfigKind.TOPIC, dead), set={ENABLED: "true"})
        until(lambda: admin.share_offsets([group])[group][TopicPartition(topic, 0)].lag == 0)
        consumer.close()
        assert failure() == ""
    (letter,) = read_all(settings, dead, 1)
    assert deadletter.describe(letter).reason == "rejected"
