"""RecordBatch v2, the unit that is produced, stored and fetched (KIP-98).

    0  base offset        int64   ┐ outside the CRC: a broker patches
    8  length             int32   │ (bytes after this field)
   12  leader epoch       int32   │ them without touching the rest
   16  magic              int8    │ always 2 here
   17  crc                uint32  ┘ CRC-32C over everything from 21 on
   21  attributes         int16   bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
   23  last offset delta  int32
   27  base timestamp     int64   ms
   35  max timestamp      int64   ms
   43  producer id        int64
   51  producer epoch     int16
   53  base sequence      int32
   57  record count       int32
   61  records

A `Batch` is a view: it holds the parsed header and a memoryview of the whole batch, never a copy.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct as Packer
from struct import error as packing_error
from typing import NamedTuple

from crc32c import crc32c

from broker.wire.codec import Buffer
from broker.wire.compression import Compression, DecompressionFailed, bound, compress, decompress
from broker.wire.record import Headers, MalformedRecord, Record, read, write, write_pairs
from broker.wire.varint import VarintTooLong

__all__ = [
    "HEADER_SIZE",
    "NO_PRODUCER_ID",
    "NO_SEQUENCE",
    "NO_TIMESTAMP",
    "Batch",
    "BatchTooLarge",
    "Compression",
    "CorruptBatch",
    "Headers",
    "InvalidRecord",
    "InvalidTimestamp",
    "Marker",
    "Record",
    "UnsupportedMagic",
    "build",
    "header",
    "keyed",
    "marker",
    "parse_marker",
    "patch",
    "placed",
    "records",
    "split",
    "validate",
    "verify",
]

HEADER_SIZE = 61
MAGIC = 2
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
NO_TIMESTAMP = -1
MAX_SEQUENCE = 0x7FFFFFFF
MIN_RECORD = 7  # bytes of a record with null key, null value and no headers

CODEC_BITS = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40

_SIZE_OFFSET = 8
_LENGTH_PREFIX = 12  # base offset and length: what `length` doesn't count
_CRC_OFFSET = 17
_CRC_START = 21
_ABORT, _COMMIT = 0, 1

_header = Packer(">qiibIhiqqqhii").unpack_from
_place = Packer(">qii")
_crc_part = Packer(">hiqqqhii").pack
_whole = Packer(">qiibI").pack
_marker_key = Packer(">hh")
_marker_value = Packer(">hi")


class CorruptBatch(ValueError):
    """Bytes that are no whole, undamaged RecordBatch v2 (CORRUPT_MESSAGE)."""


class UnsupportedMagic(CorruptBatch):
    """A message format older than v2 (UNSUPPORTED_FOR_MESSAGE_FORMAT)."""


class BatchTooLarge(ValueError):
    """A batch beyond `max.message.bytes` (MESSAGE_TOO_LARGE)."""


class InvalidRecord(ValueError):
    """A header no producer may send, such as a count that is not last offset delta + 1 (INVALID_RECORD)."""


class InvalidTimestamp(InvalidRecord):
    """A producer's batch that calls its timestamps those of the append (INVALID_TIMESTAMP)."""


class Batch:
    """Header fields of one batch and a view of all of its bytes (`data`). `size` counts the whole batch."""

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "count",
        "crc",
        "data",
        "last_offset_delta",
        "leader_epoch",
        "max_timestamp",
        "producer_epoch",
        "producer_id",
        "size",
    )
    base_offset: int
    leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    def __init__(self, data: memoryview, position: int = 0) -> None:
        """Read the header at `position` of `data`. Raises CorruptBatch, UnsupportedMagic."""
        try:
            (
                self.base_offset,
                length,
                self.leader_epoch,
                magic,
                self.crc,
                self.attributes,
                self.last_offset_delta,
                self.base_timestamp,
                self.max_timestamp,
                self.producer_id,
                self.producer_epoch,
                self.base_sequence,
                self.count,
            ) = _header(data, position)
        except packing_error:
            if len(data) - position > 16 and data[position + 16] in (0, 1):
                raise UnsupportedMagic(f"message format {data[position + 16]}") from None
            raise CorruptBatch(f"{len(data) - position} bytes, a header takes {HEADER_SIZE}") from None
        if magic != MAGIC:
            if magic in (0, 1):
                raise UnsupportedMagic(f"message format {magic}")
            raise CorruptBatch(f"magic byte {magic}")
        self.size = size = length + _LENGTH_PREFIX
        if not HEADER_SIZE <= size <= len(data) - position:
            raise CorruptBatch(f"batch of {size} bytes where {len(data) - position} are left")
        self.data = data[position : position + size]

    def __repr__(self) -> str:
        return f"Batch({self.base_offset}..{self.last_offset}, {self.count} records, {self.size} bytes)"

    @property
    def last_offset(self) -> int:
        """Absolute offset of the last record (kept by compaction even when that record is gone)."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record, wrapping to 0 after 2^31 - 1; NO_SEQUENCE without a producer."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & MAX_SEQUENCE

    @property
    def compression(self) -> Compression:
        """Codec of the records; raises CorruptBatch for a number that isn't one."""
        try:
            return Compression(self.attributes & CODEC_BITS)
        except ValueError:
            raise CorruptBatch(f"compression codec {self.attributes & CODEC_BITS}") from None

    @property
    def log_append_time(self) -> bool:
        """Whether max_timestamp is the time of the append and holds for each record."""
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def transactional(self) -> bool:
        """Whether the batch is part of a transaction (markers included)."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def control(self) -> bool:
        """Whether this is a control batch: markers, never shown to applications."""
        return bool(self.attributes & CONTROL)

    @property
    def delete_horizon(self) -> int | None:
        """When compaction may drop the tombstones in it, ms (KIP-534); it stands in the base timestamp."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON else None


