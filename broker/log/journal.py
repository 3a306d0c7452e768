"""The journal: the one file sequence whose fdatasync makes appends to every partition durable.

Format 1, all big endian. A file `journal-<sequence, 20 digits>` is a header and then frames, back to back:

    header, 64 bytes   magic "SLUICEJ1" · version u16 · flags u16 (0) · crc u32 (CRC-32C of the bytes after this field)
                       · sequence u64 · base u64 (journal position of the file's byte 0) · salt u64 · zeros
    frame, 48 bytes    magic "SLJF" · crc u32 (CRC-32C of everything after this field, payload included)
                       · payload bytes u32 · entries u32 · sequence u64 · position u64 · durable u64 · salt u64
    entry, 36 bytes    kind u8 · flags u8 · 0 u16 · data bytes u32 · partition i32 · base offset i64 · topic id 16
                       then its data

Positions count bytes over all files: a file begins where the one before it ended. `durable` is the position up to
which everything was known to be synced when the frame was written: an invalid frame below a later frame's
`durable` (or below a later file's base) is *corruption*; one that nothing vouches for is the torn tail of writes that
were never acknowledged. A frame without entries only vouches; it is written, unsynced, when a sync leaves
nothing to do. Files are recycled (overwriting needs no metadata, which makes fdatasync cheaper and
steadier), so what follows the last frame may be an older file's frames: their sequence and salt give them away.

A frame holds everything appended in one tick, over all partitions: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from crc32c import crc32c

from broker.log.failures import UnknownFormat
from broker.log.files import File, Files, coalesce

Buffer = bytes | bytearray | memoryview

VERSION: Final = 1
FILE_MAGIC: Final = b"SLUICEJ1"
FRAME_MAGIC: Final = b"SLJF"
FILE_HEADER: Final = struct.Struct(">8sHHIQQQ24x")
FRAME_HEADER: Final = struct.Struct(">4sIIIQQQQ")
ENTRY_HEADER: Final = struct.Struct(">BBHIiq16s")
ROLL_FIRST: Final = 1  # entry flag: a new segment begins with this entry
_FRAME_BODY: Final = struct.Struct(">IIQQQQ")
_SPARES: Final = 6  # what a busy journal needs between checkpoints: new files cost several times as much to fill
FIRST_POSITION: Final = FILE_HEADER.size  # of a new journal


class Kind(IntEnum):
    """What an entry says."""

    RECORDS = 1  # data: batches as they stand in the segment
    START = 2  # the log's start moved to base offset
    EPOCH = 3  # a leader epoch began at base offset; data: epoch i32
    CREATE = 4  # the partition was made; data: JSON
    DELETE = 5  # the partition was deleted
    ROLL = 6  # a new segment begins at base offset
    LOOSE = 7  # compaction may take records out below base offset: offsets need not follow each other there


class Entry(NamedTuple):
    """One entry, as replay sees it."""

    kind: int
    flags: int
    partition: int
    base_offset: int
    topic_id: bytes
    data: memoryview


class Frame(NamedTuple):
    """One valid frame."""

    position: int
    end: int
    durable: int
    entries: int
    payload: memoryview

    def parse(self) -> Iterator[Entry]:
        """Its entries."""
        at, payload = 0, self.payload
        for _ in range(self.entries):
            kind, flags, _, size, partition, base, topic_id = ENTRY_HEADER.unpack_from(payload, at)
            at += ENTRY_HEADER.size
            yield Entry(kind, flags, partition, base, topic_id, payload[at : at + size])
            at += size


def entry_header(kind: int, flags: int, size: int, partition: int, base_offset: int, topic_id: bytes) -> bytes:
    """The bytes before an entry's data."""
    return ENTRY_HEADER.pack(kind, flags, 0, size, partition, base_offset, topic_id)


def file_name(sequence: int) -> str:
    """Name of the journal file with that sequence number."""
    return f"journal-{sequence:020d}"


def sequence_of(name: str) -> int | None:
    """Sequence number in a journal file's name; None for another kind of file."""
    digits = name.removeprefix("journal-")
    return int(digits) if digits != name and digits.isdigit() else None


