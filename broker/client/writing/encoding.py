"""Messages as the records of one batch (KIP-98), at the cost of one join each.

Lengths and deltas below 8192 come from a table. Headers that many messages share are encoded once (`EncodedHeaders`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.client.outgoing import OutgoingHeaders, PlacedAt, Sending
from broker.wire.varint import SHORT, encode_signed

ZIGZAG = SHORT[::2]  # of 0 to 8191
MOST = len(ZIGZAG)  # records in a batch
_NULL = encode_signed(-1)
_NO_HEADERS = b"\x00"


class EncodedHeaders(list[tuple[str, "str | bytes | None"]]):
    """Headers that many messages have, with their bytes. Not to be changed; with others added to it (`+`) it becomes
    an ordinary list."""

    __slots__ = ("encoded",)

    def __init__(self, pairs: Iterable[tuple[str, str | bytes | None]]) -> None:
        super().__init__(pairs)
        self.encoded = encode_headers(self)


def encode_headers(pairs: OutgoingHeaders) -> bytes:
    """Count, then name and value of each; text as UTF-8."""
    parts = [encode_signed(len(pairs))]
    for name, value in pairs:
        label = name.encode()
        parts += (encode_signed(len(label)), label)
        if value is None:
            parts.append(_NULL)
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += (encode_signed(len(content)), content)
    return b"".join(parts)


def write(
    pieces: list[bytes],
    messages: Sequence[Sending],
    delta: int,
    number: int,
    room: int,
    asked: list[tuple[int, PlacedAt | None]],
) -> tuple[int, int]:
    """Append records to `pieces` until there is no room for another; how many were taken, and their bytes. A first
    record is always taken, however large it is. `delta`: of their timestamp in milliseconds; `number`: of the first
    record in its batch. `asked` says who wants to know places: each number from which on it is somebody else (or
    nobody)."""
    zigzag, join = ZIGZAG, b"".join
    stamp = b"\x00" + encode_signed(delta)
    first = number
    size = 0
    last = asked[-1][1] if asked else None
    for _, value, key, headers, placed, _ in messages:
        if number == MOST:
            break
        if headers.__class__ is EncodedHeaders:
            tail = headers.encoded
        else:
            tail = encode_headers(headers) if headers else _NO_HEADERS
        try:
            record = join(
                (stamp, zigzag[number], zigzag[len(key)], key, zigzag[len(value)], value, tail)  # type: ignore[arg-type]  # None: see below
            )
            length = zigzag[len(record)]
        except (TypeError, IndexError):  # a null, or a long one
            record = join((stamp, zigzag[number], _sized(key), _sized(value), tail))
            length = encode_signed(len(record))
        size += len(record) + len(length)
        if size > room and number:
            size -= len(record) + len(length)
            break
        pieces += (length, record)
        if placed is not last:
            asked.append((number, placed))
            last = placed
        number += 1
    return number - first, size


def _sized(content: bytes | None) -> bytes:
    return _NULL if content is None else encode_signed(len(content)) + content
