"""Trying routes: where a message or record would go, by the very functions that the gateway places them with."""

from collections.abc import Sequence
from dataclasses import dataclass

from console.routes.models import Route
from gateway.routes import DEFAULT, Downlink, Incoming, Outgoing, Placed, Refusal, Table, Uplink, outgoing, place


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
    records = [route.record() for route in Route.objects.filter(kind=Route.Kind.UPLINK)]
    rules = [record for record in records if isinstance(record, Uplink) and (not draft or record.name != draft.name)]
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
