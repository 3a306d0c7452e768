"""Long work, in small steps between everything else.

What a single packet may ask for a thousand times (filters that enter and leave the trees, retained messages that a
filter covers) would hold the loop for as long as it takes, and all others with it. Such work is an iterator whose
every step is short. Steps are done a slice at a time, then the loop belongs to all others for as long: at most half of
it goes there, however much is asked for. Owners (addresses) take turns step by step, so who asks for much waits for
itself.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

log = logging.getLogger("sluice.gateway")

SLICE: Final = 0.001  # seconds
REST: Final = 0.001
STEP: Final = 16  # so many of something are a step


class Chores:
    """`later(seconds, call)` calls once; `clock` gives seconds. `charged` hears whose work took how many seconds."""

    def __init__(
        self, later: Callable[[float, Callable[[], None]], Any], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._later = later
        self._clock = clock
        self.charged: Callable[[str, float], None] = lambda owner, seconds: None
        self._owners: OrderedDict[str, deque[Iterator[object]]] = OrderedDict()

    def add(self, owner: str, work: Iterator[object]) -> None:
        """Do this, after what else there is of the same owner."""
        if not self._owners:
            self._later(0.0, self._go_on)
        self._owners.setdefault(owner, deque()).append(work)

    def _go_on(self) -> None:
        owners, now = self._owners, self._clock()
        enough = now + SLICE
        spent: dict[str, float] = {}
        while owners:
            owner = next(iter(owners))
            works = owners[owner]
            if _over(works[0]):
                works.popleft()
            if works:
                owners.move_to_end(owner)
            else:
                del owners[owner]
            before, now = now, self._clock()
            spent[owner] = spent.get(owner, 0.0) + now - before
            if now >= enough:
                break
        for owner, seconds in spent.items():
            self.charged(owner, seconds)
        if owners:
            self._later(REST, self._go_on)


def _over(work: Iterator[object]) -> bool:
    """One step; whether it was the last."""
    try:
        next(work)
    except StopIteration:
        return True
    except Exception:  # one work's bug is not everybody's end
        log.exception("work could not be finished")
        return True
    return False
