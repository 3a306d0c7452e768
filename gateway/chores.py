"""Long work, in small steps between everything else.

What a single packet may ask for a thousand times (filters that enter and leave the trees, retained messages that a
filter covers) would hold the loop for as long as it takes, and all others with it. Such work is an iterator whose
every step is short. Steps are done a slice at a time, then the loop belongs to all others for longer: a third of it at
most goes there, however much is asked for, and who waits for an acknowledgement, which takes a few turns of the loop,
waits for a few slices more. Owners (addresses) take turns step by step, so who asks for much waits for itself. A step
that costs others than this process (what is written makes work for the broker, and whoever reads it again) gives the
seconds that its owner rests for it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

log = logging.getLogger("sluice.gateway")

SLICE: Final = 0.0004  # seconds
REST: Final = 0.001
MOST_CHARGED: Final = 0.01  # seconds: longer work is charged for in parts, other work at its end
STEP: Final = 16  # so many of something are a step


class Chores:
    """`later(seconds, call)` calls once; `clock` gives seconds. `charged` hears whose work took how many seconds of
    `spent`: of the processor's, for which nobody pays who waits for it on a busy machine."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], Any],
        *,
        clock: Callable[[], float] = time.perf_counter,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._later = later
        self._clock = clock
        self._spent = spent
        self.charged: Callable[[str, float], None] = lambda owner, seconds: None
        self._owners: OrderedDict[str, deque[_Work]] = OrderedDict()
        self._resting: dict[str, deque[_Work]] = {}

    def add(self, owner: str, work: Iterator[float | None]) -> None:
        """Do this, after what else there is of the same owner."""
        if owner in self._resting:
            self._resting[owner].append(_Work(work))
            return
        if not self._owners:
            self._later(0.0, self._go_on)
        self._owners.setdefault(owner, deque()).append(_Work(work))

    def _go_on(self) -> None:
        owners, now = self._owners, self._spent()
        enough = self._clock() + SLICE
        while owners:
            owner = next(iter(owners))
            works = owners[owner]
            work = works[0]
            rest = _step(work.steps)
            before, now = now, self._spent()
            work.spent += now - before
            if rest is None:
                works.popleft()
            if rest is None or work.spent > MOST_CHARGED:
                spent, work.spent = work.spent, 0.0
                self.charged(owner, spent)
            if not works:
                del owners[owner]
            elif rest:
                self._rest(owner, rest)
            else:
                owners.move_to_end(owner)
            if self._clock() >= enough:
                break
        if owners:
            self._later(REST, self._go_on)

    def _rest(self, owner: str, seconds: float) -> None:
        self._resting[owner] = self._owners.pop(owner)

        def rested() -> None:
            if not self._owners:
                self._later(0.0, self._go_on)
            self._owners[owner] = self._resting.pop(owner)

        self._later(seconds, rested)


class _Work:
    """`spent`: seconds that nobody was charged for yet."""

    __slots__ = ("spent", "steps")

    def __init__(self, steps: Iterator[float | None]) -> None:
        self.steps = steps
        self.spent = 0.0


def _step(work: Iterator[float | None]) -> float | None:
    """One step; how long its owner rests after it. None: it was the last."""
    try:
        return next(work) or 0.0
    except StopIteration:
        return None
    except Exception:  # one work's bug is not everybody's end
        log.exception("work could not be finished")
        return None
