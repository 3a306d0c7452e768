"""The part of an inbox that is in the store only: per chunk its number, how many entries, how many bytes, its expiry.

40 bytes a chunk, so that thousands of sessions may be away with full inboxes. The oldest entries may be dropped without
looking at them: whole chunks, or the first so many of the first one.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

_WIDTH = 4
_COUNT, _SKIP = 1, 3


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk on the shelf. `skip`: so many of its first entries are not wanted any more; `count` are those that are.
    `size`: bytes of all of them, so it is never too little."""

    number: int
    count: int
    size: int
    skip: int


class Shelf:
    """Chunks in the order of their numbers."""

    __slots__ = ("_chunks", "_expires", "_first", "count", "size")

    def __init__(self) -> None:
        self._chunks: array[int] = array("Q")  # number, count, size, skip of each
        self._expires: array[float] = array("d")
        self._first = 0  # those before have been taken
        self.count = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._expires) - self._first

    def put(self, number: int, count: int, size: int, expires: float) -> None:
        """Add a chunk where its number belongs; nearly always that is the end."""
        at = len(self._expires)
        while at > self._first and self._chunks[(at - 1) * _WIDTH] > number:
            at -= 1
        for value in (0, size, count, number):
            self._chunks.insert(at * _WIDTH, value)
        self._expires.insert(at, expires)
        self.count += count
        self.size += size

    def first(self) -> Place | None:
        """The oldest chunk."""
        if not len(self):
            return None
        return Place(*self._chunks[self._first * _WIDTH : (self._first + 1) * _WIDTH])

    def expired(self, now: float) -> bool:
        """Whether everything in the oldest chunk has expired."""
        return bool(len(self)) and 0 < self._expires[self._first] <= now

    def take(self) -> Place:
        """Take the oldest chunk away; raises IndexError when there is none."""
        place = self.first()
        if place is None:
            raise IndexError("the shelf is empty")
        self._first += 1
        self.count -= place.count
        self.size -= place.size
        if self._first > 64 and self._first * 2 > len(self._expires):
            del self._chunks[: self._first * _WIDTH]
            del self._expires[: self._first]
            self._first = 0
        return place

    def drop(self) -> int | None:
        """Drop the oldest entry; the number of its chunk if that was its last. Raises IndexError when there is none."""
        place = self.first()
        if place is None or place.count == 1:
            return self.take().number
        at = self._first * _WIDTH
        self._chunks[at + _COUNT] -= 1
        self._chunks[at + _SKIP] += 1
        self.count -= 1
        return None

    def numbers(self) -> list[int]:
        """Of all chunks."""
        return [self._chunks[at * _WIDTH] for at in range(self._first, len(self._expires))]
