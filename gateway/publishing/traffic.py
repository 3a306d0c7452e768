"""What passes through this gateway, by route and by topic prefix: counted once per run of messages.

A session hands over whole runs; a run's messages nearly always have one target, which remembers its rows, so counting
costs two passes in C whatever the run's length. Tables are capped: what finds no place is counted under `OTHER`,
and rows that have been quiet for long make room (their numbers join `OTHER`, so sums stay true). What a *device* moves
is counted by its connection, on the wire; see `gateway.server.server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from gateway.contract import ROW_FIELDS
from gateway.ports import PublishItem

OTHER = "(other)"
DEFAULT_ROUTE = "(default)"
ROWS = 200
PREFIX_LENGTH = 120  # characters
QUIET = 600.0  # seconds after which a row makes room, when room is needed

FIELDS = ROW_FIELDS

_target = itemgetter(0)
_payload = itemgetter(1)


class Row:
    """Totals since the gateway's start. `expired` and `dropped` also count messages on their way to subscribers."""

    __slots__ = ("bytes", "dead_lettered", "dropped", "expired", "gone", "messages", "moved", "name", "refused")

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages = self.bytes = self.refused = self.dropped = self.expired = self.dead_lettered = 0
        self.moved = 0.0  # when it was last told
        self.gone = False  # it made room

    def values(self) -> list[int]:
        """In the order of `FIELDS`."""
        return [self.messages, self.bytes, self.refused, self.dropped, self.expired, self.dead_lettered]

    def add(self, other: Row) -> None:
        for name in FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Table:
    """At most `limit` rows by name, `OTHER` beside them. Who counts in a row adds it to `counted`."""

    def __init__(self, limit: int = ROWS) -> None:
        self.rows: dict[str, Row] = {}
        self.counted: set[Row] = set()
        self._limit = limit
        self._gone: list[str] = []

    def row(self, name: str) -> Row:
        """The row to count in; what was taken counts as changed."""
        found = self.rows.get(name)
        if found is None:
            if self._full():
                name = OTHER
            found = self.rows.get(name)
            if found is None:
                found = self.rows[name] = Row(name)
        self.counted.add(found)
        return found

    def changed(self, now: float) -> dict[str, list[int] | None]:
        """The rows counted in since the last call; None: its numbers are in `OTHER` now."""
        counted, self.counted = self.counted, set()
        for row in counted:
            row.moved = now
        if self._full():
            self._make_room(now)
            counted |= self.counted
            self.counted = set()
        told: dict[str, list[int] | None] = {row.name: row.values() for row in counted if not row.gone}
        told |= dict.fromkeys(self._gone)
        self._gone = []
        return told

    def everything(self) -> dict[str, list[int] | None]:
        return {name: row.values() for name, row in self.rows.items()}

    def _full(self) -> bool:
        return len(self.rows) - (OTHER in self.rows) >= self._limit

    def _make_room(self, now: float) -> None:
        quiet = [row for row in self.rows.values() if row.name != OTHER and row.moved < now - QUIET]
        for row in quiet:
            row.gone = True
            self.row(OTHER).add(self.rows.pop(row.name))
            self._gone.append(row.name)


def prefix_of(topic: str, levels: int) -> str:
    """The first levels of an MQTT topic: what its messages are counted under."""
    if topic.count("/") >= levels:
        topic = "/".join(topic.split("/", levels)[:levels])
    return topic[:PREFIX_LENGTH]


class Traffic:
    """The two tables. A target has `prefix` and `route_name`, and remembers its `rows`."""

    def __init__(self, *, levels: int = 2) -> None:
        self.levels = levels
        self.routes = Table()
        self.prefixes = Table()

    def published(self, items: Sequence[PublishItem]) -> None:
        """A run was taken."""
        first = items[0]
        if len(items) == 1:
            self._add(first[0], 1, len(first[1]))
        elif len(set(map(_target, items))) == 1:
            self._add(first[0], len(items), sum(map(len, map(_payload, items))))
        else:
            for target, payload, *_ in items:
                self._add(target, 1, len(payload))

    def _add(self, target: Any, messages: int, size: int) -> None:
        route, prefix = self._rows(target)
        route.messages += messages
        route.bytes += size
        prefix.messages += messages
        prefix.bytes += size

    def _rows(self, target: Any) -> tuple[Row, Row]:
        """Its route's and its prefix's. Looked for once, unless one is `OTHER`: there may be room later."""
        found: tuple[Row, Row] | None = target.rows
        if found is None or found[0].gone or found[1].gone:
            route, prefix = found = self.routes.row(target.route_name), self.prefixes.row(target.prefix)
            own = route.name == target.route_name and prefix.name == target.prefix
            target.rows = found if own else None
        self.routes.counted.add(found[0])
        self.prefixes.counted.add(found[1])
        return found

    def refused(self, target: Any) -> None:
        """A policy kept one message out. No route was asked."""
        self.prefixes.row(target.prefix).refused += 1

    def dropped(self, target: Any) -> None:
        """A QoS 0 message was let go while the broker was away."""
        for row in self._rows(target):
            row.dropped += 1

    def dead_lettered(self, target: Any) -> None:
        for row in self._rows(target):
            row.dead_lettered += 1

    def not_delivered(self, topic: str, why: str) -> None:
        """A message on its way to a subscriber: `expired`, or `dropped` for want of room."""
        row = self.prefixes.row(prefix_of(topic, self.levels))
        if why == "expired":
            row.expired += 1
        else:
            row.dropped += 1

    def kept(self, route: str, topic: str) -> None:
        """A message of this route expired on its way to a subscriber and became a dead letter."""
        self.routes.row(route or DEFAULT_ROUTE).dead_lettered += 1
        self.prefixes.row(prefix_of(topic, self.levels)).dead_lettered += 1

    def downlink(self, route: str, state: str, size: int = 0) -> None:
        """What became of a record of a downlink route; states as in `contract.Command`."""
        row = self.routes.row(route)
        if state == "pending":
            row.messages += 1
            row.bytes += size
        elif state == "expired":
            row.expired += 1
        elif state == "failed":
            row.dropped += 1
