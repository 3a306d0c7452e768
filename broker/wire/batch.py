"""RecordBatch v2, the unit that is produced, stored and fetched (KIP-98).

    0  base offset        int64   ┐ outside the CRC: a broker patches
    8  length             int32   │ (bytes after this field)
   12  leader epoch       int32   │ them without touching the rest
   16  magic              int8    │ always 2 here
   17  crc                uint32  ┘ CRC-32C over everything from 21 on
   21  attributes         int16   bits 0-2 compression, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
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
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from broker.wire.codec import Buffer

HEADER_SIZE = 61
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
NO_TIMESTAMP = -1

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class Compression(IntEnum):
    """Attributes bits 0-2."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class CorruptBatch(ValueError):
    """Bytes that are no whole, undamaged RecordBatch v2 (CORRUPT_MESSAGE)."""


class UnsupportedMagic(CorruptBatch):
    """A message format older than v2 (UNSUPPORTED_FOR_MESSAGE_FORMAT)."""


class BatchTooLarge(ValueError):
    """A batch beyond `max.message.bytes` (MESSAGE_TOO_LARGE)."""


class InvalidRecord(ValueError):
    """A header that contradicts itself, such as a count that is not last offset delta + 1 (INVALID_RECORD)."""


class Record(NamedTuple):
    """One record with its absolute offset; timestamp in ms (the batch's append time where the topic says so)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Batch:
    """Header fields of one batch and a view of all of its bytes (`data`)."""

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
    size: int  # bytes of the whole batch
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
    data: memoryview

    @property
    def last_offset(self) -> int:
        """Absolute offset of the last record (kept by compaction even when that record is gone)."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record, wrapping at 2^31 - 1 (KIP-98); NO_SEQUENCE without a producer."""
        raise NotImplementedError

    @property
    def compression(self) -> Compression:
        """Codec of the records."""
        return Compression(self.attributes & 7)

    @property
    def log_append_time(self) -> bool:
        """Whether max_timestamp is the time of the append and holds for each record."""
        return bool(self.attributes & 8)

    @property
    def transactional(self) -> bool:
        """Whether the batch is part of a transaction (markers included)."""
        return bool(self.attributes & 16)

    @property
    def control(self) -> bool:
        """Whether this is a control batch: markers, never shown to applications."""
        return bool(self.attributes & 32)


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
    raise NotImplementedError


def validate(data: Buffer, max_bytes: int) -> list[Batch]:
    """The batches of a produce request, each checked: magic, length, CRC, counts; nothing may be left over.

    Raises CorruptBatch, UnsupportedMagic, BatchTooLarge (a batch beyond `max_bytes`), InvalidRecord.
    """
    raise NotImplementedError


def verify(batch: Batch) -> bool:
    """Whether the CRC fits the bytes (recovery, checks)."""
    raise NotImplementedError


def placed(batch: Batch, base_offset: int, leader_epoch: int, append_time: int | None = None) -> bytes:
    """The 61 header bytes of this batch at its place in a log; `batch.data[HEADER_SIZE:]` follows unchanged.

    With append_time (ms) the batch becomes a LogAppendTime one, which takes a new CRC over all of it.
    """
    raise NotImplementedError


def patch(buffer: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Write base offset and leader epoch into a batch that starts at a *writable* buffer's start."""
    raise NotImplementedError


def records(batch: Batch, max_bytes: int = 128 << 20) -> Iterator[Record]:
    """The records, lazily; decompression never makes more than `max_bytes`. Raises CorruptBatch."""
    raise NotImplementedError


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
) -> bytes:
    """A batch of these records; offsets are theirs, from `base_offset` (default: the first record's) on.

    last_offset keeps a batch's range through compaction; base_offset and last_offset are needed for no records.
    """
    raise NotImplementedError


def keyed(pairs: Sequence[tuple[bytes | None, bytes | None]], timestamp: int) -> bytes:
    """A plain batch at offset 0 of (key, value) pairs with one timestamp: the quick way for internal logs."""
    raise NotImplementedError


def marker(producer_id: int, producer_epoch: int, *, commit: bool, coordinator_epoch: int, timestamp: int) -> bytes:
    """A control batch that ends a transaction, at offset 0."""
    raise NotImplementedError


def parse_marker(batch: Batch) -> Marker:
    """The marker in a control batch. Raises CorruptBatch for a control record of another kind."""
    raise NotImplementedError
