import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import batch
from broker.wire.batch import Batch, Compression, Marker, Record
from tests.unit.broker.wire.vectors import MADE_BY_JAVA

THREE = [
    Record(40, 1_700_000_000_000, b"k1", b"value one", [("h", b"x"), ("n", None)]),
    Record(41, 1_700_000_000_005, None, b"value two"),
    Record(42, 1_700_000_000_003, b"k3", None),
]
ONE = batch.build([Record(0, 5, b"key", b"value")])


def java(name: str) -> bytes:
    return bytes.fromhex("".join(MADE_BY_JAVA[name]))


def only(data: bytes | bytearray) -> Batch:
    (found,) = batch.split(data)
    return found


def listed(found: Batch) -> list[Record]:
    return [record._replace(headers=list(record.headers)) for record in batch.records(found)]


def damaged(data: bytes, at: int, value: bytes) -> bytes:
    """The batch with some bytes replaced and a CRC that fits again."""
    changed = bytearray(data)
    changed[at : at + len(value)] = value
    changed[17:21] = crc32c(bytes(changed[21:])).to_bytes(4, "big")
    return bytes(changed)


@pytest.mark.parametrize("compression", list(Compression))
def test_a_batch_made_by_java_reads_as_what_went_in(compression: Compression) -> None:
    found = only(java(compression.name.lower()))
    assert batch.verify(found)
    assert (found.base_offset, found.last_offset, found.count, found.leader_epoch) == (40, 42, 3, 5)
    assert (found.producer_id, found.producer_epoch, found.base_sequence, found.last_sequence) == (777, 3, 12, 14)
    assert found.compression is compression
    assert (found.base_timestamp, found.max_timestamp) == (1_700_000_000_000, 1_700_000_000_005)
    assert not (found.transactional or found.control or found.log_append_time)
    assert listed(found) == [record._replace(headers=list(record.headers)) for record in THREE]


def test_an_uncompressed_batch_is_built_byte_for_byte_as_java_does() -> None:
    built = batch.build(THREE, leader_epoch=5, producer_id=777, producer_epoch=3, base_sequence=12)
    assert built == java("none")


@pytest.mark.parametrize("kind", ["commit", "abort"])
def test_markers_are_byte_for_byte_javas(kind: str) -> None:
    made = batch.marker(777, 3, commit=kind == "commit", coordinator_epoch=8, timestamp=1_700_000_000_009)
    placed = batch.placed(only(made), 9, 4) + made[batch.HEADER_SIZE :]
    assert placed == java(kind)
    found = only(java(kind))
    assert found.control and found.transactional and found.last_sequence == batch.NO_SEQUENCE
    assert batch.parse_marker(found) == Marker(kind == "commit", 8, 777, 3, 1_700_000_000_009)


def test_append_time_is_every_records_time() -> None:
    found = only(java("append"))
    assert found.log_append_time
    assert {record.timestamp for record in batch.records(found)} == {1_700_000_000_099}


@pytest.mark.parametrize("compression", list(Compression))
def test_a_batch_becomes_a_log_append_time_one_as_java_would_make_it(compression: Compression) -> None:
    plain = only(batch.build(THREE, compression=compression))
    header = batch.placed(plain, 5, -1, append_time=1_700_000_000_099)
    stamped = only(header + plain.data[batch.HEADER_SIZE :])
    assert batch.verify(stamped)
    assert [record.timestamp for record in batch.records(stamped)] == [1_700_000_000_099] * 3
    if compression is Compression.NONE:
        assert stamped.data == java("append")


def test_placing_a_batch_leaves_its_crc_alone() -> None:
    found = only(java("zstd"))
    placed = only(batch.placed(found, 1 << 40, 9) + found.data[batch.HEADER_SIZE :])
    assert batch.verify(placed)
    assert (placed.base_offset, placed.last_offset, placed.leader_epoch) == (1 << 40, (1 << 40) + 2, 9)
    assert [record.offset for record in batch.records(placed)] == [1 << 40, (1 << 40) + 1, (1 << 40) + 2]


def test_a_writable_batch_is_patched_in_place() -> None:
    data = bytearray(ONE)
    batch.patch(data, 77, 3)
    found = only(data)
    assert batch.verify(found)
    assert (found.base_offset, found.leader_epoch) == (77, 3)


def test_a_batch_is_a_view_and_copies_nothing() -> None:
    data = bytearray(ONE + ONE)
    _, second = batch.split(data)
    assert second.data.obj is data
    assert len(second.data) == second.size == len(ONE)


def test_what_a_fetch_cut_off_is_left_out() -> None:
    for end in range(len(ONE)):
        assert len(batch.split(ONE + ONE[:end])) == 1


def test_several_batches_are_validated_one_by_one() -> None:
    assert [found.size for found in batch.validate(ONE + ONE, 1000)] == [len(ONE)] * 2


def test_every_truncation_is_refused() -> None:
    for end in range(1, len(ONE)):
        with pytest.raises(batch.CorruptBatch):
            batch.validate(ONE[:end], 1000)


@given(st.integers(16, len(ONE) - 1), st.integers(1, 255))
def test_every_changed_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(ONE)
    data[at] ^= change
    with pytest.raises((batch.CorruptBatch, batch.InvalidRecord)):
        batch.validate(data, 1000)


