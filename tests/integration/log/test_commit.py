"""The shell on real files: groups, durability, checkpoints while producing, failures, kill -9, full file systems."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from broker.log.config import LogConfig
from broker.log.failures import FolderInUse, StorageFull, StoreClosed
from broker.log.partition import Partition
from broker.log.store import Store, StoreConfig
from broker.server.commit import Commit
from tests.unit.broker.log.logs import NOW, TOPIC, batch, values

CONFIG = StoreConfig(journal_file_bytes=64 << 10, checkpoint_entries=200, min_free_bytes=0)


def clock() -> int:
    return int(time.time() * 1000)


async def test_appends_of_one_turn_become_durable_together_and_in_order(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    partitions = [store.create("t", TOPIC, index, LogConfig()) for index in range(8)]
    woken: list[list[Partition]] = []

    def on_durable(moved: Iterable[Partition]) -> None:
        woken.append(list(moved))

    commit = Commit(store, clock=clock, on_durable=on_durable)
    commit.start()
    order: list[int] = []
    for partition in partitions:
        position = partition.append(batch([b"x"]), NOW).position
        commit.when_durable(position, lambda error, index=partition.index: order.append(index))
    waiter = commit.durable(position)
    assert not waiter.done()
    await waiter
    assert order == list(range(8))
    assert woken == [partitions]
    assert commit.durable(position).done()
    assert commit.position == position
    await commit.stop()
    with pytest.raises(StoreClosed):
        partitions[0].append(batch([b"x"]), NOW)


async def test_checkpoints_go_on_while_producers_do(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    partitions = [store.create("t", TOPIC, index, LogConfig(segment_bytes=8000)) for index in range(4)]
    commit = Commit(store, clock=clock)
    commit.start()
    sent: dict[int, list[bytes]] = {partition.index: [] for partition in partitions}
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        waiters = []
        for partition in partitions:
            value = b"%d" % len(sent[partition.index])
            waiters.append(commit.durable(partition.append(batch([value]), NOW).position))
            sent[partition.index].append(value)
        await asyncio.gather(*waiters)
        if sum(map(len, sent.values())) > 2000 and "spare" in " ".join(os.listdir(tmp_path)):
            break
    assert store.health().ok
    await commit.stop()
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    assert store.recovery.clean
    assert store.recovery.damage == ()
    for index, expected in sent.items():
        assert values(store.partition(TOPIC, index)) == expected
    store.close(NOW)


async def test_a_cancelled_waiter_takes_nobody_along(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    partition = store.create("t", TOPIC, 0, LogConfig())
    commit = Commit(store, clock=clock)
    commit.start()
    position = partition.append(batch([b"x"]), NOW).position
    gone, stays = commit.durable(position), commit.durable(position)
    gone.cancel()
    await stays
    await commit.stop()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), NOW)
    with pytest.raises(FolderInUse):
        Store.open(str(tmp_path), NOW)
    store.close(NOW)
    Store.open(str(tmp_path), NOW).close(NOW)


PRODUCER = """
import asyncio, sys
from tests.integration.log.test_commit import *
async def main():
    store = Store.open(sys.argv[1], NOW, config=CONFIG)
    topics = {part.index: part for part in store.partitions()}
    parts = [topics.get(i) or store.create("t", TOPIC, i, LogConfig(segment_bytes=20000)) for i in range(4)]
    assert not store.recovery.damage, store.recovery.damage
    commit = Commit(store, clock=clock)
    commit.start()
    number = int(sys.argv[2])
    async def produce(part):
        global number
        while True:
            value = b"%d" % number
            number += 1
            got = part.append(batch([value]), NOW)
            await commit.durable(got.position)
            sys.stdout.write(f"{part.index} {got.base_offset} {value.decode()}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(produce(part) for part in parts))
number = 0
asyncio.run(main())
"""


def test_what_was_acknowledged_before_kill_9_is_there_at_its_offset(tmp_path: Path) -> None:
    acknowledged: dict[tuple[int, int], bytes] = {}
    for life in range(4):
        command = [sys.executable, "-c", PRODUCER, str(tmp_path), str(life * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout):  # what it had told before it died counts too
                if line.endswith(b"\n"):  # the last one may be torn
                    index, offset, value = line.split()
                    acknowledged[int(index), int(offset)] = value
                if count == 400 + life * 37:
                    process.send_signal(signal.SIGKILL)
    assert len(acknowledged) > 1500
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    assert store.recovery.damage == ()
    for index in range(4):
        held = values(store.partition(TOPIC, index))
        for (where, offset), value in acknowledged.items():
            if where == index:
                assert held[offset] == value
    store.close(NOW)


def test_a_file_size_limit_is_a_full_disk_and_heals(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), NOW, config=CONFIG)
    partition = store.create("t", TOPIC, 0, LogConfig())
    store.settle()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, hard))
        with pytest.raises(StorageFull):
            for _ in range(100):
                partition.append(batch([b"x" * 2000]), NOW)
                store.settle()
        kept = partition.high_watermark
        assert not store.health().writable
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    partition.append(batch([b"healed"]), NOW)
    store.settle()
    assert store.health().ok
    assert len(values(partition)) == kept + 1
    store.close(NOW)
    assert len(values(Store.open(str(tmp_path), NOW).partition(TOPIC, 0))) == kept + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterable[Path]:
    """A tmpfs of 4 MiB; where mounting is not allowed the test is not run, and says so."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"not run: mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_file_system_refuses_tells_and_heals_when_a_topic_goes(small_disk: Path) -> None:
    config = StoreConfig(journal_file_bytes=256 << 10, checkpoint_entries=50, min_free_bytes=512 << 10)
    store = Store.open(str(small_disk), NOW, config=config)
    partition = store.create("big", TOPIC, 0, LogConfig())
    other = store.create("other", TOPIC[::-1], 0, LogConfig())
    commit = Commit(store, clock=clock)
    commit.start()
    acknowledged, refused = 0, 0
    deadline = time.monotonic() + 60
    while not refused and time.monotonic() < deadline:
        try:
            await commit.durable(partition.append(batch([b"x" * 20_000]), NOW).position)
            acknowledged += 1
        except StorageFull:
            refused += 1
        if acknowledged % 20 == 0:
            store.tick(NOW)
    assert refused
    assert not store.health().ok
    assert partition.high_watermark == acknowledged
    await commit.durable(store.delete(TOPIC, 0))
    while not store.health().ok and time.monotonic() < deadline:
        for _ in store.maintain(NOW):
            pass
        if store.checkpoint_due(clock() + 60_000):
            await commit._checkpoint(store.begin_checkpoint(clock()))
        store.tick(NOW)
        await asyncio.sleep(0.01)
    await commit.durable(other.append(batch([b"healed"]), NOW).position)
    assert store.health().ok
    await commit.stop()
    store = Store.open(str(small_disk), NOW, config=config)
    assert store.recovery.damage == ()
    assert values(store.partition(TOPIC[::-1], 0)) == [b"healed"]
    store.close(NOW)
