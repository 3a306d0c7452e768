"""What a partition promises: offsets, reads, sequences, transactions, times, epochs, retention, compaction."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.log.config import DAY, InvalidLogConfig, LogConfig
from broker.log.failures import (
    DuplicateSequence,
    InvalidBatch,
    InvalidProducerEpoch,
    InvalidTimestamp,
    InvalidTxnState,
    OffsetOutOfRange,
    OutOfOrderSequence,
    PartitionExists,
    TransactionCoordinatorFenced,
    UnknownPartition,
)
from broker.log.partition import Partition
from broker.log.store import Store
from broker.wire import batch as wire
from tests.fakes.disk import Disk
from tests.unit.broker.log.logs import NOW, TOPIC, batch, filled, open_store, values


def reopened(disk: Disk, store: Store, *, clean: bool) -> tuple[Store, Partition]:
    if clean:
        store.close(NOW)
    else:
        store.abandon()
    disk.locks.clear()
    again = open_store(disk)
    return again, again.partition(TOPIC, 0)


def found(partition: Partition, offset: int, size: int = 1 << 20, *, committed: bool = False) -> list[tuple[int, int]]:
    slice_ = partition.read(offset, size, committed=committed)
    assert slice_.size == sum(map(len, slice_.buffers))
    return [(one.base_offset, one.last_offset) for buffer in slice_.buffers for one in wire.split(buffer)]


@pytest.mark.parametrize("where", ["memory", "file", "clean restart", "crash"])
@pytest.mark.parametrize("segment_bytes", [1 << 30, 2000])
def test_a_read_begins_with_the_whole_batch_that_holds_the_offset(where: str, segment_bytes: int) -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=segment_bytes), batches=100)
    if where == "file":
        store.checkpoint(NOW)
    elif where != "memory":
        store, partition = reopened(disk, store, clean=where == "clean restart")
    for offset in range(300):
        batches = found(partition, offset, 500)
        assert batches[0][0] <= offset <= batches[0][1]
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(batches))
    assert found(partition, 300) == []
    assert values(partition) == [b"v%d" % number for number in range(100) for _ in range(3)]


def test_a_batch_larger_than_asked_for_comes_whole_or_not_at_all() -> None:
    _, partition = filled(Disk(), batches=2)
    assert found(partition, 0, 10) == [(0, 2)]
    assert partition.read(0, 10, at_least_one=False).size == 0


def test_reads_outside_the_log_are_refused() -> None:
    _, partition = filled(Disk(), batches=2)
    for offset in (-1, 7):
        with pytest.raises(OffsetOutOfRange):
            partition.read(offset, 100)


def test_what_is_staged_is_not_read() -> None:
    store, partition = filled(Disk(), batches=1)
    appended = partition.append(batch([b"new"]), NOW)
    assert (appended.base_offset, partition.log_end_offset, partition.high_watermark) == (3, 4, 3)
    assert found(partition, 3) == []
    store.settle()
    assert found(partition, 3) == [(3, 3)]


@pytest.mark.parametrize("restart", [None, True, False])
def test_a_producers_last_five_batches_are_known_again(restart: bool | None) -> None:
    disk = Disk()
    store, partition = filled(disk)
    for number in range(6):
        partition.append(batch([b"x", b"y"], producer=1, epoch=0, sequence=number * 2), NOW)
    store.settle()
    if restart is not None:
        store, partition = reopened(disk, store, clean=restart)
    for number in range(1, 6):
        again = partition.append(batch([b"x", b"y"], producer=1, epoch=0, sequence=number * 2), NOW)
        assert (again.duplicate, again.base_offset, again.last_offset) == (True, number * 2, number * 2 + 1)
    with pytest.raises(DuplicateSequence):
        partition.append(batch([b"x", b"y"], producer=1, epoch=0, sequence=0), NOW)
    assert partition.log_end_offset == 12


def test_a_gap_in_the_sequence_is_refused() -> None:
    _, partition = filled(Disk())
    partition.append(batch([b"x"], producer=1, epoch=0, sequence=0), NOW)
    with pytest.raises(OutOfOrderSequence):
        partition.append(batch([b"x"], producer=1, epoch=0, sequence=2), NOW)
    with pytest.raises(OutOfOrderSequence):
        partition.append(batch([b"x"], producer=1, epoch=1, sequence=2), NOW)
    partition.append(batch([b"x"], producer=1, epoch=1, sequence=0), NOW)
    with pytest.raises(InvalidProducerEpoch):
        partition.append(batch([b"x"], producer=1, epoch=0, sequence=1), NOW)


def test_a_sequence_wraps_around() -> None:
    _, partition = filled(Disk())
    partition.append(batch([b"x", b"y"], producer=1, epoch=0, sequence=(1 << 31) - 1), NOW)
    assert partition.append(batch([b"x"], producer=1, epoch=0, sequence=1), NOW).base_offset == 2


def test_silent_producers_are_forgotten_but_not_in_mid_transaction() -> None:
    store, partition = filled(Disk())
    partition.append(batch([b"x"], producer=1, epoch=0, sequence=0), NOW)
    partition.append(batch([b"x"], producer=2, epoch=0, sequence=0, transactional=True), NOW)
    store.settle()
    store.tick(NOW + 2 * DAY)
    assert [view.producer_id for view in partition.producers()] == [2]


def ended(store: Store, partition: Partition, producer: int, *, commit: bool, coordinator: int = 0) -> int:
    appended = partition.append_control(producer, 0, commit=commit, coordinator_epoch=coordinator, now=NOW)
    store.settle()
    return appended.base_offset


@pytest.mark.parametrize("restart", [None, True, False])
def test_read_committed_stops_at_the_first_open_transaction_and_tells_the_aborted(restart: bool | None) -> None:
    disk = Disk()
    store, partition = filled(disk, batches=1)
    partition.append(batch([b"a", b"b"], producer=1, epoch=0, sequence=0, transactional=True), NOW)  # 3, 4
    partition.append(batch([b"c"], producer=2, epoch=0, sequence=0, transactional=True), NOW)  # 5
    partition.append(batch([b"d"]), NOW)  # 6
    store.settle()
    assert partition.last_stable_offset == 3
    assert partition.has_open_transaction(1)
    ended(store, partition, 1, commit=False)  # 7
    if restart is not None:
        store, partition = reopened(disk, store, clean=restart)
    assert partition.last_stable_offset == 5
    slice_ = partition.read(0, 1 << 20, committed=True)
    assert slice_.aborted is not None
    assert [(one.producer_id, one.first_offset) for one in slice_.aborted] == [(1, 3)]
    assert found(partition, 0, committed=True) == [(0, 2), (3, 4)]
    ended(store, partition, 2, commit=True)  # 8
    assert partition.last_stable_offset == 9
    assert partition.read(5, 100, committed=True).aborted is not None
    view = {one.producer_id: one for one in partition.producers()}
    assert view[1].transaction_start_offset == -1
    assert not partition.has_open_transaction(2)


def test_a_marker_without_a_transaction_is_harmless() -> None:
    store, partition = filled(Disk())
    assert ended(store, partition, 9, commit=False) == 0
    assert ended(store, partition, 9, commit=False) == 1
    assert partition.last_stable_offset == 2
    assert partition.read(0, 100, committed=True).aborted == []


def test_a_marker_of_an_older_coordinator_or_producer_is_refused() -> None:
    store, partition = filled(Disk())
    ended(store, partition, 9, commit=False, coordinator=3)
    with pytest.raises(TransactionCoordinatorFenced):
        partition.append_control(9, 0, commit=True, coordinator_epoch=2, now=NOW)
    partition.append(batch([b"x"], producer=9, epoch=1, sequence=0, transactional=True), NOW)
    with pytest.raises(InvalidProducerEpoch):
        partition.append_control(9, 0, commit=True, coordinator_epoch=3, now=NOW)
    with pytest.raises(InvalidTxnState):
        partition.append(batch([b"x"], producer=9, epoch=1, sequence=1), NOW)


def test_a_damaged_transaction_index_is_worked_out_again() -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=300))
    for number in range(4):
        partition.append(batch([b"a"], producer=1, epoch=0, sequence=number, transactional=True), NOW)
        ended(store, partition, 1, commit=number % 2 == 0)
    before = list(partition.aborted_transactions())
    assert len(before) == 2
    store.close(NOW)
    for name in disk.list("/data/plain-0"):
        if name.endswith(".txnindex"):
            disk.open(f"/data/plain-0/{name}").write(0, [b"\xff"])
    assert list(open_store(disk).partition(TOPIC, 0).aborted_transactions()) == before


def test_the_brokers_clock_stamps_where_the_topic_says_so() -> None:
    store, partition = filled(Disk(), config=LogConfig(message_timestamp_type="LogAppendTime"))
    appended = partition.append(batch([b"x"], timestamps=[5]), NOW + 7)
    store.settle()
    assert appended.append_time == NOW + 7
    one = wire.split(partition.read(0, 1000).buffers[0])[0]
    assert wire.verify(one)
    assert one.log_append_time
    assert [record.timestamp for record in wire.records(one)] == [NOW + 7]


def test_timestamps_out_of_bounds_are_refused() -> None:
    config = LogConfig(message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=1000)
    _, partition = filled(Disk(), config=config)
    for timestamp in (NOW - 1001, NOW + 1001):
        with pytest.raises(InvalidTimestamp):
            partition.append(batch([b"x"], timestamps=[timestamp]), NOW)
    partition.append(batch([b"x"], timestamps=[NOW - 1000]), NOW)


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=4), min_size=1, max_size=40),
    asked=st.integers(0, 61),
    start=st.integers(0, 20),
    clean=st.booleans(),
)
def test_a_lookup_by_time_finds_the_first_record_at_or_after_it(
    times: list[list[int]], asked: int, start: int, clean: bool
) -> None:
    disk = Disk()
    config = LogConfig(segment_bytes=900, index_interval_bytes=200, message_timestamp_before_max_ms=1 << 62)
    store, partition = filled(disk, config=config)
    flat = [time for group in times for time in group]
    for group in times:
        partition.append(batch([b"x" * 30] * len(group), timestamps=group), NOW)
    store.settle()
    start = min(start, len(flat) - 1)
    partition.delete_records_before(start)
    store.settle()
    if clean:
        store, partition = reopened(disk, store, clean=True)
    expected = next((slot for slot, time in enumerate(flat) if slot >= start and time >= asked), None)
    hit = partition.offset_for_time(asked)
    assert (hit.offset if hit else None) == expected
    if not start:
        newest = partition.offset_of_max_timestamp()
        assert newest is not None
        assert newest.timestamp == max(flat)
        assert newest.offset == flat.index(max(flat))


def test_the_leader_epoch_rises_with_an_unclean_restart_and_tells_where_it_ended() -> None:
    disk = Disk()
    store, partition = filled(disk, batches=2)
    assert (partition.leader_epoch, partition.end_offset_for_epoch(0)) == (0, (0, 6))
    store, partition = reopened(disk, store, clean=True)
    assert partition.leader_epoch == 0
    partition.append(batch([b"x"]), NOW)
    store.settle()
    store, partition = reopened(disk, store, clean=False)
    assert partition.leader_epoch == 1
    partition.append(batch([b"y"]), NOW)
    store.settle()
    assert partition.end_offset_for_epoch(0) == (0, 7)
    assert partition.end_offset_for_epoch(1) == (1, 8)
    assert partition.end_offset_for_epoch(2) == (-1, -1)
    assert (partition.epoch_of(6), partition.epoch_of(7)) == (0, 1)
    store, partition = reopened(disk, store, clean=False)
    assert partition.epochs == [(0, 0), (1, 7), (2, 8)]


def test_the_start_moves_and_segments_before_it_go() -> None:
    disk = Disk()
    store, partition = filled(disk, config=LogConfig(segment_bytes=400), batches=20)
    store.checkpoint(NOW)
    before = len(disk.list("/data/plain-0"))
    partition.delete_records_before(31)
    assert partition.log_start_offset == 0
    store.settle()
    assert partition.log_start_offset == 31
    assert found(partition, 31)[0] == (30, 32)
    assert len(disk.list("/data/plain-0")) < before
    with pytest.raises(OffsetOutOfRange):
        partition.read(30, 100)
    with pytest.raises(OffsetOutOfRange):
        partition.delete_records_before(61)
    partition.delete_records_before(-1)
    store.settle()
    store, partition = reopened(disk, store, clean=False)
    assert (partition.log_start_offset, partition.high_watermark) == (60, 60)


def upkeep(store: Store, now: int = NOW) -> None:
    for _ in store.maintain(now):
        pass
    store.settle()
    for _ in store.maintain(now):
        pass


def test_retention_by_size_keeps_whole_segments_up_to_it() -> None:
    store, partition = filled(Disk(), config=LogConfig(segment_bytes=400, retention_bytes=1000), batches=30)
    upkeep(store)
    assert 1000 <= partition.size < 1800
    assert values(partition)[-1] == b"v29"


def test_retention_by_time_takes_the_last_segment_too() -> None:
    store, partition = filled(Disk(), config=LogConfig(segment_bytes=400, retention_ms=1000), batches=5)
    upkeep(store, NOW + 1000)
    assert partition.log_start_offset == 0
    upkeep(store, NOW + 1001)
    assert (partition.log_start_offset, partition.log_end_offset, partition.size) == (15, 15, 0)
    partition.append(batch([b"next"]), NOW + 1001)
    store.settle()
    assert values(partition) == [b"next"]


def test_a_new_segment_begins_when_records_are_older_than_segment_ms() -> None:
    store, partition = filled(Disk(), config=LogConfig(segment_ms=1000))
    for time in (NOW, NOW + 1000, NOW + 1001, NOW + 1500):
        partition.append(batch([b"x"], timestamps=[time]), NOW)
    store.settle()
    assert [segment.base for segment in partition.segments] == [0, 2]


COMPACT = LogConfig(cleanup_policy=frozenset(("compact",)), segment_bytes=400, delete_retention_ms=5000)


def compacted(disk: Disk, history: list[tuple[bytes, bytes | None]]) -> tuple[Store, Partition]:
    store, partition = filled(disk, config=COMPACT)
    for key, value in history:
        partition.append(batch([value], keys=[key]), NOW)
    store.settle()
    store.checkpoint(NOW)
    return store, partition


def kept(partition: Partition) -> dict[int, tuple[bytes | None, bytes | None]]:
    slices = []
    offset = partition.log_start_offset
    while offset < partition.high_watermark:
        batches = [one for buffer in partition.read(offset, 1 << 20).buffers for one in wire.split(buffer)]
        slices += [record for one in batches for record in wire.records(one)]
        offset = batches[-1].last_offset + 1
    return {record.offset: (record.key, record.value) for record in slices}


def test_compaction_keeps_the_newest_of_each_key_at_its_offset() -> None:
    disk = Disk()
    history = [(b"k%d" % (number % 3), b"v%d" % number) for number in range(40)]
    store, partition = compacted(disk, history)
    closed = partition.segments[-1].base
    upkeep(store)
    held = kept(partition)
    newest = {key: offset for offset, (key, _) in enumerate(history) if offset < closed}
    assert {offset for offset in held if offset < closed} == set(newest.values())
    assert all(held[offset] == history[offset] for offset in held)
    for clean in (False, True):
        store, partition = reopened(disk, store, clean=clean)
        assert kept(partition) == held


def test_small_segments_are_merged_when_they_are_cleaned_again() -> None:
    disk = Disk()
    history = [(b"once%d" % (number // 9) if number % 9 == 0 else b"often", b"v%d" % number) for number in range(90)]
    store, partition = compacted(disk, history)
    upkeep(store)
    before = len(partition.segments)
    for number in range(20):
        partition.append(batch([b"w%d" % number], keys=[b"often"]), NOW)
    store.settle()
    store.checkpoint(NOW)
    upkeep(store)
    held = kept(partition)
    assert len(partition.segments) < before
    assert {key for key, _ in held.values()} == {b"often", *(b"once%d" % number for number in range(10))}
    store, partition = reopened(disk, store, clean=False)
    assert kept(partition) == held


def test_a_tombstone_goes_after_its_retention_only() -> None:
    disk = Disk()
    store, partition = compacted(disk, [(b"a", b"1"), (b"a", None), *[(b"b", b"%d" % n) for n in range(20)]])
    upkeep(store)
    assert kept(partition)[1] == (b"a", None)
    for round_ in range(2):
        for number in range(20):
            partition.append(batch([b"c%d" % number], keys=[b"c"]), NOW)
        store.settle()
        store.checkpoint(NOW)
        upkeep(store, NOW + 4999 if round_ == 0 else NOW + 5001)
        assert (1 in kept(partition)) == (round_ == 0)


def test_records_of_aborted_transactions_are_not_the_newest() -> None:
    disk = Disk()
    store, partition = compacted(disk, [(b"a", b"good")])
    partition.append(batch([b"bad"], keys=[b"a"], producer=1, epoch=0, sequence=0, transactional=True), NOW)
    ended(store, partition, 1, commit=False)
    for number in range(20):
        partition.append(batch([b"%d" % number], keys=[b"b"]), NOW)
    store.settle()
    store.checkpoint(NOW)
    upkeep(store)
    assert kept(partition)[0] == (b"a", b"good")
    assert 1 not in kept(partition)


def test_compaction_waits_for_the_lag_and_the_open_transaction() -> None:
    disk = Disk()
    store, partition = compacted(disk, [(b"k", b"%d" % number) for number in range(30)])
    partition.config = LogConfig(cleanup_policy=frozenset(("compact",)), min_compaction_lag_ms=1000)
    size = partition.size
    upkeep(store, NOW + 999)
    assert partition.size == size
    upkeep(store, NOW + 1000)
    assert partition.size < size


def test_a_compacted_topic_takes_no_record_without_a_key() -> None:
    _, partition = filled(Disk(), config=COMPACT)
    with pytest.raises(InvalidBatch):
        partition.append(batch([b"x"], keys=[None]), NOW)


@pytest.mark.parametrize("clean", [True, False])
def test_a_deleted_partition_stays_deleted_and_its_name_can_be_used_again(clean: bool) -> None:
    disk = Disk()
    store, partition = filled(disk, batches=3)
    with pytest.raises(PartitionExists):
        store.create("plain", TOPIC, 0, LogConfig())
    store.delete(TOPIC, 0)
    with pytest.raises(UnknownPartition):
        partition.append(batch([b"x"]), NOW)
    other = store.create("plain", TOPIC[::-1], 0, LogConfig())
    other.append(batch([b"second life"]), NOW)
    store.settle()
    if clean:
        upkeep(store)
        store.close(NOW)
    else:
        store.abandon()
    disk.locks.clear()
    store = open_store(disk)
    with pytest.raises(UnknownPartition):
        store.partition(TOPIC, 0)
    assert values(store.partition(TOPIC[::-1], 0)) == [b"second life"]
    upkeep(store)
    assert not [name for name in disk.list("/data") if name.endswith(".deleted")]


def test_configuration_is_read_by_kafkas_names() -> None:
    config = LogConfig.parse(
        {
            "retention.ms": "-1",
            "cleanup.policy": "compact,delete",
            "segment.bytes": "1048576",
            "min.cleanable.dirty.ratio": "0.25",
            "message.timestamp.type": "LogAppendTime",
            "something.else": "x",
        }
    )
    assert (config.retention_ms, config.segment_bytes, config.min_cleanable_dirty_ratio) == (-1, 1 << 20, 0.25)
    assert config.compact
    assert config.delete
    assert config.log_append_time


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("segment.bytes", "3"),
        ("cleanup.policy", "burn"),
        ("min.cleanable.dirty.ratio", "2"),
        ("message.timestamp.type", "Never"),
    ],
)
def test_configuration_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidLogConfig, match=name):
        LogConfig.parse({name: value})
