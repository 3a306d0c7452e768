"""What passes through this gateway, by route and by topic prefix: counted once per run of messages.

A session hands over whole runs; a run's messages nearly always have one target, so counting costs two passes in C and
two dictionary look-ups, whatever the run's length. Tables are capped: what finds no place is counted under `OTHER`,
and rows that have been quiet for long make room (their numbers join `OTHER`, so sums stay true). What a *device* moves
is counted by its connection, on the wire; see `gateway.server.server`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    __slots__ = ("bytes", "dead_lettered", "dropped", "expired", "messages", "moved", "refused")

    def __init__(self) -> None:
        self.messages = self.bytes = self.refused = self.dropped = self.expired = self.dead_lettered = 0
        self.moved = 0.0  # when it was last told

    def values(self) -> list[int]:
        """In the order of `FIELDS`."""
        return [self.messages, self.bytes, self.refused, self.dropped, self.expired, self.dead_lettered]

    def add(self, other: Row) -> None:
        for name in FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Table:
    """At most `limit` rows by name, `OTHER` beside them."""

    def __init__(self, limit: int = ROWS) -> None:
        self.rows: dict[str, Row] = {}
        self._limit = limit
        self._changed: set[str] = set()
        self._gone: list[str] = []

    def row(self, name: str) -> Row:
        """The row to count in; what was taken counts as changed."""
        found = self.rows.get(name)
        if found is None:
            if self._full():
                name = OTHER
            found = self.rows.get(name)
            if found is None:
                found = self.rows[name] = Row()
        self._changed.add(name)
        return found

    def changed(self, now: float) -> dict[str, list[int] | None]:
        """The rows counted in since the last call; None: its numbers are in `OTHER` now."""
        names, self._changed = self._changed, set()
        for name in names:
            self.rows[name].moved = now
        if self._full():
            self._make_room(now)
            names |= self._changed
            self._changed = set()
        told: dict[str, list[int] | None] = {name: self.rows[name].values() for name in names if name in self.rows}
        told |= dict.fromkeys(self._gone)
        self._gone = []
        return told

    def everything(self) -> dict[str, list[int] | None]:
        return {name: row.values() for name, row in self.rows.items()}

    def _full(self) -> bool:
        return len(self.rows) - (OTHER in self.rows) >= self._limit

    def _make_room(self, now: float) -> None:
        quiet = [name for name, row in self.rows.items() if name != OTHER and row.moved < now - QUIET]
        for name in quiet:
            self.row(OTHER).add(self.rows.pop(name))
            self._gone.append(name)


def prefix_of(topic: str, levels: int) -> str:
    """The first levels of an MQTT topic: what its messages are counted under."""
    if topic.count("/") >= levels:
        topic = "/".join(topic.split("/", levels)[:levels])
    return topic[:PREFIX_LENGTH]


class Traffic:
    """The two tables. A target has `prefix` and `route_name`."""

    def __init__(self, *, levels: int = 2) -> None:
        self.levels = levels
        self.routes = Table()
        self.prefixes = Table()

    def published(self, items: Sequence[PublishItem]) -> None:
        """A run was taken."""
        first, payload, *_ = items[0]
        if len(items) == 1:
            self._add(first, 1, len(payload))
            return
        if len(set(map(_target, items))) == 1:
            self._add(first, len(items), sum(map(len, map(_payload, items))))
            return
        for target, payload, *_ in items:
            self._add(target, 1, len(payload))

    def _add(self, target: Any, messages: int, size: int) -> None:
        for row in self._rows(target):
            row.messages += messages
            row.bytes += size

    def _rows(self, target: Any) -> Iterable[Row]:
        return self.routes.row(target.route_name), self.prefixes.row(target.prefix)

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
