"""Disks that fill up, refuse and fail: never a false acknowledgement, and the reason is told."""

from __future__ import annotations

import errno
import os

import pytest

from broker.log.config import LogConfig
from broker.log.failures import (
    StorageFatal,
    StorageFull,
    StorageUnreadable,
    StorageUnwritable,
    StoreClosed,
    UnknownPartition,
)
from tests.fakes.disk import Disk
from tests.unit.broker.log.logs import NOW, SMALL, TOPIC, batch, filled, open_store, values


def failing(disk: Disk, kind: str, code: int, where: str = "") -> None:
    """From now on that operation fails on paths that contain `where`."""

    def fault(operation: str, path: str) -> None:
        if operation == kind and where in path:
            raise OSError(code, os.strerror(code), path)

    disk.before = fault


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_refuses_and_heals_without_a_restart(code: int) -> None:
    disk = Disk()
    store, partition = filled(disk, batches=2)
    failing(disk, "write", code, "journal")
    appended = partition.append(batch([b"lost"]), NOW)
    with pytest.raises(StorageFull):
        store.settle()
    assert isinstance(store.failure_of(appended.position), StorageFull)
    assert not store.health().ok
    assert not store.health().writable
    assert (partition.log_end_offset, partition.high_watermark) == (6, 6)
    disk.before = None
    assert partition.append(batch([b"kept"]), NOW).base_offset == 6
    store.settle()
    assert store.health().ok
    store.abandon()
    disk.locks.clear()
    again = open_store(disk).partition(TOPIC, 0)
    assert values(again)[-1] == b"kept"
    assert b"lost" not in values(again)


def test_a_failed_write_takes_back_every_partition_and_producer_it_carried() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=1)
    other = store.create("other", TOPIC[::-1], 0, LogConfig())
    store.settle()
    partition.append(batch([b"a"], producer=9, epoch=0, sequence=0, transactional=True), NOW)
    store.settle()
    failing(disk, "write", errno.EIO, "journal")
    partition.append(batch([b"b"], producer=9, epoch=0, sequence=1, transactional=True), NOW)
    other.append(batch([b"c"]), NOW)
    gone = store.create("gone", bytes(16), 0, LogConfig())
    store.delete(other.topic_id, 0)
    with pytest.raises(StorageUnwritable):
        store.settle()
    disk.before = None
    with pytest.raises(UnknownPartition):
        store.partition(gone.topic_id, 0)
    assert store.partition(other.topic_id, 0) is other
    assert other.log_end_offset == 0
    assert partition.append(batch([b"b"], producer=9, epoch=0, sequence=1, transactional=True), NOW).base_offset == 4
    assert other.append(batch([b"d"]), NOW).base_offset == 0
    store.settle()
    assert values(other) == [b"d"]


def test_what_was_staged_behind_a_failed_group_fails_with_it() -> None:
    disk = Disk()
    store, partition = filled(disk)
    first = partition.append(batch([b"a"]), NOW)
    group = store.take_group()
    assert group is not None
    second = partition.append(batch([b"b"]), NOW)
    failing(disk, "write", errno.ENOSPC, "journal")
    group.write()
    assert store.complete(group) == {}
    disk.before = None
    third = partition.append(batch([b"c"]), NOW)
    store.settle()
    assert store.failure_of(first.position) is not None
    assert store.failure_of(second.position) is not None
    assert store.failure_of(third.position) is None
    assert values(partition) == [b"c"]


def test_a_failed_fsync_is_final_until_a_restart() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=1)
    failing(disk, "datasync", errno.EIO, "journal")
    appended = partition.append(batch([b"unknown"]), NOW)
    with pytest.raises(StorageFatal):
        store.settle()
    disk.before = None
    assert isinstance(store.failure_of(appended.position), StorageFatal)
    with pytest.raises(StorageFatal):
        partition.append(batch([b"more"]), NOW)
    assert store.health().fatal
    assert "until a restart" in store.health().reason
    assert values(partition) == [b"v0"] * 3  # reading goes on
    store.close(NOW)  # writes nothing
    store = open_store(disk)
    assert store.partition(TOPIC, 0).append(batch([b"more"]), NOW)
    store.settle()


def test_a_failed_sync_of_a_segment_is_final_too() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=1)
    failing(disk, "datasync", errno.EIO, ".log")
    with pytest.raises(StorageUnwritable):
        store.checkpoint(NOW)
    disk.before = None
    with pytest.raises(StorageFatal):
        partition.append(batch([b"more"]), NOW)
    disk.locks.clear()
    again = open_store(disk)
    assert values(again.partition(TOPIC, 0)) == [b"v0"] * 3


