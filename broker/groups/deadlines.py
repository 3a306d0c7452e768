"""Deadlines that move often and fire rarely.

A heartbeat moves its member's session deadline forward every few seconds. So the heap holds at most one entry
per key that matters: moving a deadline later only changes the table, and the entry is put back when it comes up early.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", bound=tuple[str, ...])


class Deadlines(Generic[K]):
    """Which key is due when (milliseconds)."""

    __slots__ = ("_at", "_heap", "_queued")

    def __init__(self) -> None:
        self._at: dict[K, int] = {}
        self._queued: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []

    def set(self, key: K, at: int) -> None:
        """Make the key due at that time, whatever it was before."""
        self._at[key] = at
        queued = self._queued.get(key)
        if queued is None or at < queued:
            self._queued[key] = at
            heapq.heappush(self._heap, (at, key))

    def clear(self, key: K) -> None:
        """Forget the key."""
        self._at.pop(key, None)

    def get(self, key: K) -> int | None:
        """When the key is due."""
        return self._at.get(key)

    def next(self) -> int | None:
        """The earliest time at which `due` may have something to say (never too late)."""
        while self._heap:
            at, key = self._heap[0]
            if self._queued.get(key) != at:
                heapq.heappop(self._heap)
                continue
            wanted = self._at.get(key)
            if wanted == at:
                return at
            heapq.heappop(self._heap)
            if wanted is None:
                del self._queued[key]
            else:
                self._queued[key] = wanted
                heapq.heappush(self._heap, (wanted, key))
        return None

    def due(self, now: int) -> list[K]:
        """Take out every key whose time has come, earliest first."""
        keys = []
        while (at := self.next()) is not None and at <= now:
            _, key = heapq.heappop(self._heap)
            del self._queued[key]
            del self._at[key]
            keys.append(key)
        return keys
