"""The worker against a simulated cluster: killed at any step, with its local copy kept, lost or older than it was, each
delivery still arrives once and not before its time, or is taken back, or is a dead letter."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.client.delaying import DELAY_DEAD_LETTERS, DELAY_TOPIC, DELAYS
from broker.client.records import Record
from broker.delay.worker import ForeignCopy, Tally, Worker
from tests.unit.broker.delay.simulated import Cluster, Connections, Crash, Rules

START = 1_800_000_000_000
TOPICS = {DELAY_TOPIC: "source", DELAYS: "state"}
Wish = tuple[int, Any]


def header(name: str, value: str) -> tuple[str, bytes]:
    return f"sluice.{name}", value.encode()


@st.composite
def wishes(draw: st.DrawFn) -> list[Wish]:
    """Deliveries (value = number) and cancellations, in the order in which they are asked for."""
    made: list[Wish] = []
    at = START
    for number in range(draw(st.integers(1, 12))):
        at += draw(st.integers(0, 400))
        identity = draw(st.sampled_from(["a", "b", "c"]))
        if draw(st.integers(0, 3)) == 0:
            made.append((at, (b"k", b"cancel", (header("deliver.cancel", identity),))))
            continue
        target = draw(st.sampled_from(["orders", "orders", "orders", "small", "nowhere"]))
        wait = draw(st.sampled_from(["0s", "1ms", "300ms", "2s", "-1s"]))
        headers = (header("deliver.topic", target), header("deliver.after", wait), header("message.id", identity))
        made.append((at, (b"k", b"%d" % number, headers)))
    return made


def live(cluster: Cluster, folder: Path, left: list[Wish], *, until: int) -> bool:
    """One process's life; whether it came to its end by being told to."""
    stop = threading.Event()
    cluster.steps = 0
    worker = Worker(
        Connections(cluster, stop, until, left),
        0,
        path=folder / "pending.sqlite3",
        topics=TOPICS,
        targets=Rules(),
        tally=Tally(),
        stop=stop,
        clock=lambda: cluster.now / 1000,
    )
    try:
        worker.run()
    except Crash:
        return False
    return True


def check(cluster: Cluster, asked: list[Wish]) -> None:
    source = {held.record.value: held.record for held in cluster.committed(DELAY_TOPIC) if held.record}
    arrived = [held for name in ("orders", "small", "nowhere") for held in cluster.committed(name)]
    letters = [held.record for held in cluster.committed(DELAY_DEAD_LETTERS) if held.record]
    times = Counter(held.record.value for held in arrived if held.record)
    dead = Counter(letter.value for letter in letters if letter.value != b"cancel")
    assert max([*times.values(), *dead.values()], default=1) == 1
    late = {letter.text("sluice.origin.offset") for letter in letters if letter.value == b"cancel"}
    assert len(late) == sum(letter.value == b"cancel" for letter in letters)
    cancels = [held.record for held in cluster.committed(DELAY_TOPIC) if held.record and held.record.value == b"cancel"]
    taken_back = [cancel for cancel in cancels if str(cancel.offset) not in late]
    for _, (_, value, _) in asked:
        if value == b"cancel":
            continue
        record = source[value]
        wait, target = record.text("sluice.deliver.after"), record.text("sluice.deliver.topic")
        back = any(
            cancel.offset > record.offset and cancel.text("sluice.deliver.cancel") == record.text("sluice.message.id")
            for cancel in taken_back
        )
        if wait == "-1s":
            assert dead[value] == 1
        elif target == "orders":
            assert times[value] == 1 or (back and not times[value])
        else:  # nobody's topic, and one that refuses
            assert dead[value] == 1 or (back and not dead[value])
        assert times[value] + dead[value] <= 1
    for held in arrived:
        assert held.record is not None
        record = source[held.record.value]
        due = (
            record.timestamp + {"0s": 0, "1ms": 1, "300ms": 300, "2s": 2000}[record.text("sluice.deliver.after") or ""]
        )
        assert held.visible_at >= due, "early"
    # a cancellation that took something back left nothing of it: it had something to take
    for cancel in taken_back:
        assert any(
            record.offset < cancel.offset
            and record.text("sluice.message.id") == cancel.text("sluice.deliver.cancel")
            and not times[record.value]
            and not dead[record.value]
            for record in source.values()
        ), "a cancellation took back what was delivered"


def refuses(record: Record) -> bool:
    return record.topic == "small"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    asked=wishes(),
    crashes=st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["kept", "lost", "older"])), max_size=6),
)
def test_each_delivery_arrives_once_and_on_time_whatever_is_killed_when(
    asked: list[Wish], crashes: list[tuple[int, str]]
) -> None:
    cluster = Cluster(now=START, refused=refuses)
    left = list(asked)
    with tempfile.TemporaryDirectory() as name:
        folder, older = Path(name, "now"), Path(name, "older")
        folder.mkdir()
        for crash_at, fate in crashes:
            cluster.crash_at = crash_at
            if live(cluster, folder, left, until=START + 10_000):
                break
            if fate == "lost":
                shutil.rmtree(folder)
                folder.mkdir()
            elif fate == "older":
                if older.exists():
                    shutil.rmtree(folder)
                    shutil.copytree(older, folder)
                else:
                    shutil.copytree(folder, older)
        cluster.crash_at = None
        assert live(cluster, folder, left, until=cluster.now + 10_000)
        check(cluster, asked)


def test_a_topic_that_was_made_anew_does_not_touch_what_is_pending_of_the_old_one(tmp_path: Path) -> None:
    cluster = Cluster(now=START)
    wish = (header("deliver.topic", "orders"), header("deliver.after", "2s"))
    live(cluster, tmp_path, [(START, (b"k", b"old", wish))], until=START + 500)
    cluster.logs[DELAY_TOPIC] = []
    anew = {**TOPICS, DELAY_TOPIC: "made anew"}
    stop = threading.Event()
    Worker(
        Connections(cluster, stop, START + 10_000, [(cluster.now, (b"k", b"new", wish))]),
        0,
        path=tmp_path / "pending.sqlite3",
        topics=anew,
        targets=Rules(),
        tally=Tally(),
        stop=stop,
        clock=lambda: cluster.now / 1000,
    ).run()
    assert [held.record.value for held in cluster.committed("orders") if held.record] == [b"old", b"new"]


def test_a_copy_so_old_that_compaction_may_have_taken_removals_away_is_read_again(tmp_path: Path) -> None:
    cluster = Cluster(now=START)
    wish = (header("deliver.topic", "orders"), header("deliver.after", "1h"))
    live(cluster, tmp_path, [(START, (b"k", b"one", wish))], until=START + 500)
    assert cluster.committed(DELAYS)
    # meanwhile, elsewhere: fired, removed, and compaction took both the row and its removal away
    for held in cluster.logs[DELAYS]:
        if held.record is not None and held.record.key != b"position":
            held.record = None
    cluster.now += 8 * 86_400_000
    live(cluster, tmp_path, [], until=cluster.now + 5_000)
    assert cluster.committed("orders") == []


def test_a_copy_of_a_log_that_was_longer_is_not_believed(tmp_path: Path) -> None:
    cluster = Cluster(now=START)
    wish = (header("deliver.topic", "orders"), header("deliver.after", "1h"))
    live(cluster, tmp_path, [(START, (b"k", b"one", wish))], until=START + 500)
    cluster.logs[DELAYS].clear()  # restored from a backup of before
    with pytest.raises(ForeignCopy):
        live(cluster, tmp_path, [], until=cluster.now + 500)
