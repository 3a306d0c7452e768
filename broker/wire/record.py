"""The records inside a batch as bytes (KIP-98): lengths and deltas as zigzag varints.

length · attributes (int8, unused) · timestamp delta · offset delta · key length · key · value length · value ·
header count · (name length · name · value length · value) per header; a length of -1 is null
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from broker.wire.varint import encode_signed, signed

Buffer: TypeAlias = bytes | bytearray | memoryview
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

_NULL = encode_signed(-1)
_NO_HEADERS = b"\x00"
_EMPTY: Headers = ()


class MalformedRecord(ValueError):
    """Bytes that are no record."""


class Record(NamedTuple):
    """One record with its absolute offset; timestamp in ms (the batch's append time where the topic says so)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def write(records: Iterable[Record], base_offset: int, base_timestamp: int) -> bytes:
    """The records one after another, deltas against the bases."""
    parts: list[bytes] = []
    for offset, timestamp, key, value, headers in records:
        body = [
            b"\x00",
            encode_signed(timestamp - base_timestamp),
            encode_signed(offset - base_offset),
            _sized(key),
            _sized(value),
            _headers(headers) if headers else _NO_HEADERS,
        ]
        joined = b"".join(body)
        parts += (encode_signed(len(joined)), joined)
    return b"".join(parts)


def write_pairs(pairs: Iterable[tuple[bytes | None, bytes | None]]) -> bytes:
    """Records of key and value alone, all with the base timestamp, offset deltas counting from 0."""
    parts: list[bytes] = []
    for delta, (key, value) in enumerate(pairs):
        body = b"".join((b"\x00\x00", encode_signed(delta), _sized(key), _sized(value), _NO_HEADERS))
        parts += (encode_signed(len(body)), body)
    return b"".join(parts)


def read(
    body: bytes | bytearray, count: int, base_offset: int, base_timestamp: int, append_time: int | None
) -> Iterator[Record]:
    """`count` records that fill `body` exactly, one at a time. Raises MalformedRecord when it comes to that.

    append_time replaces every record's own timestamp.
    """
    position, end = 0, len(body)
    make = tuple.__new__  # what Record() does, without its argument handling: half of the time of small records
    body = bytes(body)
    try:
        for _ in range(count):
            start = position
            length, position = signed(body, position)
            stop = position + length
            if not position < stop <= end:
                raise MalformedRecord(f"record of {length} bytes where {end - start} are left")
            timestamp = body[position + 1]
            if timestamp < 0x80:  # one byte is the usual case, here and below
                timestamp = (timestamp >> 1) ^ -(timestamp & 1)
                position += 2
            else:
                timestamp, position = signed(body, position + 1)
            offset, position = signed(body, position)
            size = body[position]
            if size < 0x80:
                size = (size >> 1) ^ -(size & 1)
                position += 1
            else:
                size, position = signed(body, position)
            key, position = _cut(body, position, size, stop)
            size = body[position]
            if size < 0x80:
                size = (size >> 1) ^ -(size & 1)
                position += 1
            else:
                size, position = signed(body, position)
            value, position = _cut(body, position, size, stop)
            if body[position] == 0:
                headers = _EMPTY
                position += 1
            else:
                headers, position = _read_headers(body, position, stop)
            if position != stop:
                raise MalformedRecord(f"record whose length is off by {stop - position}")
            timestamp = base_timestamp + timestamp if append_time is None else append_time
            yield make(Record, (base_offset + offset, timestamp, key, value, headers))
    except IndexError:
        raise MalformedRecord("the records end early") from None
    if position != end:
        raise MalformedRecord(f"{end - position} bytes after the last record")


def _sized(value: bytes | None) -> bytes:
    return _NULL if value is None else encode_signed(len(value)) + value


def _headers(headers: Headers) -> bytes:
    parts = [encode_signed(len(headers))]
    for name, value in headers:
        parts += (_sized(name.encode()), _sized(value))
    return b"".join(parts)


def _cut(body: bytes, position: int, size: int, stop: int) -> tuple[bytes | None, int]:
    """The field of `size` bytes at a position, and the position after it."""
    after = position + size
    if size < 0:
        if size == -1:
            return None, position
    elif after <= stop:
        return body[position:after], after
    raise MalformedRecord(f"field of {size} bytes where {stop - position} are left")


def _read_sized(body: bytes, position: int, stop: int) -> tuple[bytes | None, int]:
    size, position = signed(body, position)
    return _cut(body, position, size, stop)


def _read_headers(body: bytes, position: int, stop: int) -> tuple[Headers, int]:
    count, position = signed(body, position)
    if count < 0 or count * 2 > stop - position:
        raise MalformedRecord(f"{count} headers where {stop - position} bytes are left")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, position = _read_sized(body, position, stop)
        value, position = _read_sized(body, position, stop)
        if name is None:
            raise MalformedRecord("header without a name")
        try:
            headers.append((name.decode(), value))
        except UnicodeDecodeError as error:
            raise MalformedRecord(f"header name: {error}") from None
    return headers, position
