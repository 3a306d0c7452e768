"""Trying routes: where a message or record would go, by the very functions that the gateway places them with."""

from collections.abc import Sequence
from dataclasses import dataclass

from console.routes.models import Route
from console.snapshot import Picture
from gateway.contract import GATEWAY_DEAD_LETTERS
from gateway.routes import (
    DEFAULT,
    Downlink,
    Incoming,
    Outgoing,
    Placed,
    Refusal,
    Table,
    Uplink,
    could_write,
    outgoing,
    place,
)

LANDING = 12  # topics


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """`outcome` is where the message goes, or why it can't. `default`: no route matched."""

    outcome: Placed | Refusal
    route: Uplink
    default: bool

    @property
    def placed(self) -> Placed | None:
        return self.outcome if isinstance(self.outcome, Placed) else None

    @property
    def refusal(self) -> Refusal | None:
        return self.outcome if isinstance(self.outcome, Refusal) else None


def uplink(message: Incoming, draft: Uplink | None = None) -> Up:
    """Where the routes in force put a message, with `draft` among them in place of the route of its name."""
    rules = [record for record in _uplinks() if not draft or record.name != draft.name]
    route = Table([*rules, *([draft] if draft else [])]).find(message.topic)
    return Up(outcome=place(route, message), route=route, default=route is DEFAULT)


def downlink(
    topic: str, *, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes | None]] = ()
) -> list[Outgoing | Refusal]:
    """What a record of `topic` becomes, for each downlink route of that topic."""
    found = Route.objects.filter(kind=Route.Kind.DOWNLINK, source=topic, enabled=True)
    records = [route.record() for route in found]
    return [
        outgoing(record, key=key, value=value, headers=headers) for record in records if isinstance(record, Downlink)
    ]


def landing(picture: Picture, routes: Sequence[Uplink] | None = None) -> list[str]:
    """The topics there are that uplink routes may put messages in, those written latest first; at most LANDING.

    Without `routes`: of all in force, with the one for what no route matches and the gateways' dead letters.
    """
    rules = [*_table().routes, DEFAULT] if routes is None else routes
    found = [
        topic
        for topic in picture.user_topics()
        if any(could_write(rule, topic.name) for rule in rules)
        or (routes is None and topic.name == GATEWAY_DEAD_LETTERS)
    ]
    found.sort(key=lambda topic: (-(topic.last or 0), topic.name))
    return [topic.name for topic in found[:LANDING]]


def route_of(mqtt_topic: str) -> Uplink:
    """The uplink route in force that decides for an MQTT topic now; DEFAULT when no other matches."""
    return _table().find(mqtt_topic)


def _table() -> Table:
    return Table(_uplinks())


def _uplinks() -> list[Uplink]:
    records = [route.record() for route in Route.objects.filter(kind=Route.Kind.UPLINK)]
    return [record for record in records if isinstance(record, Uplink)]
