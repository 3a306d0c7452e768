"""What the log needs to know of each batch it keeps: read straight from the header, without views or copies.

The wire package owns the format; here is only the walk over stored bytes, which is the hot path of recovery and
of every read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from broker.log.failures import CorruptLog
from broker.wire.batch import HEADER_SIZE

Buffer = bytes | bytearray | memoryview

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
PLACE: Final = struct.Struct(">qii")  # base offset, length, leader epoch: the bytes outside the CRC
_WALK: Final = struct.Struct(">qiib")
_DELTA: Final = struct.Struct(">i")  # last offset delta, at byte 23
LENGTH_AT: Final = 12  # bytes of a batch before what its length field counts
TRANSACTIONAL: Final = 16
CONTROL: Final = 32
DELETE_HORIZON: Final = 64


class Info(NamedTuple):
    """One stored batch."""

    position: int  # from the start of the walked bytes
    size: int
    base_offset: int
    last_offset: int
    leader_epoch: int
    attributes: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int


def walk(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[Info]:
    """The whole batches in data[start:end]; a cut-off last one is left out. Raises CorruptLog on a bad header."""
    stop = len(data) if end is None else end
    unpack = HEADER.unpack_from
    position = start
    while stop - position >= HEADER_SIZE:
        (
            base,
            length,
            epoch,
            magic,
            _,
            attributes,
            delta,
            base_time,
            max_time,
            producer,
            producer_epoch,
            sequence,
            count,
        ) = unpack(data, position)
        size = length + LENGTH_AT
        if magic != 2 or size < HEADER_SIZE or delta < 0 or base < 0:
            raise CorruptLog(f"no batch header at byte {position}")
        if position + size > stop:
            return
        yield Info(
            position, size, base, base + delta, epoch, attributes, base_time, max_time, producer, producer_epoch,
            sequence, count,
        )  # fmt: skip
        position += size


def intact(data: Buffer, info: Info) -> bool:
    """Whether the batch's CRC fits."""
    view = memoryview(data)[info.position : info.position + info.size]
    return bool(crc32c(view[21:]) == int.from_bytes(view[17:21], "big"))


def find(data: Buffer, offset: int) -> int:
    """Position of the first batch that ends at or after `offset`; the end of the whole batches if none does."""
    unpack = _WALK.unpack_from
    position, stop = 0, len(data)
    while stop - position >= HEADER_SIZE:
        base, length, _, magic = unpack(data, position)
        if magic != 2 or length < HEADER_SIZE - LENGTH_AT:
            raise CorruptLog(f"no batch header at byte {position}")
        if base + _DELTA.unpack_from(data, position + 23)[0] >= offset:
            return position
        position += length + LENGTH_AT
    return position


def whole(data: Buffer, start: int, limit: int, below: int, near: int | None = None) -> tuple[int, int]:
    """(end, next offset) of the whole batches in data[start:start+limit] with base offsets under `below`.

    `near`: a batch's beginning from which to look (what lies before it fits). The next offset is -1 when there is
    none. Raises CorruptLog on a bad header.
    """
    unpack = _WALK.unpack_from
    delta = _DELTA.unpack_from
    position, stop, following = start if near is None else near, min(len(data), start + limit), -1
    while len(data) - position >= HEADER_SIZE:
        base, length, _, magic = unpack(data, position)
        if magic != 2 or length < HEADER_SIZE - LENGTH_AT:
            raise CorruptLog(f"no batch header at byte {position}")
        end = position + length + LENGTH_AT
        if end > stop or base >= below:
            return position, base if position > start else -1
        following = base + delta(data, position + 23)[0] + 1
        position = end
    return position, following


def size_at(data: Buffer, position: int) -> int:
    """Whole size of the batch whose header begins at `position`. Raises CorruptLog on a bad header."""
    _, length, _, magic = _WALK.unpack_from(data, position)
    if magic != 2 or length < HEADER_SIZE - LENGTH_AT:
        raise CorruptLog(f"no batch header at byte {position}")
    return int(length) + LENGTH_AT
