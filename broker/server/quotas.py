"""Client quotas: what a user, a client or an address may use, and how long it waits beyond that.

Bytes produced and fetched (KIP-13), the broker's time (KIP-124), partitions created and deleted (KIP-599) and
connections opened (KIP-612). The most specific quota holds, in Kafka's order: (user, client), (user, default client),
(user), (default user, client), (default user, default client), (default user), (client), (default client). A quota of a
user alone is shared by all its clients and a quota of a client alone by all its users, as in Kafka: what they use goes
into one bucket.

A bucket drains at the quota's rate and holds what Kafka's window holds: ten seconds' worth (eleven of mutations); what
is above is the time to wait. Kafka's sliding window forgets a burst all at once, a bucket step by step, so that whoever
keeps to the rate is never held up for a burst that is over (KIP-599 says why, and does so for mutations).
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.cluster.metadata import QuotaEntity

PRODUCE = "producer_byte_rate"
FETCH = "consumer_byte_rate"
REQUEST = "request_percentage"
MUTATIONS = "controller_mutation_rate"
CONNECTIONS = "connection_creation_rate"

WINDOW_SECONDS = 10.0
"""`quota.window.num` less the one under way, times `quota.window.size.seconds`."""
MUTATION_SECONDS = 11.0
"""`controller.quota.window.num` times `controller.quota.window.size.seconds`."""
MAX_THROTTLE_SECONDS = {PRODUCE: 30.0, FETCH: 30.0, REQUEST: 1.0, MUTATIONS: 3600.0, CONNECTIONS: 1.0}
BUCKETS = 10_000

Scope = tuple[str, str, str]
"""What a bucket belongs to: the quota's key, then user and client (or address), "" for all of them."""


class MutationQuotaExceeded(Exception):
    """Too many partitions were created or deleted: nothing more until the quota has recovered (KIP-599)."""

    def __init__(self) -> None:
        super().__init__("The throttling quota has been exceeded.")


class _Bucket:
    """What was used and has not drained yet, in the quota's unit."""

    __slots__ = ("at", "rate", "room", "used")

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self.rate = rate
        self.room = rate * seconds
        self.used = 0.0
        self.at = now

    def drain(self, now: float) -> None:
        self.used = max(0.0, self.used - (now - self.at) * self.rate)
        self.at = now

    def wait(self, kind: str) -> int:
        """Milliseconds until no more is used than there is room for."""
        over = self.used - self.room
        if over <= 0:
            return 0
        return max(1, int(min(MAX_THROTTLE_SECONDS[kind], over / self.rate) * 1000))


