"""Client quotas: how many bytes a second a user or client may produce and fetch, and how long it has to wait (KIP-13).

Each (user, client id) pair that some quota covers has a bucket per direction: bytes used drain at the quota's rate;
what is above one second's worth is the time to wait. The most specific quota wins, in Kafka's order: (user, client),
(user, default client), (user), (default user, client), (default user, default client), (default user), (client),
(default client).
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.cluster.metadata import QuotaEntity

PRODUCE = "producer_byte_rate"
FETCH = "consumer_byte_rate"
REQUEST = "request_percentage"
MUTATIONS = "controller_mutation_rate"
CONNECTIONS = "connection_creation_rate"

BURST_SECONDS = 1.0
MAX_THROTTLE_SECONDS = 30.0
BUCKETS = 10_000


class _Bucket:
    __slots__ = ("at", "rate", "used")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.used = 0.0
        self.at = now


class Quotas:
    """Decides throttle times. `table` is the image's quotas; `changed()` after they did."""

    def __init__(self, table: Mapping[QuotaEntity, Mapping[str, float]]) -> None:
        self._table = table
        self._buckets: dict[tuple[str, str, str], _Bucket | None] = {}

    def changed(self) -> None:
        """Quotas are others now."""
        self._buckets.clear()

    def throttle(self, kind: str, principal: str, client_id: str | None, amount: float, now: float) -> int:
        """Count `amount` (bytes) against the quota; the milliseconds to wait. `now` in monotonic seconds."""
        if not self._table:
            return 0
        key = (kind, principal, client_id or "")
        bucket = self._buckets.get(key, self)
        if bucket is self:
            if len(self._buckets) >= BUCKETS:
                self._buckets.clear()
            rate = self.rate(kind, principal.removeprefix("User:"), client_id or "")
            bucket = self._buckets[key] = None if rate is None else _Bucket(rate, now)
        if bucket is None:
            return 0
        assert isinstance(bucket, _Bucket)
        bucket.used = max(0.0, bucket.used - (now - bucket.at) * bucket.rate) + amount
        bucket.at = now
        over = bucket.used - bucket.rate * BURST_SECONDS
        if over <= 0:
            return 0
        seconds = MAX_THROTTLE_SECONDS if bucket.rate <= 0 else min(MAX_THROTTLE_SECONDS, over / bucket.rate)
        return max(1, int(seconds * 1000))

    def rate(self, kind: str, user: str, client: str) -> float | None:
        """The quota that holds for this pair; None when there is none."""
        for entity in (
            (("client-id", client), ("user", user)),
            (("client-id", None), ("user", user)),
            (("user", user),),
            (("client-id", client), ("user", None)),
            (("client-id", None), ("user", None)),
            (("user", None),),
            (("client-id", client),),
            (("client-id", None),),
        ):
            found = self._table.get(entity, {}).get(kind)
            if found is not None:
                return found
        return None

    def connections_per_address(self, address: str, default: int) -> int:
        """How many connections an address may hold."""
        return default
