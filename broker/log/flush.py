"""A flush: tails of segments on their way to their files, written in whatever thread while the log goes on."""

from __future__ import annotations

from collections.abc import Sequence

from broker.log.durable import DurableLog
from broker.log.files import Buffer, File
from broker.log.segment import Segment


class Flush:
    """The tails that waited when it was made. `write` it anywhere, then the store finishes it."""

    __slots__ = ("_done", "_todo", "covers", "error", "partitions")

    def __init__(self, partitions: Sequence[DurableLog], *, covers: int) -> None:
        """`covers`: bytes of the store's count of waiting tails that are gone once this is written."""
        self.partitions = partitions
        self.covers = covers
        self.error: OSError | None = None
        self._done = 0
        self._todo: list[tuple[Segment, int, File, int, Sequence[Buffer]]] = []
        try:
            for partition in partitions:
                for segment in partition.segments:
                    if segment.tail_bytes:
                        self._todo.append((segment, segment.size, *segment.waiting()))
        except OSError as error:
            self.error = error

    def write(self) -> None:
        """Write; unsynced, for the journal holds all of it. An error is kept, not raised."""
        if self.error is not None:
            return
        try:
            for _, _, file, position, tail in self._todo:
                file.write(position, tail)
                self._done += 1
        except OSError as error:
            self.error = error

    def settle(self) -> None:
        """Let go of the memory of what was written."""
        for segment, end, _, _, _ in self._todo[: self._done]:
            segment.wrote(end)
