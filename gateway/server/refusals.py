"""Connections closed for a reason: logged so that hostile peers can't flood the log, and told to people.

Per reason the log gets so many lines a period, then one line with the count. For people the latest are collected by who
it was, from where and why (`take`), so many between two takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLLECTED = 50  # different ones between two takes
LONGEST = 200  # characters of what the peer said of itself


@dataclass(slots=True, eq=False)
class _Closed:
    detail: str
    count: int
    at: float


class Refusals:
    """`report` logs or counts; `tick` (once a second) says how many were left out. Reasons are a bounded set."""

    __slots__ = ("_clock", "_collected", "_counts", "_log", "_per_period", "_period", "_since", "by_reason")

    def __init__(
        self,
        log: logging.Logger,
        *,
        per_period: int = 5,
        period: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives epoch seconds, for `take`."""
        self._log = log
        self._clock = clock
        self._collected: dict[tuple[str, str, str, str, str], _Closed] = {}
        self._per_period = per_period
        self._period = period
        self._since = 0.0
        self._counts: dict[str, int] = {}
        self.by_reason: dict[str, int] = {}  # since the start

    @property
    def total(self) -> int:
        return sum(self.by_reason.values())

    def report(
        self, kind: str, detail: str, address: str, *, client_id: str = "", username: str = "", why: str = ""
    ) -> None:
        """`kind` is a slug that doesn't come from the peer; detail and address may be anything (they are escaped).

        `client_id` and `username`: as the peer calls itself, which proves nothing. `why`: a word of `gateway.why`.
        """
        self.by_reason[kind] = self.by_reason.get(kind, 0) + 1
        self._collect(kind, detail, address, client_id, username, why)
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

    def take(self) -> list[list[Any]]:
        """What was collected since the last take, each in the order of `contract.CLOSED_FIELDS`."""
        taken, self._collected = self._collected, {}
        return [[*who, one.detail, one.count, round(one.at, 3), why] for (why, *who), one in taken.items()]

    def _collect(self, kind: str, detail: str, address: str, client_id: str, username: str, why: str) -> None:
        host = address.rpartition(":")[0].strip("[]") or address
        key = (why, kind, client_id[:LONGEST], username[:LONGEST], host[:LONGEST])
        known = self._collected.get(key)
        if known is not None:
            known.detail, known.count, known.at = detail[:LONGEST], known.count + 1, self._clock()
        elif len(self._collected) < COLLECTED:
            self._collected[key] = _Closed(detail[:LONGEST], 1, self._clock())
