"""From positions seen over time to rates: pure, `now` is an argument.

A rate is the slope between the newest sample and the oldest within the window. Positions that go back (a topic made
anew, offsets reset) begin a new window: no rate is better than a negative one.
"""

from collections import deque
from dataclasses import dataclass

IN_WINDOW = 5.0  # seconds: end offsets move with every record
OUT_WINDOW = 12.0  # commits come every few seconds, so a shorter window shows a sawtooth
LEAST_SPAN = 0.8


class Slope:
    """One position over time."""

    __slots__ = ("_samples", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, position: int) -> None:
        samples = self._samples
        if samples and position < samples[-1][1]:
            samples.clear()
        samples.append((now, position))
        while len(samples) > 2 and samples[0][0] < now - self._window:
            samples.popleft()

    def correct(self, position: int) -> None:
        """The newest sample was of this position."""
        now, _ = self._samples.pop()
        self.add(now, position)

    def rate(self, now: float) -> float | None:
        """Units per second; None before there are two samples, or when the newest is too old."""
        samples = self._samples
        if len(samples) < 2 or now - samples[-1][0] > 2 * self._window:
            return None
        span = samples[-1][0] - samples[0][0]
        if span < LEAST_SPAN:
            return None
        return (samples[-1][1] - samples[0][1]) / span


class Slopes:
    """Slopes by name; the names that are no longer there are forgotten."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._by_name: dict[str, tuple[object, Slope]] = {}

    def add(self, name: str, shape: object, now: float, position: int) -> None:
        """`shape` is what the position is a sum over (partitions, a topic's id): another shape begins anew."""
        known = self._by_name.get(name)
        if known is None or known[0] != shape:
            known = self._by_name[name] = (shape, Slope(self._window))
        known[1].add(now, position)

    def rate(self, name: str, now: float) -> float | None:
        known = self._by_name.get(name)
        return None if known is None else known[1].rate(now)

    def keep(self, names: set[str]) -> None:
        for name in self._by_name.keys() - names:
            del self._by_name[name]


def eta(lag: int | None, consumed: float | None, produced: float | None) -> float | None:
    """Seconds until `lag` is gone at the present rates; None while it doesn't shrink, or isn't known."""
    if lag is None:
        return None
    if lag == 0:
        return 0.0
    if consumed is None or produced is None or consumed - produced < 0.05:
        return None
    return lag / (consumed - produced)


@dataclass(slots=True)
class Cadence:
    """How often to do something that takes as long as it takes: at most one part in `share` of the time."""

    least: float
    most: float
    share: float = 8.0
    due: float = 0.0
    last: float | None = None

    def is_due(self, now: float) -> bool:
        return now >= self.due

    def done(self, now: float, took: float) -> None:
        self.due = now + min(max(self.least - took, took * self.share, 0.0), self.most)
        self.last = now
