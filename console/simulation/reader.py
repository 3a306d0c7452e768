"""A consumer group that works in waves: slower than the devices for a while, then fast enough to catch up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

WAVE_SECONDS = 60.0
SLOW, FAST = 0.6, 1.6  # times the traffic
STEP_SECONDS = 0.25


class Source(Protocol):
    """What the reader needs of a consumer."""

    def poll_count(self, maximum: int, timeout: float) -> int:
        """Read up to `maximum` records, commit them, and say how many they were."""

    def close(self) -> None: ...


def pace(traffic: float, elapsed: float) -> float:
    """Records per second `elapsed` seconds into the run: slow in the first half of each wave, fast in the second."""
    return traffic * (SLOW if elapsed % WAVE_SECONDS < WAVE_SECONDS / 2 else FAST)


def read(source: Source, *, traffic: float, stop: threading.Event, counted: Callable[[int], None]) -> None:
    """Read at `pace` until `stop`."""
    started = time.monotonic()
    allowed = 0.0
    try:
        while not stop.is_set():
            allowed = min(allowed + pace(traffic, time.monotonic() - started) * STEP_SECONDS, traffic * 5 + 1)
            if allowed >= 1:
                read_now = source.poll_count(int(allowed), timeout=STEP_SECONDS)
                allowed -= read_now
                counted(read_now)
            stop.wait(STEP_SECONDS)
    finally:
        source.close()
