"""What the broker counts of its own work, for `__sluice_broker`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Meter:
    """Totals since the start. Whoever wants rates takes differences."""

    produced_batches: int = 0
    produced_records: int = 0
    produced_bytes: int = 0
    produce_requests: int = 0
    fetched_bytes: int = 0
    fetch_requests: int = 0
    failed_authentications: int = 0
    authentications: int = 0
    throttled: int = 0
    errors: dict[str, int] = field(default_factory=dict)
