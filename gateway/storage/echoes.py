"""Which partitions need not be fetched for a while, since all that comes there is what this process writes.

Theory. What this process wrote is dealt with when it is durable; fetching it again only shows that nothing came
between. The offsets of one's own records show that too, as long as they follow upon each other. So a partition that
nobody else has written to for a while, and that this process writes to without a pause, is left alone. It is fetched
again, from where dealing with it has come to, at the first offset that is missing, and as soon as nothing more of ours
comes: then the next record may be somebody else's and would be seen by nobody.

Starting and stopping costs little; but a record of somebody else waits up to two `LOOK`s when it comes to a partition
that isn't fetched. So one that somebody else writes to now and then is fetched all the time.
"""

from __future__ import annotations

from collections.abc import Mapping

LOOK = 0.05  # seconds between two looks
ENOUGH = 20  # records of ours between two looks that make a partition busy
AT_FIRST = 10  # busy looks after which it isn't fetched
LATER = 100  # likewise, once others have written there
FADES = 3  # busy looks that one which is not outweighs

Key = tuple[str, int]


class Echo:
    """One partition."""

    __slots__ = ("busy", "count", "end", "needed", "stopped")

    def __init__(self, end: int) -> None:
        self.end = end  # the offset after the last record of ours
        self.count = 0  # of ours since the last look
        self.busy = 0  # looks that found it so, lately
        self.needed = AT_FIRST
        self.stopped = False

    def between(self) -> None:
        """There is something before the next record of ours."""
        self.busy = 0
        self.needed = LATER


class Echoes:
    """Of all partitions that this process writes to."""

    def __init__(self) -> None:
        self._known: dict[Key, Echo] = {}

    def of(self, key: Key, offset: int) -> Echo:
        """The partition's, whose next record of ours is at this offset."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Echo(offset)
        return found

    def stopped(self, key: Key) -> bool:
        """Whether it isn't fetched."""
        found = self._known.get(key)
        return found is not None and found.stopped

    def again(self, key: Key) -> bool:
        """It has to be fetched from now on; False: it is."""
        found = self._known.get(key)
        if found is None or not found.stopped:
            return False
        found.stopped = False
        return True

    def forget(self, key: Key) -> None:
        """It isn't read any more."""
        self._known.pop(key, None)

    def look(self, positions: Mapping[Key, int]) -> tuple[list[Key], list[Key], bool]:
        """Every `LOOK` seconds: what not to fetch from now on, what to fetch again, and whether to look again.
        `positions`: how far everything has been dealt with."""
        stop, again = [], []
        lively = False
        for key, echo in self._known.items():
            lively |= echo.count > 0 or echo.stopped
            if echo.count >= ENOUGH:
                echo.busy = min(echo.busy + 1, echo.needed)
                if not echo.stopped and echo.busy >= echo.needed and positions.get(key, -1) == echo.end:
                    echo.stopped = True
                    stop.append(key)
            else:
                echo.busy = max(0, echo.busy - FADES)
                if echo.stopped:
                    echo.stopped = False
                    again.append(key)
            echo.count = 0
        return stop, again, lively
