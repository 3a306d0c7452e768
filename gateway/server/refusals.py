"""A log that hostile peers can't flood: per reason so many lines a period, then one line with the count."""

from __future__ import annotations

import logging


class Refusals:
    """`report` logs or counts; `tick` (once a second) says how many were left out. Reasons are a bounded set."""

    __slots__ = ("_counts", "_log", "_per_period", "_period", "_since", "total")

    def __init__(self, log: logging.Logger, *, per_period: int = 5, period: float = 10.0) -> None:
        self._log = log
        self._per_period = per_period
        self._period = period
        self._since = 0.0
        self._counts: dict[str, int] = {}
        self.total = 0

    def report(self, kind: str, detail: str, address: str) -> None:
        """`kind` is a slug that doesn't come from the peer; detail and address may be anything (they are escaped)."""
        self.total += 1
        count = self._counts.get(kind, 0) + 1
        self._counts[kind] = count
        if count <= self._per_period:
            self._log.warning("closed %s: %s: %s", address, kind, detail.encode("unicode_escape").decode()[:200])

    def tick(self, now: float) -> None:
        if now - self._since < self._period:
            return
        self._since = now
        for kind, count in self._counts.items():
            if count > self._per_period:
                self._log.warning("closed %d more: %s", count - self._per_period, kind)
        self._counts.clear()
