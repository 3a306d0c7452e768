"""Long polls: who waits for which partition to grow.

`Waiting.advanced(partitions)` is called once per group commit, after the high watermarks moved. Whoever watches one of
the partitions is told; watching an idle partition costs nothing. `Poll` is one parked request: it gathers the
partitions that moved and calls back once, a coalescing window after the first of them or at its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.log.partition import Partition

Watcher = Callable[["Partition"], None]


class Waiting:
    """The watchers of every partition. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._watchers: dict[Partition, dict[Watcher, None]] = {}
        self._polls: set[Poll] = set()
        self.stopping = False

    def watch(self, partition: Partition, watcher: Watcher) -> None:
        """Tell `watcher(partition)` whenever the partition's high watermark or last stable offset moved, or it went."""
        self._watchers.setdefault(partition, {})[watcher] = None

    def unwatch(self, partition: Partition, watcher: Watcher) -> None:
        watchers = self._watchers.get(partition)
        if watchers is not None and watchers.pop(watcher, self) is None and not watchers:
            del self._watchers[partition]

    def advanced(self, partitions: Iterable[Partition]) -> None:
        """Tell the watchers that these partitions moved."""
        find = self._watchers.get
        for partition in partitions:
            watchers = find(partition)
            if watchers:
                for watcher in tuple(watchers):
                    watcher(partition)

    def parked(self, poll: Poll) -> None:
        self._polls.add(poll)

    def left(self, poll: Poll) -> None:
        self._polls.discard(poll)

    def stop(self) -> None:
        """Let every parked request answer with what it has; none parks from now on."""
        self.stopping = True
        for poll in tuple(self._polls):
            poll.expire()


class Poll:
    """One parked request. `wake(moved, expired)` is called on the loop; after `expired` no more."""

    __slots__ = ("_deadline", "_loop", "_moved", "_soon", "_waiting", "_wake", "_window", "over")

    def __init__(
        self,
        waiting: Waiting,
        loop: asyncio.AbstractEventLoop,
        *,
        seconds: float,
        window: float,
        wake: Callable[[set[Partition], bool], None],
    ) -> None:
        self._waiting = waiting
        self._loop = loop
        self._window = window
        self._wake = wake
        self._moved: set[Partition] = set()
        self._soon: asyncio.TimerHandle | asyncio.Handle | None = None
        self._deadline: asyncio.TimerHandle | None = loop.call_later(seconds, self.expire)
        self.over = False
        waiting.parked(self)

    def touched(self, partition: Partition) -> None:
        """A watched partition moved."""
        self._moved.add(partition)
        if self._soon is None and not self.over:
            if self._window:
                self._soon = self._loop.call_later(self._window, self._fire)
            else:
                self._soon = self._loop.call_soon(self._fire)

    def _fire(self) -> None:
        self._soon = None
        moved, self._moved = self._moved, set()
        if not self.over:
            self._wake(moved, False)

    def expire(self) -> None:
        """The time is up: the request answers now."""
        if self.over:
            return
        moved, self._moved = self._moved, set()
        self.cancel()
        self._wake(moved, True)

    def cancel(self) -> None:
        """The request is answered or its connection gone."""
        self.over = True
        self._waiting.left(self)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