def test_a_checkpoint_without_space_is_tried_again() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=5)
    failing(disk, "write", errno.ENOSPC, ".index")
    with pytest.raises(StorageFull):
        store.checkpoint(NOW)
    assert not store.health().ok
    assert not store.checkpoint_due(NOW)
    assert store.checkpoint_due(NOW + 1000)
    disk.before = None
    store.checkpoint(NOW + 1000)
    assert store.health().ok
    store.close(NOW)
    store = open_store(disk)
    assert store.recovery.clean
    assert len(values(store.partition(TOPIC, 0))) == 15
    assert partition.high_watermark == 15


def test_segments_that_cannot_be_written_wait_in_memory() -> None:
    disk = Disk()
    store, partition = filled(disk)
    failing(disk, "write", errno.ENOSPC, ".log")
    for _ in range(20):
        partition.append(batch([b"x" * 10_000]), NOW)
        store.settle()
    assert partition.high_watermark == 20
    assert not store.health().ok
    assert len(values(partition)) == 20
    disk.before = None
    store.tick(NOW)
    assert store.health().ok


def test_short_writes_on_a_disk_that_fills_up() -> None:
    disk = Disk()
    store, partition = filled(disk)
    store.config = type(SMALL)(min_free_bytes=-(1 << 30))  # others fill it as well, faster than anybody looks
    acknowledged = 0
    disk.capacity = 120_000
    refused = 0
    for number in range(200):
        partition.append(batch([b"%d" % number + b"x" * 1000]), NOW)
        try:
            store.settle()
            acknowledged += 1
        except StorageFull:
            refused += 1
    assert acknowledged > 20
    assert refused
    disk.capacity = 0
    partition.append(batch([b"after"]), NOW)
    store.settle()
    held = values(partition)
    assert len(held) == acknowledged + 1
    store.abandon()
    disk.locks.clear()
    store = open_store(disk)
    assert values(store.partition(TOPIC, 0)) == held
    assert store.recovery.damage == ()


def test_a_nearly_full_disk_refuses_records_but_lets_topics_be_deleted() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=1)
    store.config = type(SMALL)(min_free_bytes=1 << 20)
    disk.capacity = disk.used() + 200_000
    store.tick(NOW)
    with pytest.raises(StorageFull):
        partition.append(batch([b"x"]), NOW)
    store.delete(TOPIC, 0)
    store.settle()
    disk.capacity = 0
    store.tick(NOW)
    assert store.health().ok


def test_a_fast_producer_stops_before_the_disk_is_full_though_nobody_looked_for_a_while() -> None:
    """No tick comes between: what is staged counts, or a topic could not be deleted any more."""
    disk = Disk()
    store, partition = filled(disk, batches=1)
    store.config = type(SMALL)(min_free_bytes=100_000)
    disk.capacity = disk.used() + 400_000
    store.tick(NOW)
    taken = 0
    with pytest.raises(StorageFull, match="nearly full"):
        for _ in range(1_000):
            partition.append(batch([b"x" * 1000]), NOW)
            taken += 1
            if taken % 7 == 0:
                store.settle()
    assert taken > 50
    store.settle()
    assert disk.free("") >= 80_000
    store.delete(TOPIC, 0)
    store.settle()
    disk.capacity = 0
    store.tick(NOW)
    assert store.health().ok


def test_a_read_error_is_the_readers_and_names_the_failure() -> None:
    disk = Disk()
    store, _ = filled(disk, batches=3)
    store.close(NOW)
    store = open_store(disk)

    def fault(kind: str, path: str) -> None:
        if path.endswith(".log"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    disk.reading = fault
    with pytest.raises(StorageUnreadable, match="Input/output error"):
        store.partition(TOPIC, 0).read(0, 1000)
    assert not store.health().ok
    disk.reading = None
    assert len(values(store.partition(TOPIC, 0))) == 9


def test_a_closed_store_says_so() -> None:
    disk = Disk()
    store, partition = filled(disk)
    store.close(NOW)
    with pytest.raises(StoreClosed):
        partition.append(batch([b"x"]), NOW)


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400_000, 10 * 365 * 86_400_000])
def test_a_clock_that_jumps_loses_nothing(jump: int) -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(message_timestamp_type="LogAppendTime"), batches=3)
    now = NOW + jump
    partition.append(batch([b"jumped"]), now)
    store.settle()
    store.tick(now)
    assert store.checkpoint_due(now)
    store.checkpoint(now)
    partition.append(batch([b"back"]), NOW)
    store.settle()
    store.tick(NOW)
    held = values(partition)
    assert held[-2:] == [b"jumped", b"back"]
    store.close(NOW)
    assert values(open_store(disk).partition(TOPIC, 0)) == held
