"""What simulated devices report: pure, and the same for the same seed.

A plant has lines of machines. Temperature follows the day and drifts, vibration grows with wear until a service sets it
back, a meter only ever counts up: shapes that somebody who looks at a chart or a payload recognises.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field

SITES = ("basel", "chengdu", "oslo", "porto")
KINDS = ("press", "pump", "oven", "meter")
DAY_SECONDS = 86_400


@dataclass(slots=True, kw_only=True)
class Machine:
    """One device. `report(now)` moves its state on and returns a topic and a JSON payload."""

    number: int
    seed: int
    wear: float = 0.0
    drift: float = 0.0
    total: float = 0.0
    last: float | None = None
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed * 1_000_003 + self.number)
        self.wear = self.random.random()
        self.total = self.random.uniform(1_000, 90_000)

    @property
    def site(self) -> str:
        return SITES[self.number % len(SITES)]

    @property
    def kind(self) -> str:
        return KINDS[self.number // len(SITES) % len(KINDS)]

    @property
    def client_id(self) -> str:
        return f"{self.site}-{self.kind}-{self.number:04d}"

    @property
    def topic(self) -> str:
        return f"plant/{self.site}/{self.kind}/{self.number:04d}/telemetry"

    def report(self, now: float) -> bytes:
        """The payload at `now` (seconds since the epoch)."""
        elapsed = 0.0 if self.last is None else max(0.0, now - self.last)
        self.last = now
        self.drift = 0.98 * self.drift + self.random.gauss(0, 0.15)
        self.wear += elapsed / 3_600 * self.random.uniform(0.5, 1.5)
        if self.wear > 1.0 and self.random.random() < 0.01:
            self.wear = 0.0
        day = math.sin(2 * math.pi * (now % DAY_SECONDS) / DAY_SECONDS)
        base = {"press": 48.0, "pump": 36.0, "oven": 182.0, "meter": 24.0}[self.kind]
        power = max(0.0, base / 12 + day + self.random.gauss(0, 0.3))
        self.total += power * elapsed / 3_600
        reading = {
            "at": round(now, 3),
            "temperature": round(base + 2.5 * day + self.drift, 2),
            "vibration": round(0.8 + 2.2 * self.wear + abs(self.random.gauss(0, 0.08)), 3),
            "power_kw": round(power, 3),
            "energy_kwh": round(self.total, 3),
            "state": "warning" if self.wear > 0.95 else "running",
        }
        return json.dumps(reading, separators=(",", ":")).encode()
