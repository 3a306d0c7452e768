"""A log that hostile peers can't flood: per reason so many lines a period, then one line with the count."""

from __future__ import annotations

import logging


class Refusals:
    """`report` logs or counts; `tick` (once a second) says how many were left out. Reasons are a bounded set."""

    __slots__ = ("_counts", "_log", "_per_period", "_period", "_since", "by_reason")

    def __init__(self, log: logging.Logger, *, per_period: int = 5, period: float = 10.0) -> None:
        self._log = log
        self._per_period = per_period
        self._period = period
        self._since = 0.0
        self._counts: dict[str, int] = {}
        self.by_reason: dict[str, int] = {}  # since the start

    @property
    def total(self) -> int:
        return sum(self.by_reason.values())

    def report(self, kind: str, detail: str, address: str) -> None:
        """`kind` is a slug that doesn't come from the peer; detail and address may be anything (they are escaped)."""
        self.by_reason[kind] = self.by_reason.get(kind, 0) + 1
        count = self._counts.get(kind, 0) + 1
        self._counts[kind] = count
        if count <= self._per_period:
            shown = detail.encode("unicode_escape").decode()[:200]
            fields = {"event": "refused", "reason": kind, "address": address, "detail": shown}
            self._log.warning("refused %s: %s: %s", address, kind, shown, extra=fields)

    def tick(self, now: float) -> None:
        if now - self._since < self._period:
            return
        self._since = now
        for kind, count in self._counts.items():
            if count > self._per_period:
                left_out = count - self._per_period
                fields = {"event": "refused.suppressed", "reason": kind, "suppressed": left_out}
                self._log.warning("refused %d more: %s", left_out, kind, extra=fields)
        self._counts.clear()
