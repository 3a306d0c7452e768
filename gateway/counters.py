"""What a gateway counts since its start."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Messages unless said otherwise."""

    received: int = 0  # taken from devices: PUBLISH packets, and what came by HTTP
    received_http: int = 0  # of these, what came by HTTP
    denied: int = 0  # PUBLISH refused by a policy
    dead_lettered: int = 0
    sampled_out: int = 0
    duplicates: int = 0  # left out by their message id
    forgotten_ids: int = 0  # message ids given up within their window: too many
    dropped_away: int = 0  # QoS 0, the broker was away
    doubtful: int = 0  # connections closed since an outcome stayed unknown
    dropped_full: int = 0  # no room in a session's queue
    expired: int = 0
    expired_kept: int = 0  # of these, how many became dead letters
    unretained: int = 0  # stored and delivered, but not retained: too many or too large ones are
    undeliverable: int = 0  # references whose record retention removed
    connects: int = 0  # connections opened
    refused_connects: int = 0
    denied_subscriptions: int = 0
    denied_deliveries: int = 0

    def snapshot(self) -> dict[str, int]:
        return asdict(self)
