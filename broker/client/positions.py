"""How far a partition is done: everything below `next`, and what is finished beyond it.

Handlers that run side by side finish out of order, and a committed offset can only say "everything below". What is
finished beyond it travels in the commit's metadata, so that nobody does it again after a crash or a rebalance, and so
that a record can be moved elsewhere and be finished in one transaction, whatever lies unfinished before it.

The metadata is `sluice1:<base>:<ranges>;`: `base` repeats the offset (a commit by anybody else takes it out of force),
`ranges` is base64 of varints, by turns the length of a gap and of a finished run, from `base` on. The semicolon ends
it: librdkafka can hand out stray bytes after a commit's metadata. Other tools see an ordinary offset with some text.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

LIMIT = 4000
"""Kafka takes 4096 bytes of metadata by default (`offset.metadata.max.bytes`)."""
_FORM = re.compile(r"sluice1:(\d{1,19}):([A-Za-z0-9+/=]*);")
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Position:
    """`ahead`: finished offsets at or above `next`."""

    next: int
    ahead: frozenset[int] = frozenset()

    def metadata(self) -> str:
        """What to commit beside `next`; longer than `LIMIT` where it can't be committed."""
        if not self.ahead:
            return ""
        return f"sluice1:{self.next}:{base64.b64encode(_varints(self.next, self.ahead)).decode()};"


def read(offset: int, metadata: str) -> Position:
    """The position in a commit. Metadata of other kinds, or of another offset, say nothing of what is ahead."""
    found = _FORM.match(metadata)
    if found is None or int(found[1]) != offset:
        return Position(offset)
    try:
        numbers = list(_numbers(base64.b64decode(found[2], validate=True)))
    except ValueError:
        return Position(offset)
    ahead: set[int] = set()
    at = offset
    for index, number in enumerate(numbers):
        if index % 2:
            if len(ahead) + number > _MOST:
                return Position(offset)
            ahead.update(range(at, at + number))
        at += number
    return Position(offset, frozenset(ahead))


def _varints(base: int, ahead: Iterable[int]) -> bytes:
    out = bytearray()
    at = first = last = base
    run = False
    for offset in sorted(ahead):
        if run and offset == last + 1:
            last = offset
            continue
        if run:
            out += _varint(first - at) + _varint(last + 1 - first)
            at = last + 1
        first = last = offset
        run = True
    return bytes(out + _varint(first - at) + _varint(last + 1 - first))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _numbers(data: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("a number is cut off")
