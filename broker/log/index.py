"""A segment's three indexes, in Kafka's file formats (all big endian, no header).

- offset index: (offset - base: int32, position: int32); an entry stands for a batch: its *last* offset and where it
  begins. At most one entry per `index.interval.bytes`.
- time index: (timestamp: int64, offset - base: int32): no record before that batch is newer than the timestamp.
- transaction index: (version 0: int16, producer id, first offset, last offset, last stable offset: int64 each), one
  entry per aborted transaction whose marker lies in the segment (KIP-98).

They live in memory and are written out at checkpoints: what a crash takes, recovery rebuilds.
"""

from __future__ import annotations

import itertools
import struct
import sys
from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

_SWAP: Final = sys.byteorder == "little"
TIME_ENTRY: Final = struct.Struct(">qi")
TXN_ENTRY: Final = struct.Struct(">hqqqq")


class MalformedIndex(ValueError):
    """An index file that can't belong to its segment; it is rebuilt from the log."""


class OffsetIndex:
    """Sparse map from offset to position."""

    __slots__ = ("base", "offsets", "positions", "saved")
    entry_size: Final = 8

    def __init__(self, base: int) -> None:
        self.base = base
        self.offsets = array("i")
        self.positions = array("i")
        self.saved = 0  # entries already in the file

    def __len__(self) -> int:
        return len(self.offsets)

    def append(self, offset: int, position: int) -> None:
        """Add an entry; offsets rise."""
        self.offsets.append(offset - self.base)
        self.positions.append(position)

    def floor(self, offset: int) -> int:
        """Position of the last indexed batch that ends at or before `offset`; 0 if there is none."""
        slot = bisect_right(self.offsets, offset - self.base)
        return self.positions[slot - 1] if slot else 0

    def ceiling(self, position: int) -> tuple[int, int] | None:
        """(last offset, position) of the first indexed batch that begins after `position`; None if there is none."""
        slot = bisect_right(self.positions, position)
        return (self.offsets[slot] + self.base, self.positions[slot]) if slot < len(self.positions) else None

    def dump(self, start: int = 0) -> bytes:
        """The file's bytes from entry `start` on."""
        flat = array("i", bytes(8 * (len(self.offsets) - start)))
        flat[0::2] = self.offsets[start:]
        flat[1::2] = self.positions[start:]
        if _SWAP:
            flat.byteswap()
        return flat.tobytes()

    def load(self, data: bytes, size: int) -> None:
        """Take a file's bytes; `size` is the segment's. Raises MalformedIndex."""
        if len(data) % 8:
            raise MalformedIndex("offset index: not a multiple of its entry size")
        flat = array("i")
        flat.frombytes(data)
        if _SWAP:
            flat.byteswap()
        offsets, positions = flat[0::2], flat[1::2]
        _rising(offsets, "offset index: offsets")
        _rising(positions, "offset index: positions")
        if len(positions) and (offsets[0] < 0 or positions[0] < 0 or positions[-1] >= size):
            raise MalformedIndex("offset index: beyond its segment")
        self.offsets, self.positions, self.saved = offsets, positions, len(offsets)


def _rising(values: array[int], what: str) -> None:
    for low, high in itertools.pairwise(values):
        if high <= low:
            raise MalformedIndex(f"{what} do not rise")


class TimeIndex:
    """Sparse map from timestamp to offset."""

    __slots__ = ("base", "offsets", "saved", "timestamps")
    entry_size: Final = 12

    def __init__(self, base: int) -> None:
        self.base = base
        self.timestamps = array("q")
        self.offsets = array("i")
        self.saved = 0

    def __len__(self) -> int:
        return len(self.offsets)

    def append(self, timestamp: int, offset: int) -> None:
        """Add an entry if it is newer than the last one."""
        if timestamp < 0 or (self.timestamps and timestamp <= self.timestamps[-1]):
            return
        self.timestamps.append(timestamp)
        self.offsets.append(offset - self.base)

    def floor(self, timestamp: int) -> int:
        """An offset before which no record is newer than `timestamp` - 1; the base if nothing is known."""
        slot = bisect_right(self.timestamps, timestamp - 1)
        return self.offsets[slot - 1] + self.base if slot else self.base

    def last(self) -> tuple[int, int]:
        """(timestamp, offset) of the newest entry; (-1, base) when empty."""
        return (self.timestamps[-1], self.offsets[-1] + self.base) if self.timestamps else (-1, self.base)

    def dump(self, start: int = 0) -> bytes:
        """The file's bytes from entry `start` on."""
        pack = TIME_ENTRY.pack
        return b"".join(map(pack, self.timestamps[start:], self.offsets[start:]))

    def load(self, data: bytes) -> None:
        """Take a file's bytes. Raises MalformedIndex."""
        if len(data) % 12:
            raise MalformedIndex("time index: not a multiple of its entry size")
        timestamps, offsets = array("q"), array("i")
        for timestamp, offset in TIME_ENTRY.iter_unpack(data):
            timestamps.append(timestamp)
            offsets.append(offset)
        _rising(timestamps, "time index: timestamps")
        if len(offsets) and (timestamps[0] < 0 or min(offsets) < 0):
            raise MalformedIndex("time index: negative entry")
        self.timestamps, self.offsets, self.saved = timestamps, offsets, len(offsets)


class AbortedTransaction(NamedTuple):
    """One entry of the transaction index."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class TransactionIndex:
    """The aborted transactions whose markers lie in a segment, in order of their markers."""

    __slots__ = ("entries", "saved")
    entry_size: Final = TXN_ENTRY.size

    def __init__(self) -> None:
        self.entries: list[AbortedTransaction] = []
        self.saved = 0

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entry: AbortedTransaction) -> None:
        """Add an entry; last offsets rise."""
        self.entries.append(entry)

    def dump(self, start: int = 0) -> bytes:
        """The file's bytes from entry `start` on."""
        return b"".join(TXN_ENTRY.pack(0, *entry) for entry in self.entries[start:])

    def load(self, data: bytes) -> None:
        """Take a file's bytes. Raises MalformedIndex."""
        if len(data) % TXN_ENTRY.size:
            raise MalformedIndex("transaction index: not a multiple of its entry size")
        entries = []
        last = -1
        for version, *values in TXN_ENTRY.iter_unpack(data):
            entry = AbortedTransaction(*values)
            if version != 0 or entry.last_offset <= last or entry.first_offset > entry.last_offset:
                raise MalformedIndex("transaction index: an entry that can't be")
            last = entry.last_offset
            entries.append(entry)
        self.entries, self.saved = entries, len(entries)