class Marker(NamedTuple):
    """A transaction's end as it stands in a control batch."""

    commit: bool
    coordinator_epoch: int
    producer_id: int
    producer_epoch: int
    timestamp: int


def split(data: Buffer) -> list[Batch]:
    """The whole batches in `data`, in order; a cut-off last one (as fetches deliver) is left out. No CRC check.

    Raises CorruptBatch for a header that can't be one (length, magic).
    """
    view = memoryview(data)
    batches: list[Batch] = []
    position, end = 0, len(view)
    while end - position >= HEADER_SIZE:
        size = int.from_bytes(view[position + _SIZE_OFFSET : position + _LENGTH_PREFIX], "big") + _LENGTH_PREFIX
        if end - position < size <= 1 << 31:
            break
        batches.append(Batch(view, position))
        position += size
    return batches


def validate(data: Buffer, max_bytes: int) -> list[Batch]:
    """The batches of a produce request, each checked: magic, length, CRC, header; nothing may be left over.

    Raises CorruptBatch, UnsupportedMagic, BatchTooLarge (a batch beyond `max_bytes`), InvalidRecord,
    InvalidTimestamp. Records aren't looked at: they are as the producer's CRC says. Since Produce v3 a partition
    takes exactly one batch, which is for the caller to insist on.
    """
    view = memoryview(data)
    batches: list[Batch] = []
    position, end = 0, len(view)
    while position < end:
        batch = Batch(view, position)
        size = batch.size
        if size > max_bytes:
            raise BatchTooLarge(f"batch of {size} bytes, allowed are {max_bytes}")
        if crc32c(batch.data[_CRC_START:]) != batch.crc:
            raise CorruptBatch("the CRC doesn't fit")
        if batch.count != batch.last_offset_delta + 1 or batch.count < 1:
            raise InvalidRecord(f"{batch.count} records with a last offset delta of {batch.last_offset_delta}")
        if batch.count * MIN_RECORD > size - HEADER_SIZE:
            _check_count(batch)
        if batch.attributes or batch.producer_id != NO_PRODUCER_ID:
            _check_producer(batch)
        batches.append(batch)
        position += size
    return batches


def _check_count(batch: Batch) -> None:
    """A count the bytes can't hold, even decompressed: believing it would burn offsets by the billion."""
    try:
        most = bound(batch.compression, batch.data[HEADER_SIZE:])
    except DecompressionFailed as error:
        raise CorruptBatch(str(error)) from None
    if batch.count * MIN_RECORD > most:
        raise InvalidRecord(f"{batch.count} records in {batch.size - HEADER_SIZE} bytes")


def _check_producer(batch: Batch) -> None:
    """What a producer's header may not say (Kafka's LogValidator)."""
    if batch.attributes & CODEC_BITS > Compression.ZSTD:
        raise CorruptBatch(f"compression codec {batch.attributes & CODEC_BITS}")
    if batch.control:
        raise InvalidRecord("clients may not write control records")
    if batch.log_append_time:
        raise InvalidTimestamp("producers may not set the timestamp type to LogAppendTime")
    if batch.producer_id != NO_PRODUCER_ID and batch.base_sequence < 0:
        raise InvalidRecord(f"sequence number {batch.base_sequence} of producer {batch.producer_id}")
    if batch.transactional and batch.producer_id == NO_PRODUCER_ID:
        raise InvalidRecord("transactional batch without a producer id")


def verify(batch: Batch) -> bool:
    """Whether the CRC fits the bytes (recovery, checks)."""
    return bool(crc32c(batch.data[_CRC_START:]) == batch.crc)


def placed(batch: Batch, base_offset: int, leader_epoch: int, append_time: int | None = None) -> bytes:
    """The 61 header bytes of this batch at its place in a log; `batch.data[HEADER_SIZE:]` follows unchanged.

    With append_time (ms) the batch becomes a LogAppendTime one, which takes a new CRC over all of it.
    """
    if append_time is None:
        place = _place.pack(base_offset, batch.size - _LENGTH_PREFIX, leader_epoch)
        return place + batch.data[_place.size : HEADER_SIZE]
    part = _crc_part(
        batch.attributes | LOG_APPEND_TIME,
        batch.last_offset_delta,
        batch.base_timestamp,
        append_time,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.count,
    )
    crc = crc32c(batch.data[HEADER_SIZE:], crc32c(part))
    return _whole(base_offset, batch.size - _LENGTH_PREFIX, leader_epoch, MAGIC, crc) + part


