"""Gateways as operators see them: who is alive, what each holds, and whether the broker holds it back. From the picture
alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Max, Sum
from django.utils import timezone

from console.devices.models import LATELY, Refusal
from console.snapshot import Picture
from console.snapshot.picture import GATEWAY, is_heard

REMEMBERED_MS = timedelta(days=1) / timedelta(milliseconds=1)  # one that is gone longer isn't shown
ADDRESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """`state`: ok, held (devices wait for the broker), silent (not heard of; not stopped in order), stopped."""

    name: str
    key: str
    state: str
    row: Mapping[str, Any]


def known(picture: Picture) -> list[Gateway]:
    """Those alive, and those that were within a day, by name."""
    found = []
    for key, row in picture.traffic.items():
        if key.startswith(GATEWAY) and picture.at - row.get("at", 0) < REMEMBERED_MS:
            found.append(Gateway(name=key[len(GATEWAY) :], key=key, state=_state(row, picture.at), row=row))
    return sorted(found, key=lambda gateway: gateway.name)


def one(picture: Picture, name: str) -> Gateway | None:
    row = picture.traffic.get(GATEWAY + name)
    return None if row is None else Gateway(name=name, key=GATEWAY + name, state=_state(row, picture.at), row=row)


def _state(row: Mapping[str, Any], at: int) -> str:
    if row.get("stopped"):
        return "stopped"
    if not is_heard(row, at):
        return "silent"
    return "held" if row.get("held_back") else "ok"


def refused_addresses() -> list[dict[str, Any]]:
    """The addresses that were refused most, of those that were within the last hour: `host`, `times`, `latest`."""
    lately = Refusal.objects.filter(last__gte=timezone.now() - LATELY).exclude(host="")
    rows = lately.values("host").annotate(times=Sum("count"), latest=Max("last"))
    return [dict(row) for row in rows.order_by("-times", "host")[:ADDRESSES]]
