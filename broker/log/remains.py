"""What a stop left of the journal: its files from the checkpoint on, and whether they end as they should.

The journal ends at the first frame that is not whole. If something vouches for that frame (a later frame, a later
file), acknowledged data is damaged: `broken`, and nothing may be thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from broker.log.files import Files
from broker.log.journal import FIRST_POSITION, Frame, Kind, Scan, file_name, scan

Key = tuple[bytes, int]


def _stripped(found: Scan) -> Scan:
    """Without the frames' payloads, so that a file's bytes need not stay in memory."""
    none = memoryview(b"")
    return replace(
        found,
        frames=[frame._replace(payload=none) for frame in found.frames],
        later=[frame._replace(payload=none) for frame in found.later],
    )


class Remains:
    """The journal's files that count."""

    def __init__(
        self, files: Files, root: str, live: Sequence[int], *, sequence: int, position: int, lost: bool
    ) -> None:
        """`live`: sequence numbers of the files; `sequence`, `position`: where the checkpoint says it goes on.

        `lost`: there is no checkpoint, everything is replayed. Raises OSError, UnknownFormat.
        """
        self._files = files
        self._root = root
        self._from = 0 if lost else position  # frames before this journal position are in the checkpoint
        self._starts: dict[Key, int] | None = None
        self.broken = lost  # acknowledged data is damaged: nothing may be thrown away
        self.damage: list[str] = []
        self.cut = 0  # bytes of a frame that was never whole
        self.position = position  # where the next file is to begin
        self.scans = [_stripped(scan(self._read(number), number, self._from)) for number in live]
        self._gone(sequence)
        for place, found in enumerate(self.scans):
            self._end_of(found, place)

    def _gone(self, sequence: int) -> None:
        scans, expected = self.scans, self.position
        if scans and scans[0].sequence > sequence and scans[0].base is not None and expected != FIRST_POSITION:
            start = scans[0].base + FIRST_POSITION
            if start != expected:
                self._corrupt(f"{file_name(sequence)} is gone: positions {expected} to {start} are lost")

    def _end_of(self, found: Scan, place: int) -> None:
        """Judge where one file ends."""
        if found.base is None:
            if found.later:
                self._corrupt(f"the header of {file_name(found.sequence)} is damaged")
            return
        end = found.end
        following = next((later for later in self.scans[place + 1 :] if later.base is not None), None)
        limit = following.base + FIRST_POSITION if following is not None and following.base is not None else None
        vouched = any(frame.durable > end for frame in found.later) if limit is None else end < limit
        if vouched:
            self._corrupt(f"{file_name(found.sequence)} is damaged at position {end}")
        elif limit is None:
            self.cut += found.torn
        self.position = max(self.position, end if limit is None else limit)
        if self.broken and found.later:
            self.position = max(self.position, *(frame.end for frame in found.later))

    def _corrupt(self, what: str) -> None:
        self.broken = True
        self.damage.append(f"journal: {what}; what was acknowledged there may be lost")

    def _read(self, number: int) -> bytes:
        path = f"{self._root}/{file_name(number)}"
        return self._files.open(path).read(0, self._files.size_of(path))

    def frames(self, found: Scan) -> Iterator[Frame]:
        """The frames of a file to be replayed (read again: together they may be large)."""
        limit = self.position
        for later in self.scans:
            if later.sequence > found.sequence and later.base is not None:
                limit = later.base + FIRST_POSITION
                break
        again = scan(self._read(found.sequence), found.sequence, self._from)
        for frame in (*again.frames, *(again.later if self.broken else ())):
            if self._from <= frame.position and frame.end <= limit:
                yield frame

    def start_of(self, key: Key) -> int:
        """The newest log start that an entry gives that partition; 0 without one."""
        if self._starts is None:
            self._starts = {}
            for found in self.scans:
                for frame in self.frames(found):
                    for entry in frame.parse():
                        if entry.kind == Kind.START:
                            moved = (entry.topic_id, entry.partition)
                            self._starts[moved] = max(self._starts.get(moved, 0), entry.base_offset)
        return self._starts.get(key, 0)

    def settle(self) -> None:
        """What was read may live in the page cache only (after a kill): make it durable before building on it."""
        for found in self.scans:
            file = self._files.open(f"{self._root}/{file_name(found.sequence)}")
            if not self.broken and found.base is not None and found.end - found.base < file.size():
                file.truncate(found.end - found.base)  # the next start need not read what holds nothing
            file.datasync()
        self._files.sync_folder(self._root)
