"""A backup taken while the store runs is what a power cut would have left at one moment."""

from __future__ import annotations

import pytest

from broker.log.backup import BackupRefused, backup, check, restore
from broker.log.config import LogConfig
from broker.log.failures import CorruptLog, UnknownFormat
from broker.log.store import Store
from broker.wire.batch import split
from tests.fakes.disk import Disk
from tests.unit.broker.log.logs import NOW, SMALL, TOPIC, batch, filled, values


def copied(disk: Disk, target: str = "/backup") -> None:
    backup(disk, "/data", target, NOW, wait=lambda: None)


def restored(disk: Disk, source: str = "/backup") -> Store:
    restore(disk, source, "/again")
    return Store.open("/again", NOW, files=disk, config=SMALL, salt=lambda: 9)


@pytest.mark.parametrize("checkpoints", [0, 1, 3])
def test_a_backup_of_a_running_store_holds_everything_acknowledged_before(checkpoints: int) -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=900), batches=5)
    for number in range(checkpoints):
        partition.append(batch([b"c%d" % number] * 9, producer=4, epoch=0, sequence=number * 9), NOW)
        store.settle()
        store.checkpoint(NOW)
    partition.append(batch([b"t"], producer=5, epoch=0, sequence=0, transactional=True), NOW)
    store.settle()
    held = values(partition)
    copied(disk)
    partition.append(batch([b"later"]), NOW)
    store.settle()
    again = restored(disk)
    assert again.recovery.damage == ()
    other = again.partition(TOPIC, 0)
    assert values(other) == held
    assert other.states() == {key: state for key, state in partition.states().items() if key in (4, 5)}
    assert other.last_stable_offset == partition.last_stable_offset
    other.append(batch([b"goes on"]), NOW)
    again.settle()


def test_what_goes_on_while_a_backup_is_taken_does_not_tear_it() -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=900, retention_bytes=3000), batches=20)
    store.checkpoint(NOW)
    doomed = store.create("doomed", TOPIC[::-1], 0, LogConfig())
    doomed.append(batch([b"x"]), NOW)
    store.settle()
    store.checkpoint(NOW)
    copies = 0
    step = 0
    alongside: list[int] = []

    def meanwhile(kind: str, path: str) -> None:
        nonlocal step
        if not path.startswith("/backup"):
            return
        step += 1
        disk.before = None
        partition.append(batch([b"m%d" % step] * 5), NOW)
        store.settle()
        alongside.append(partition.high_watermark)
        if step == 3:
            store.delete(doomed.topic_id, 0)
            store.settle()
        if step % 4 == 0:
            store.checkpoint(NOW)
        if step % 5 == 0:
            for _ in store.maintain(NOW):
                pass
            store.settle()
        disk.before = meanwhile

    disk.before = meanwhile
    copied(disk)
    disk.before = None
    copies = step
    assert copies > 10
    again = restored(disk)
    assert again.recovery.damage == ()
    assert again.health().ok
    other = again.partition(TOPIC, 0)
    assert other.high_watermark in alongside
    mine, theirs = values(partition), values(other)
    assert theirs == [] or theirs[-1] in mine or other.high_watermark <= partition.log_start_offset


def test_compaction_that_a_backup_holds_up_goes_on_with_nothing_behind() -> None:
    disk = Disk()
    config = LogConfig(cleanup_policy=frozenset(("compact",)), segment_bytes=1500, min_cleanable_dirty_ratio=0.0)
    store, partition = filled(disk, config=config)
    partition.append(batch([b"aborted" * 200], keys=[b"a"], producer=1, epoch=0, sequence=0, transactional=True), NOW)
    store.settle()
    partition.stage_roll()
    partition.append_control(1, 0, commit=False, coordinator_epoch=0, now=NOW)
    partition.append(batch([b"good" * 300], keys=[b"b"]), NOW)
    partition.append(batch([b"last" * 300], keys=[b"c"]), NOW)
    store.settle()
    store.checkpoint(NOW)
    for _ in store.maintain(NOW):
        pass
    store.settle()
    hold = disk.lock("/data/hold", shared=True)
    assert hold is not None

    def meanwhile(kind: str, path: str) -> None:
        if path == f"{partition.path}/{1:020d}.log.cleaned":  # the backup is done before the second segment is
            hold.release()

    disk.before = meanwhile
    shown = []
    for _ in range(2):
        for _ in store.maintain(NOW):
            pass
        found = partition.read(0, 1 << 20, committed=True)
        batches = [one for buffer in found.buffers for one in split(buffer)]
        records = any(one.producer_id == 1 and one.count and not one.control for one in batches)
        shown.append((records, [entry.producer_id for entry in found.aborted or ()]))
        hold.release()
        disk.before = None
    assert shown == [(True, [1]), (False, [])]


def test_a_damaged_or_unfinished_backup_is_refused() -> None:
    disk = Disk()
    store, _ = filled(disk, batches=4)
    store.checkpoint(NOW)
    copied(disk)
    assert check(disk, "/backup")
    path = "/backup/plain-0/00000000000000000000.log"
    disk.open(path).write(100, [b"\xff"])
    with pytest.raises(CorruptLog, match="fails its CRC"):
        restore(disk, "/backup", "/again")
    disk.remove("/backup/backup.json")
    with pytest.raises(BackupRefused):
        restore(disk, "/backup", "/again")
    assert disk.list("/again") == []


def test_a_backup_of_a_newer_format_is_refused() -> None:
    disk = Disk()
    filled(disk, batches=1)
    copied(disk)
    manifest = disk.open("/backup/backup.json")
    manifest.write(0, [manifest.read(0, 1 << 20).replace(b'"v":1', b'"v":2')])
    with pytest.raises(UnknownFormat):
        check(disk, "/backup")


def test_nothing_is_ever_written_over() -> None:
    disk = Disk()
    filled(disk, batches=1)
    copied(disk)
    with pytest.raises(BackupRefused):
        copied(disk)
    with pytest.raises(BackupRefused):
        restore(disk, "/backup", "/data")
    with pytest.raises(BackupRefused):
        backup(disk, "/nothing", "/elsewhere", NOW, wait=lambda: None)


JOURNAL = "/data/journal-00000000000000000001"


def test_a_journal_file_that_a_crash_left_without_a_header_does_not_end_the_backup() -> None:
    disk = Disk()
    filled(disk)[0].abandon()
    disk.remove(JOURNAL)
    disk.open(JOURNAL, create=True).write(0, [bytes(200)])
    disk.locks.clear()
    _, partition = filled(disk, batches=3)
    held = values(partition)
    copied(disk)
    assert values(restored(disk).partition(TOPIC, 0)) == held


@pytest.mark.parametrize("byte", [3, 70])
def test_a_journal_that_is_damaged_is_not_backed_up_in_silence(byte: int) -> None:
    disk = Disk()
    store, partition = filled(disk, batches=3)
    for _ in range(2):
        partition.append(batch([b"more"]), NOW)
        store.settle()
    file = disk.open(JOURNAL)
    file.write(byte, [bytes([file.read(byte, 1)[0] ^ 1])])
    with pytest.raises(CorruptLog, match="lack what was acknowledged"):
        copied(disk)