def pack_file_header(sequence: int, base: int, salt: int) -> bytes:
    """A file's first 64 bytes."""
    blank = FILE_HEADER.pack(FILE_MAGIC, VERSION, 0, 0, sequence, base, salt)
    return FILE_HEADER.pack(FILE_MAGIC, VERSION, 0, crc32c(blank[16:]), sequence, base, salt)


def parse_file_header(data: Buffer) -> tuple[int, int, int] | None:
    """(sequence, base, salt), or None when these are no header's bytes. Raises UnknownFormat for a newer version."""
    if len(data) < FILE_HEADER.size:
        return None
    magic, version, flags, crc, sequence, base, salt = FILE_HEADER.unpack_from(data)
    if magic != FILE_MAGIC or crc != crc32c(memoryview(data)[16 : FILE_HEADER.size]):
        return None
    if version != VERSION or flags:
        raise UnknownFormat(f"the journal has format {version}; this version reads up to {VERSION}")
    return sequence, base, salt


def parse_frame(data: Buffer, at: int, base: int, sequence: int, salt: int | None) -> Frame | None:
    """The valid frame at data[at:], or None. `base`: the journal position of data[0]."""
    if len(data) - at < FRAME_HEADER.size:
        return None
    magic, crc, size, entries, seq, position, durable, frame_salt = FRAME_HEADER.unpack_from(data, at)
    if magic != FRAME_MAGIC or seq != sequence or position != base + at or (salt is not None and frame_salt != salt):
        return None
    end = at + FRAME_HEADER.size + size
    if end > len(data):
        return None
    view = memoryview(data)
    if crc != crc32c(view[at + 8 : end]):
        return None
    return Frame(position, base + end, durable, entries, view[at + FRAME_HEADER.size : end])


