"""Log lines about misbehaving peers, so that a flood of bad connections can't become a flood of log."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Complaints:
    """At most `burst` lines per kind and second; the rest is counted and told in one line later."""

    def __init__(self, logger: logging.Logger, monotonic: Callable[[], float], burst: int = 5) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._burst = burst
        self._second: dict[str, int] = {}
        self._said: dict[str, int] = {}
        self._kept_back: dict[str, int] = {}

    def say(self, kind: str, message: str) -> None:
        """Log the message at warning level, unless its kind was loud enough this second."""
        second = int(self._monotonic())
        if self._second.get(kind) != second:
            kept_back = self._kept_back.pop(kind, 0)
            if kept_back:
                self._logger.warning("%s: %d more of the kind", kind, kept_back)
            self._second[kind], self._said[kind] = second, 0
        if self._said[kind] < self._burst:
            self._said[kind] += 1
            self._logger.warning("%s: %s", kind, message)
        else:
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
