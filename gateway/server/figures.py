"""What went through a connection, or through all of them: plain totals that are subtracted and added."""

from __future__ import annotations

from operator import add, sub
from typing import NamedTuple


class Figures(NamedTuple):
    """Since a beginning. `received`, `refused`, `sent` and `dropped` are PUBLISH packets, bytes are the transport's."""

    received: int
    refused: int
    sent: int
    dropped: int
    received_packets: int
    sent_packets: int
    received_bytes: int
    sent_bytes: int

    def plus(self, now: Figures, before: Figures) -> Figures:
        """These totals after something else went from `before` to `now`."""
        return Figures._make(map(add, self, map(sub, now, before)))


NOTHING = Figures(0, 0, 0, 0, 0, 0, 0, 0)
