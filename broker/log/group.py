"""A group: staged entries of any partitions that become durable together, by one write and one fdatasync."""

from __future__ import annotations

from broker.log.journal import Journal
from broker.log.staged import Staged


class Group:
    """Staged entries that become durable together."""

    __slots__ = ("_journal", "error", "fatal", "staged")

    def __init__(self, journal: Journal, staged: list[Staged]) -> None:
        self._journal = journal
        self.staged = staged
        self.error: OSError | None = None
        self.fatal = False

    @property
    def position(self) -> int:
        """The last entry's place in the order."""
        return self.staged[-1].position

    def write(self) -> None:
        """Write the frame, then fdatasync: after this, and only then, its appends may be acknowledged."""
        buffers: list[bytes] = []
        for staged in self.staged:
            buffers.append(staged.header)
            if staged.data:
                buffers.append(staged.data)
        try:
            self._journal.write(buffers, len(self.staged))
            self.fatal = True
            self._journal.sync()
            self.fatal = False
        except OSError as error:
            self.error = error

    def vouch(self) -> None:
        """With nothing more to write: note in the journal that all of it is durable."""
        self._journal.vouch()