def test_old_message_formats_are_called_what_they_are() -> None:
    old = bytes(8) + b"\x00\x00\x00\x0e" + bytes(4) + b"\x01" + bytes(9)
    for data in (old, old + bytes(60), ONE[:16] + b"\x00" + ONE[17:]):
        with pytest.raises(batch.UnsupportedMagic):
            batch.validate(data, 1000)
    with pytest.raises(batch.CorruptBatch, match="magic byte 3"):
        batch.validate(ONE[:16] + b"\x03" + ONE[17:], 1000)


@pytest.mark.parametrize("length", [b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x30"])
def test_lengths_that_cannot_be_are_refused(length: bytes) -> None:
    with pytest.raises(batch.CorruptBatch, match="batch of"):
        batch.validate(ONE[:8] + length + ONE[12:], 1 << 40)


def test_a_batch_beyond_the_limit_is_too_large() -> None:
    assert batch.validate(ONE, len(ONE))
    with pytest.raises(batch.BatchTooLarge):
        batch.validate(ONE, len(ONE) - 1)


@pytest.mark.parametrize(
    ("at", "value", "error", "words"),
    [
        (57, b"\x00\x00\x00\x02", batch.InvalidRecord, "2 records"),
        (57, b"\x00\x00\x00\x00", batch.InvalidRecord, "0 records"),
        (23, b"\xff\xff\xff\xff", batch.InvalidRecord, "delta of -1"),
        (21, b"\x00\x05", batch.CorruptBatch, "codec 5"),
        (21, b"\x00\x08", batch.InvalidTimestamp, "LogAppendTime"),
        (21, b"\x00\x20", batch.InvalidRecord, "control"),
        (21, b"\x00\x10", batch.InvalidRecord, "without a producer id"),
        (43, bytes(8), batch.InvalidRecord, "sequence number"),
    ],
)
def test_headers_no_producer_may_send_are_refused(at: int, value: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        batch.validate(damaged(ONE, at, value), 1000)


@pytest.mark.parametrize("compression", list(Compression))
def test_a_forged_count_cannot_burn_offsets_by_the_billion(compression: Compression) -> None:
    data = batch.build([Record(0, 5, b"key", b"value")], compression=compression)
    forged = damaged(data, 23, b"\x7f\xff\xff\xfe")
    forged = damaged(forged, 57, b"\x7f\xff\xff\xff")
    with pytest.raises(batch.InvalidRecord, match="2147483647 records"):
        batch.validate(forged, 1000)


def test_sequence_numbers_wrap_to_zero() -> None:
    records = [Record(offset, 0, None, None) for offset in range(3)]
    built = batch.build(records, producer_id=1, producer_epoch=0, base_sequence=(1 << 31) - 2)
    assert only(built).last_sequence == 0


def test_compaction_keeps_offsets_range_and_horizon() -> None:
    kept = [Record(12, 900, b"a", b"1"), Record(17, 950, b"b", None)]
    found = only(batch.build(kept, base_offset=10, last_offset=20, delete_horizon=1_000))
    assert (found.base_offset, found.last_offset, found.count) == (10, 20, 2)
    assert found.delete_horizon == 1_000
    assert [record[:4] for record in batch.records(found)] == [record[:4] for record in kept]
    empty = only(batch.build([], base_offset=10, last_offset=20, producer_id=3, producer_epoch=1, base_sequence=4))
    assert (empty.last_offset, empty.count, list(batch.records(empty))) == (20, 0, [])


def test_pairs_make_the_batch_that_records_would() -> None:
    pairs = [(b"a", b"1"), (None, b"2"), (b"c", None)]
    same = [Record(offset, 99, key, value) for offset, (key, value) in enumerate(pairs)]
    assert batch.keyed(pairs, 99) == batch.build(same)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "end early"),
        (b"\x10\x00\x00\x00", "are left"),
        (b"\x00" * 8, "record of 0 bytes"),
        (b"\x01" + b"\x00" * 8, "record of -1 bytes"),
        (b"\x0c\x00\x00\x00\x10ab", "field of 8 bytes"),
        (b"\x0c\x00\x00\x00\x01\x01\x04", "headers"),
        (b"\x0e\x00\x00\x00\x01\x01\x02\x01", "headers"),
        (b"\x10\x00\x00\x00\x01\x01\x02\x01\x01", "without a name"),
        (b"\x12\x00\x00\x00\x01\x01\x02\x02\xff\x01", "header name"),
        (b"\x0e\x00\x00\x00\x01\x01\x00\x00", "off by 1"),
        (b"\x0c\x00\x00\x00\x01\x01\x00\x00", "after the last record"),
        (b"\xff" * 12, "variable-length"),
    ],
)
def test_records_that_cannot_be_are_refused(body: bytes, words: str) -> None:
    empty = batch.build([], base_offset=0, last_offset=0)
    data = bytearray(empty + body)
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    data[57:61] = b"\x00\x00\x00\x01"
    with pytest.raises(batch.CorruptBatch, match=words):
        list(batch.records(only(data)))


def test_control_records_that_are_no_markers_are_refused() -> None:
    other = batch.build([Record(0, 0, b"\x00\x00\x00\x02", bytes(6))], control=True)
    short = batch.build([Record(0, 0, b"\x00\x00\x00\x01", b"\x00")], control=True)
    null = batch.build([Record(0, 0, None, None)], control=True)
    for data in (other, short, null, ONE):
        with pytest.raises(batch.CorruptBatch):
            batch.parse_marker(only(data))