class Journal:
    """The writing end. Everything but `take_over` and the properties runs in the syncing thread."""

    def __init__(
        self,
        files: Files,
        folder: str,
        *,
        file_bytes: int,
        sequence: int,
        position: int,
        salt: Callable[[], int],
        spares: Sequence[str] = (),
    ) -> None:
        """`sequence`: the first file to make; `position`: where it begins."""
        self._files = files
        self.folder = folder
        self._file_bytes = file_bytes
        self._next_sequence = sequence
        self._new_salt = salt
        self._spares: deque[str] = deque(spares)
        self._file: File | None = None
        self._salt = 0
        self._base = 0
        self._size = 0
        self.sequence = sequence - 1
        self.position = position  # end of the last whole frame
        self.durable = position

    def write(self, buffers: Sequence[Buffer], entries: int) -> None:
        """Write one frame of these entries, unsynced. On an error nothing of it counts, and the next may try again."""
        pieces = coalesce(buffers)
        total = FRAME_HEADER.size + sum(map(len, pieces))
        file = self._file
        if file is None or self.position - self._base + total > self._size:
            file = self._rotate(total)
        at = self.position - self._base
        try:
            file.write(at, [self._header(total - FRAME_HEADER.size, entries, pieces), *pieces])
        except OSError:
            with contextlib.suppress(OSError):  # a frame that landed whole although the write failed must not count
                file.write(at, [bytes(FRAME_HEADER.size)])
            raise
        self.position += total

    def sync(self) -> None:
        """fdatasync: what was written is durable. An OSError here is final."""
        if self._file is not None:
            self._file.datasync()
        self.durable = self.position

    def vouch(self) -> None:
        """Write, unsynced, that everything so far is durable. Failing is harmless."""
        if self._file is None or self.position - self._base + FRAME_HEADER.size > self._size:
            return
        with contextlib.suppress(OSError):
            self._file.write(self.position - self._base, [self._header(0, 0, ())])
            self.position += FRAME_HEADER.size  # not `durable`: this frame itself is not synced

    def _header(self, size: int, entries: int, pieces: Sequence[Buffer]) -> bytes:
        body = _FRAME_BODY.pack(size, entries, self.sequence, self.position, self.durable, self._salt)
        crc = crc32c(body)
        for piece in pieces:
            crc = crc32c(piece, crc)
        return FRAME_MAGIC + crc.to_bytes(4, "big") + body

    def _rotate(self, needed: int) -> File:
        """Begin the next file: header first and synced, so that a frame never stands in a file without one."""
        self.position = self.durable  # a frame that only vouches is not synced: the next file does not build on it
        sequence = self._next_sequence
        path = f"{self.folder}/{file_name(sequence)}"
        with contextlib.suppress(IndexError, FileNotFoundError):
            self._files.rename(f"{self.folder}/{self._spares.popleft()}", path)
        file = self._files.open(path, create=True)
        try:
            size = _allocate(file, max(self._file_bytes, needed + FILE_HEADER.size), needed + FILE_HEADER.size)
            salt = self._new_salt()
            file.write(0, [pack_file_header(sequence, self.position - FILE_HEADER.size, salt)])
            file.datasync()
            self._files.sync_folder(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.remove(path)
            raise
        self._file, self._size, self._salt = file, size, salt
        self._base = self.position - FILE_HEADER.size
        self.sequence = sequence
        self._next_sequence = sequence + 1
        return file

    def drop_before(self, sequence: int) -> None:
        """Recycle or remove the files before `sequence`: a checkpoint made them needless."""
        for name in self._files.list(self.folder):
            old = sequence_of(name)
            if old is None or old >= sequence:
                continue
            if len(self._spares) < _SPARES and self._files.size_of(f"{self.folder}/{name}") <= self._file_bytes:
                spare = f"spare-{old:020d}"
                self._files.rename(f"{self.folder}/{name}", f"{self.folder}/{spare}")
                self._spares.append(spare)
            else:
                self._files.remove(f"{self.folder}/{name}")

    def drop_spares(self) -> None:
        """Give back the space of the files kept for reuse: the disk is nearly full."""
        while self._spares:
            with contextlib.suppress(IndexError, OSError):  # the syncing thread took the last one; or it stays
                self._files.remove(f"{self.folder}/{self._spares.popleft()}")


def _allocate(file: File, wanted: int, needed: int) -> int:
    """Space for a journal file: a nearly full disk still gives a small one. Raises OSError."""
    for size in (wanted, max(needed, wanted // 16)):
        with contextlib.suppress(OSError):
            file.allocate(size)
            return size
        file.truncate(0)
    file.allocate(needed)
    return needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What reading one journal file found."""

    sequence: int
    base: int | None  # None: no usable header
    frames: Sequence[Frame]
    end: int  # journal position after the last frame of the unbroken run
    torn: int  # bytes of a frame that was begun and is not whole
    later: Sequence[Frame]  # valid frames after a break: the break is corruption if one vouches for it


def scan(data: Buffer, sequence: int, start: int = 0) -> Scan:
    """Read a journal file, from journal position `start` if that lies in it. Raises UnknownFormat."""
    header = parse_file_header(data)
    if header is None or header[0] != sequence:
        return Scan(sequence=sequence, base=None, frames=(), end=0, torn=0, later=_later(data, 0, sequence))
    _, base, salt = header
    frames: list[Frame] = []
    at = start - base if FILE_HEADER.size <= start - base <= len(data) else FILE_HEADER.size
    while (frame := parse_frame(data, at, base, sequence, salt)) is not None:
        frames.append(frame)
        at = frame.end - base
    torn = 0
    if len(data) - at >= FRAME_HEADER.size:
        magic, _, size, _, seq, position, _, frame_salt = FRAME_HEADER.unpack_from(data, at)
        alike = (magic == FRAME_MAGIC) + (seq == sequence) + (position == base + at) + (frame_salt == salt)
        if alike >= 2:  # a frame of this file was begun here; an older file's has neither salt nor place in common
            torn = min(FRAME_HEADER.size + size, len(data) - at)
    return Scan(
        sequence=sequence, base=base, frames=frames, end=base + at, torn=torn, later=_later(data, at, sequence, base)
    )  # fmt: skip


def _later(data: Buffer, start: int, sequence: int, base: int | None = None) -> list[Frame]:
    """Valid frames of this file anywhere after `start`, whatever stands between them."""
    out: list[Frame] = []
    raw = bytes(data)
    at = raw.find(FRAME_MAGIC, start)
    while at >= 0:
        where = base
        if where is None and len(raw) - at >= FRAME_HEADER.size:
            where = int.from_bytes(raw[at + 24 : at + 32], "big") - at
        frame = parse_frame(raw, at, where, sequence, None) if where is not None else None
        if frame is not None:
            out.append(frame)
            at = raw.find(FRAME_MAGIC, at + frame.end - frame.position)
        else:
            at = raw.find(FRAME_MAGIC, at + 1)
    return out
