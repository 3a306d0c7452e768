"""What gateways count, as pages show it: labelled numbers that move by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from console.snapshot import Picture

PREFIX = "prefix/"

Field = tuple[str, Any, str]
"""(field, label, form as the `live` tag knows it)."""

OF_A_DEVICE: Sequence[Field] = (
    ("rate", _("Received/s"), "rate"),
    ("out_rate", _("Sent/s"), "rate"),
    ("received", _("Received"), "num"),
    ("sent", _("Sent"), "num"),
    ("refused", _("Refused"), "num"),
    ("dropped", _("Dropped"), "num"),
    ("expired", _("Expired"), "num"),
    ("in_flight", _("In flight"), "num"),
    ("queued", _("Queued"), "num"),
    ("subscriptions", _("Subscriptions"), "num"),
    ("received_bytes", _("Bytes received"), "size"),
    ("sent_bytes", _("Bytes sent"), "size"),
)
OF_A_ROUTE: Sequence[Field] = (
    ("rate", _("Messages/s"), "rate"),
    ("bytes_rate", _("Bytes/s"), "size"),
    ("messages", _("Messages"), "num"),
    ("bytes", _("Bytes"), "size"),
    ("dropped", _("Dropped"), "num"),
    ("expired", _("Expired"), "num"),
    ("dead_lettered", _("Dead letters"), "num"),
)

OF_A_GATEWAY: Sequence[Field] = (
    ("rate", _("Received/s"), "rate"),
    ("http_rate", _("By HTTP/s"), "rate"),
    ("out_rate", _("Sent/s"), "rate"),
    ("connections", _("Clients connected"), "num"),
    ("sessions", _("Sessions kept"), "num"),
    ("subscriptions", _("Subscriptions"), "num"),
    ("retained", _("Retained messages"), "num"),
    ("waiting", _("Wait for the broker"), "num"),
    ("received", _("Received"), "num"),
    ("received_http", _("By HTTP"), "num"),
    ("sent", _("Sent"), "num"),
    ("dead_lettered", _("Dead letters"), "num"),
    ("duplicates", _("Left out as duplicates"), "num"),
    ("dropped_full", _("Dropped: queue full"), "num"),
    ("dropped_away", _("Dropped: broker away"), "num"),
    ("unretained", _("Not retained: too many"), "num"),
    ("expired", _("Expired"), "num"),
    ("undeliverable", _("Gone from the log"), "num"),
    ("connects", _("Connections opened"), "num"),
    ("refused_connects", _("Connections refused"), "num"),
    ("denied", _("Publishes not permitted"), "num"),
    ("denied_subscriptions", _("Subscriptions not permitted"), "num"),
    ("denied_deliveries", _("Deliveries not permitted"), "num"),
)

OF_A_BRIDGE: Sequence[Field] = (
    ("in", _("In/s"), "rate"),
    ("out", _("Out/s"), "rate"),
    ("received", _("Taken in"), "num"),
    ("sent", _("Sent on"), "num"),
    ("dropped", _("Dropped"), "num"),
    ("lag", _("Still to send"), "num"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    field: str
    label: Any
    form: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Everything counted under one live key. Nothing heard of it: all values are unknown."""

    key: str
    rows: Sequence[Count]
    known: bool


def counts(picture: Picture, key: str, fields: Sequence[Field]) -> Counts:
    found: Mapping[str, Any] = picture.traffic.get(key, {})
    rows = [Count(field=name, label=label, form=form, value=found.get(name)) for name, label, form in fields]
    return Counts(key=key, rows=rows, known=bool(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """One topic prefix with its numbers."""

    name: str
    key: str
    rate: float | None
    row: Mapping[str, Any]


def busiest_prefixes(picture: Picture, most: int) -> list[Prefix]:
    found = [
        Prefix(
            name=key[len(PREFIX) :],
            key=key,
            rate=row.get("rate"),
            row=row,
        )
        for key, row in picture.traffic.items()
        if key.startswith(PREFIX)
    ]
    found.sort(key=lambda prefix: (-(prefix.rate or 0), -prefix.row.get("messages", 0), prefix.name))
    return found[:most]