class Quotas:
    """Decides throttle times. `table` is the image's quotas; `changed()` after they did. `now`: monotonic seconds."""

    def __init__(self, table: Mapping[QuotaEntity, Mapping[str, float]]) -> None:
        self._table = table
        self._found: dict[Scope, _Bucket | None] = {}
        self._buckets: dict[Scope, _Bucket] = {}
        self.times_requests = False
        """Whether any quota is on the broker's time, so that requests must be timed."""
        self.changed()

    def changed(self) -> None:
        """Quotas are others now. What was used stays used."""
        self._found.clear()
        self.times_requests = any(REQUEST in values for values in self._table.values())

    def throttle(self, kind: str, principal: str, client_id: str | None, amount: float, now: float) -> int:
        """Count `amount` (bytes, or percent of a second for REQUEST); the milliseconds to wait."""
        if not self._table:
            return 0
        bucket = self._bucket(kind, principal, client_id, now)
        if bucket is None:
            return 0
        bucket.drain(now)
        bucket.used += amount
        return bucket.wait(kind)

    def most(self, kind: str, principal: str, client_id: str | None, now: float) -> int | None:
        """The most bytes one answer may have: more would be waited for however idle the client was. None: no quota."""
        if not self._table:
            return None
        bucket = self._bucket(kind, principal, client_id, now)
        return None if bucket is None else int(bucket.room)

    def mutations(self, principal: str, client_id: str | None, *, strict: bool, now: float) -> Mutations:
        """What one request may create and delete. `strict`: beyond the quota it is refused, not only slowed down."""
        bucket = self._bucket(MUTATIONS, principal, client_id, now) if self._table else None
        return Mutations(bucket, strict=strict)

    def connection(self, address: str, now: float) -> int:
        """Count a connection; 0 when it is welcome, else the milliseconds to hold it before it is closed (KIP-612)."""
        if not self._table:
            return 0
        scope = (CONNECTIONS, "", address)
        rate = self._table.get((("ip", address),), {}).get(CONNECTIONS)
        if rate is None:
            rate = self._table.get((("ip", None),), {}).get(CONNECTIONS)
        if rate is None:
            return 0
        bucket = self._kept(scope, rate, now)
        bucket.drain(now)
        bucket.used += 1
        wait = bucket.wait(CONNECTIONS)
        if wait:
            bucket.used -= 1  # it never came to be
        return wait

    def rate(self, kind: str, user: str, client: str) -> float | None:
        """The quota that holds for this pair; None when there is none."""
        held = self._held(kind, user, client)
        return None if held is None else held[1]

    def _held(self, kind: str, user: str, client: str) -> tuple[Scope, float] | None:
        """The quota that holds for this pair, and whose bucket it is."""
        both, users, clients = (kind, user, client), (kind, user, ""), (kind, "", client)
        choices: tuple[tuple[QuotaEntity, Scope], ...] = (
            ((("client-id", client), ("user", user)), both),
            ((("client-id", None), ("user", user)), both),
            ((("user", user),), users),
            ((("client-id", client), ("user", None)), both),
            ((("client-id", None), ("user", None)), both),
            ((("user", None),), users),
            ((("client-id", client),), clients),
            ((("client-id", None),), clients),
        )
        for entity, scope in choices:
            found = self._table.get(entity, {}).get(kind)
            if found is not None:
                return scope, found
        return None

    def _bucket(self, kind: str, principal: str, client_id: str | None, now: float) -> _Bucket | None:
        key = (kind, principal, client_id or "")
        try:
            return self._found[key]
        except KeyError:
            pass
        if len(self._found) >= BUCKETS:
            self._found.clear()
        held = self._held(kind, principal.removeprefix("User:"), client_id or "")
        bucket = self._found[key] = None if held is None else self._kept(*held, now)
        return bucket

    def _kept(self, scope: Scope, rate: float, now: float) -> _Bucket:
        """The scope's bucket, at the rate that holds now."""
        bucket = self._buckets.get(scope)
        if bucket is None:
            if len(self._buckets) >= BUCKETS:
                self._make_room(now)
            seconds = MUTATION_SECONDS if scope[0] == MUTATIONS else WINDOW_SECONDS
            bucket = self._buckets[scope] = _Bucket(rate, seconds, now)
        elif bucket.rate != rate:
            bucket.drain(now)
            bucket.room *= rate / bucket.rate
            bucket.rate = rate
        return bucket

    def _make_room(self, now: float) -> None:
        """Forget buckets that have drained; all of them when none has, or memory would follow the clients' names."""
        for bucket in self._buckets.values():
            bucket.drain(now)
        self._buckets = {scope: bucket for scope, bucket in self._buckets.items() if bucket.used}
        if len(self._buckets) >= BUCKETS:
            self._buckets.clear()
        self._found.clear()


class Mutations:
    """What one request may still create and delete: tokens of a bucket that refills at the quota's rate (KIP-599)."""

    __slots__ = ("_bucket", "_strict", "_until")

    def __init__(self, bucket: _Bucket | None, *, strict: bool) -> None:
        self._bucket = bucket
        self._strict = strict
        self._until = 0.0

    def spend(self, partitions: int, now: float) -> None:
        """Count partitions to be created or deleted. A strict quota that is used up raises MutationQuotaExceeded;
        one that is not takes any number, as in Kafka, and is used up until that has drained."""
        bucket = self._bucket
        if bucket is None:
            return
        bucket.drain(now)
        if self._strict:
            wait = bucket.wait(MUTATIONS)
            if wait:
                self._until = now + wait / 1000
                raise MutationQuotaExceeded
            bucket.used += partitions
        else:
            bucket.used += partitions
            self._until = now + bucket.wait(MUTATIONS) / 1000

    def throttle(self, now: float) -> int:
        """Milliseconds the client has to wait now."""
        return max(0, round((self._until - now) * 1000))
