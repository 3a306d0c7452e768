"""One pending delivery as `__sluice_delays` holds it: key = row number in ASCII, value = the bytes below.

    version u8 = 1 · due i64 · timestamp i64 · target u16+ · id i32+ · key i32+ · value i32+ · headers u32 ×
    (name i32+, value i32+)

Big-endian; `n+` is a length and so many bytes, a length of -1 a null. Times are epoch milliseconds; `timestamp` is that
of the record in `sluice.delay`. The row number is that record's offset, with the topic's generation in the bits above
48: a topic that was deleted and made again counts from 0, and its rows must not meet the old one's.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from broker.client.records import Headers

VERSION = 1
POSITION_KEY = b"position"
_OFFSET_BITS = 48
_HEAD = struct.Struct(">BqqH")
_LENGTH = struct.Struct(">i")
_COUNT = struct.Struct(">I")


class UnreadableEntry(Exception):
    """A record of `__sluice_delays` is not what this release writes: a newer one did, or something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A pending delivery, whole."""

    due: int
    timestamp: int
    target: str
    id: str | None
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The next offset of `sluice.delay` to read; `topic` is the id of that topic, `generation` how often it was made
    anew."""

    next: int = 0
    topic: str = ""
    generation: int = 0

    def row(self, offset: int) -> int:
        """The row number of the record at this offset."""
        return self.generation << _OFFSET_BITS | offset


def offset_of(row: int) -> int:
    """The offset in `sluice.delay` that a row came from."""
    return row & (1 << _OFFSET_BITS) - 1


def encode(entry: Entry) -> bytes:
    target = entry.target.encode()
    parts = [
        _HEAD.pack(VERSION, entry.due, entry.timestamp, len(target)),
        target,
        *_bytes(None if entry.id is None else entry.id.encode()),
        *_bytes(entry.key),
        *_bytes(entry.value),
        _COUNT.pack(len(entry.headers)),
    ]
    for name, value in entry.headers:
        parts += (*_bytes(name.encode()), *_bytes(value))
    return b"".join(parts)


def _bytes(value: bytes | None) -> tuple[bytes, bytes]:
    return (_LENGTH.pack(-1), b"") if value is None else (_LENGTH.pack(len(value)), value)


def decode(data: bytes) -> Entry:
    """Raises UnreadableEntry."""
    try:
        version, due, timestamp, length = _HEAD.unpack_from(data)
        if version != VERSION:
            raise UnreadableEntry(f"a pending delivery has version {version}; upgrade this process")
        at = _HEAD.size + length
        target = data[_HEAD.size : at].decode()
        fields: list[bytes | None] = []
        for _ in range(3):
            found, at = _take(data, at)
            fields.append(found)
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, at = _take(data, at)
            value, at = _take(data, at)
            headers.append(((name or b"").decode(), value))
    except (struct.error, UnicodeDecodeError) as error:
        raise UnreadableEntry(f"a pending delivery can't be read: {error}") from error
    if at != len(data):
        raise UnreadableEntry(f"a pending delivery has {len(data)} bytes where {at} were expected")
    identity = fields[0]
    return Entry(
        due=due,
        timestamp=timestamp,
        target=target,
        id=None if identity is None else identity.decode(),
        key=fields[1],
        value=fields[2],
        headers=tuple(headers),
    )


def _take(data: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if length < 0:
        return None, at
    return data[at : at + length], at + length


def encode_position(position: Position) -> bytes:
    found = {"v": 1, "next": position.next, "topic": position.topic, "generation": position.generation}
    return json.dumps(found, separators=(",", ":")).encode()


def decode_position(data: bytes) -> Position:
    """Raises UnreadableEntry."""
    try:
        found = json.loads(data)
        if found["v"] != 1:
            raise UnreadableEntry(f"the position has version {found['v']}; upgrade this process")
        return Position(next=int(found["next"]), topic=str(found["topic"]), generation=int(found["generation"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableEntry(f"the position can't be read: {error}") from error
