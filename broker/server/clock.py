"""The clocks of the machine."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time in milliseconds since the epoch, and seconds that never go back."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
