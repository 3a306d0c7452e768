"""Bytes that changed by themselves: each one is noticed, nothing is cut in silence, and the rest is served."""

from __future__ import annotations

import pytest

from broker.log import batches
from broker.log.config import LogConfig
from broker.log.failures import CorruptLog, LogError, UnknownFormat
from broker.log.verify import verify
from broker.wire import batch as wire
from tests.fakes.disk import Disk, Folder, Node
from tests.unit.broker.log.logs import NOW, SMALL, TOPIC, batch, filled, open_store, values


def copied(folder: Folder) -> Folder:
    out = Folder()
    for name, node in folder.live.items():
        out.live[name] = copied(node) if isinstance(node, Folder) else Node(bytes(node.live))
    out.durable = dict(out.live)
    return out


def flipped(disk: Disk, path: str, position: int, bit: int) -> Disk:
    """The same disk with one bit of one byte changed."""
    out = Disk(copied(disk.root))
    byte = out.open(path).read(position, 1)[0]
    out.open(path).write(position, [bytes((byte ^ (1 << bit),))])
    return out


def lived(*, clean: bool, checkpoint: bool = False) -> Disk:
    """A store with plain, idempotent and transactional batches over two segments."""
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=1200, index_interval_bytes=200), batches=2)
    for number in range(8):
        partition.append(batch([b"i%d" % number] * 2, producer=1, epoch=0, sequence=number * 2), NOW + number)
        partition.append(batch([b"t"], producer=2, epoch=0, sequence=number, transactional=True), NOW + number)
        store.settle()
        partition.append_control(2, 0, commit=number % 2 == 0, coordinator_epoch=0, now=NOW)
        group = store.take_group()
        assert group is not None
        group.write()
        group.vouch()
        store.complete(group)
    if checkpoint:
        store.checkpoint(NOW)
    if clean:
        store.close(NOW)
    else:
        store.abandon()
    disk.locks.clear()
    return disk


def test_each_flipped_byte_of_a_segment_and_its_indexes_is_found_by_the_check() -> None:
    disk = lived(clean=True)
    assert list(verify(disk, "/data")) == []
    folder = "/data/plain-0"
    names = disk.list(folder)
    assert {name.partition(".")[2] for name in names} >= {
        "log",
        "index",
        "timeindex",
        "txnindex",
        "producers",
        "metadata",
    }
    missed = [
        (name, position)
        for name in names
        for position in range(disk.size_of(f"{folder}/{name}"))
        if not list(verify(flipped(disk, f"{folder}/{name}", position, position % 8), "/data"))
    ]
    assert missed == []


def test_a_flipped_byte_of_a_segment_is_never_served_as_if_it_were_right() -> None:
    disk = lived(clean=True)
    store = open_store(disk)
    right = values(store.partition(TOPIC, 0))
    store.abandon()
    disk.locks.clear()
    name = next(name for name in disk.list("/data/plain-0") if name.endswith(".log"))
    path = f"/data/plain-0/{name}"
    refused = 0
    for position in range(disk.size_of(path)):
        store = open_store(flipped(disk, path, position, position % 8))
        partition = store.partition(TOPIC, 0)
        partition.config = LogConfig(index_interval_bytes=200)
        try:
            found = values(partition)
        except (LogError, wire.CorruptBatch):
            refused += 1
            continue
        assert found == right, position  # outside the CRC: a leader epoch changes no record
    assert refused > disk.size_of(path) * 0.9


def test_each_flipped_byte_of_the_journal_is_noticed_and_nothing_vanishes_in_silence() -> None:
    disk = lived(clean=False)
    path = next(f"/data/{name}" for name in disk.list("/data") if name.startswith("journal-"))
    end = len(bytes(disk.open(path).read(0, 1 << 20)).rstrip(b"\0"))
    reference = open_store(Disk(copied(disk.root)))
    right = values(reference.partition(TOPIC, 0))
    silent = []
    for position in range(end):
        changed = flipped(disk, path, position, position % 8)
        try:
            store = open_store(changed)
        except UnknownFormat:
            continue
        if not store.recovery.damage and not store.recovery.cut_bytes:
            silent.append(position)
        elif store.recovery.damage:
            assert not store.health().ok
    assert silent == []
    assert right


def test_each_flipped_byte_of_the_checkpoint_is_noticed_and_the_data_is_still_served() -> None:
    disk = lived(clean=True)
    store = open_store(Disk(copied(disk.root)))
    right = values(store.partition(TOPIC, 0))
    for position in range(0, disk.size_of("/data/checkpoint"), 3):
        changed = flipped(disk, "/data/checkpoint", position, position % 8)
        try:
            store = open_store(changed)
        except UnknownFormat:
            continue
        assert store.recovery.damage
        assert values(store.partition(TOPIC, 0)) == right


