"""What went through a connection, or through all of them: plain totals that are subtracted and added."""

from __future__ import annotations

from collections.abc import Sequence
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

    def plus(self, now: Sequence[Figures], before: Sequence[Figures]) -> Figures:
        """These totals after others went from `before` to `now`; neither is empty. Summed by column: there may be
        thousands of them every second."""
        sums = map(sub, map(sum, zip(*now, strict=True)), map(sum, zip(*before, strict=True)))
        return Figures._make(map(add, self, sums))


NOTHING = Figures(0, 0, 0, 0, 0, 0, 0, 0)