def patch(buffer: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Write base offset and leader epoch into a batch that starts at a *writable* buffer's start."""
    length = int.from_bytes(buffer[_SIZE_OFFSET:_LENGTH_PREFIX], "big")
    _place.pack_into(buffer, 0, base_offset, length, leader_epoch)


def records(batch: Batch, max_bytes: int = 128 << 20) -> Iterator[Record]:
    """The records, lazily; decompression never makes more than `max_bytes`. Raises CorruptBatch."""
    try:
        body = decompress(batch.compression, batch.data[HEADER_SIZE:], max_bytes)
        append_time = batch.max_timestamp if batch.log_append_time else None
        yield from read(body, batch.count, batch.base_offset, batch.base_timestamp, append_time)
    except (DecompressionFailed, MalformedRecord, VarintTooLong) as error:
        raise CorruptBatch(str(error)) from None


def build(
    records: Iterable[Record],
    *,
    base_offset: int | None = None,
    last_offset: int | None = None,
    leader_epoch: int = -1,
    compression: Compression = Compression.NONE,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
    append_time: int | None = None,
    delete_horizon: int | None = None,
) -> bytes:
    """A batch of these records; offsets are theirs, from `base_offset` (default: the first record's) on.

    last_offset keeps a batch's range through compaction; for no records both are needed. delete_horizon (ms) marks
    tombstones for removal. base_sequence is that of base_offset.
    """
    kept = list(records)
    if base_offset is None:
        base_offset = kept[0].offset
    if last_offset is None:
        last_offset = kept[-1].offset
    timestamps = [record.timestamp for record in kept]
    base_timestamp = timestamps[0] if timestamps else NO_TIMESTAMP
    max_timestamp = max(timestamps, default=NO_TIMESTAMP)
    attributes = int(compression) | (TRANSACTIONAL if transactional else 0) | (CONTROL if control else 0)
    if append_time is not None:
        attributes |= LOG_APPEND_TIME
        max_timestamp = append_time
    if delete_horizon is not None:
        attributes |= DELETE_HORIZON
        base_timestamp = delete_horizon
    body = write(kept, base_offset, base_timestamp)
    if compression:
        body = compress(compression, body)
    part = _crc_part(
        attributes,
        last_offset - base_offset,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(kept),
    )
    return _sealed(base_offset, leader_epoch, part, body)


def keyed(pairs: Sequence[tuple[bytes | None, bytes | None]], timestamp: int) -> bytes:
    """A plain batch at offset 0 of (key, value) pairs with one timestamp: the quick way for internal logs."""
    count = len(pairs)
    part = _crc_part(0, count - 1, timestamp, timestamp, NO_PRODUCER_ID, -1, NO_SEQUENCE, count)
    return _sealed(0, -1, part, write_pairs(pairs))


def header(
    body: bytes,
    count: int,
    *,
    base_timestamp: int,
    max_timestamp: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
) -> bytes:
    """The 61 bytes before a producer's `count` uncompressed records, for a batch at offset 0."""
    part = _crc_part(0, count - 1, base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count)
    crc = crc32c(body, crc32c(part))
    return _whole(0, HEADER_SIZE - _LENGTH_PREFIX + len(body), -1, MAGIC, crc) + part


def marker(producer_id: int, producer_epoch: int, *, commit: bool, coordinator_epoch: int, timestamp: int) -> bytes:
    """A control batch that ends a transaction, at offset 0."""
    key = _marker_key.pack(0, _COMMIT if commit else _ABORT)
    return build(
        [Record(0, timestamp, key, _marker_value.pack(0, coordinator_epoch))],
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=True,
        control=True,
    )


def parse_marker(batch: Batch) -> Marker:
    """The marker in a control batch. Raises CorruptBatch for a control record of another kind."""
    first = next(records(batch), None) if batch.control else None
    if first is None or first.key is None or first.value is None:
        raise CorruptBatch("no transaction marker")
    try:
        _, kind = _marker_key.unpack_from(first.key)
        _, coordinator_epoch = _marker_value.unpack_from(first.value)
    except packing_error as error:
        raise CorruptBatch(f"transaction marker: {error}") from None
    if kind not in (_ABORT, _COMMIT):
        raise CorruptBatch(f"control record of kind {kind}")
    return Marker(kind == _COMMIT, coordinator_epoch, batch.producer_id, batch.producer_epoch, first.timestamp)


def _sealed(base_offset: int, leader_epoch: int, part: bytes, body: bytes) -> bytes:
    """Header, CRC and body put together."""
    size = HEADER_SIZE - _LENGTH_PREFIX + len(body)
    crc = crc32c(body, crc32c(part))
    return b"".join((_whole(base_offset, size, leader_epoch, MAGIC, crc), part, body))