def test_a_corrupt_batch_is_refused_and_the_rest_can_be_read() -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(index_interval_bytes=100), batches=30)
    store.close(NOW)
    path = "/data/plain-0/00000000000000000000.log"
    middle = list(batches.walk(disk.open(path).read(0, 1 << 20)))[15]
    store = open_store(flipped(disk, path, middle.position + 70, 0))
    partition = store.partition(TOPIC, 0)
    readable, refused = 0, []
    assert middle.base_offset == 45
    for offset in range(0, 90, 3):
        try:
            assert wire.split(partition.read(offset, 10).buffers[0])[0].base_offset == offset
            readable += 1
        except CorruptLog as error:
            refused.append(str(error))
    assert readable == 29
    assert len(refused) == 1
    assert "offsets 45 to 47" in refused[0]
    assert not store.health().ok
    assert store.health().writable
    partition.append(batch([b"goes on"]), NOW)
    store.settle()


def test_what_the_journal_lost_is_taken_from_the_segments_where_they_have_it() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=3)
    for _ in range(30):
        partition.append(batch([b"x" * 8000]), NOW)
        store.settle()
    store.flush()
    for segment in partition.segments:
        segment.flush()
    end = partition.high_watermark
    store.abandon()
    disk.locks.clear()
    journal = [name for name in disk.list("/data") if name.startswith("journal-")]
    store = open_store(flipped(disk, f"/data/{journal[0]}", 200, 3))
    assert store.recovery.damage
    partition = store.partition(TOPIC, 0)
    assert partition.high_watermark == end
    assert partition.read(0, 10).size
    assert partition.gaps == []


def test_lost_records_are_a_gap_that_reads_refuse_and_appends_go_on_behind_it() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=20)
    for number in range(20):
        partition.append(batch([b"w%d" % number]), NOW)
        store.settle()
    store.abandon()
    disk.locks.clear()
    journal = next(name for name in disk.list("/data") if name.startswith("journal-"))
    broken = flipped(disk, f"/data/{journal}", 1500, 3)
    for node in ("00000000000000000000.log",):
        broken.remove(f"/data/plain-0/{node}")
    store = open_store(broken)
    assert store.recovery.damage
    partition = store.partition(TOPIC, 0) if list(store.partitions()) else None
    if partition is None:  # the damaged frame was the one that made the partition
        return
    assert partition.high_watermark == 80
    for gap in partition.gaps:
        with pytest.raises(CorruptLog):
            partition.read(gap.start, 100)
        if gap.end < 80:
            assert partition.read(gap.end, 100).size
    assert partition.append(batch([b"on"]), NOW).base_offset == 80
    store.close(NOW)
    again = open_store(broken).partition(TOPIC, 0)
    assert again.gaps == partition.gaps


def test_a_checkpointed_segment_before_the_logs_start_may_be_gone() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=3)
    partition.delete_records_before(9)
    store.settle()
    store.checkpoint(NOW)  # the word of the start is in it, and in the journal no more
    partition.stage_roll()
    partition.append(batch([b"after"]), NOW)
    store.settle()
    for _ in range(3):  # the first of them removes the file that the checkpoint names
        store.abandon()
        disk.locks.clear()
        store = open_store(disk)
        assert store.recovery.damage == ()
        assert values(store.partition(TOPIC, 0)) == [b"after"]
    assert "00000000000000000000.log" not in disk.list("/data/plain-0")


@pytest.mark.parametrize("lost", ["segment", "folder"])
def test_a_lost_segment_is_told_of_although_the_logs_start_moved_within_it(lost: str) -> None:
    disk = Disk()
    store, partition = filled(disk, batches=3)
    store.checkpoint(NOW)
    partition.delete_records_before(6)
    store.settle()
    store.abandon()
    disk.locks.clear()
    for name in disk.list("/data/plain-0"):
        if lost == "folder" or name.endswith(".log"):
            disk.remove(f"/data/plain-0/{name}")
    if lost == "folder":
        disk.remove_folder("/data/plain-0")
    assert any("is gone" in what for what in open_store(disk).recovery.damage)


@pytest.mark.parametrize("version", [0, 2, 9])
def test_files_of_an_unknown_format_are_refused_not_guessed_at(version: int) -> None:
    disk = lived(clean=False)
    path = next(f"/data/{name}" for name in disk.list("/data") if name.startswith("journal-"))
    disk.open(path).write(8, [version.to_bytes(2, "big")])
    with pytest.raises(UnknownFormat, match="journal has format"):
        open_store(disk)
    disk = lived(clean=True)
    content = disk.open("/data/checkpoint").read(0, 1 << 20)
    disk.open("/data/checkpoint").write(0, [content.replace(b"CHECKPOINT 1", b"CHECKPOINT %d" % version)])
    with pytest.raises(UnknownFormat, match="checkpoint has format"):
        open_store(disk, SMALL)
