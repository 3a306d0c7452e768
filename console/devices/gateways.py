"""Gateways as operators see them: who is alive, what each holds, and whether the broker holds it back. From the picture
alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Sum
from django.utils import timezone

from console.devices.models import LATELY, Refusal
from console.snapshot import Picture
from console.snapshot.picture import GATEWAY, gateway_state, gateways_heard
from gateway.why import Why

REMEMBERED_MS = timedelta(days=1) / timedelta(milliseconds=1)  # one that is gone longer isn't shown
ADDRESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """`state`: see `gateway_state`."""

    name: str
    key: str
    state: str
    row: Mapping[str, Any]


def known(picture: Picture) -> list[Gateway]:
    """Those alive, and those that were within a day, by name."""
    found = []
    for key, row in picture.traffic.items():
        if key.startswith(GATEWAY) and picture.at - row.get("at", 0) < REMEMBERED_MS:
            found.append(Gateway(name=key[len(GATEWAY) :], key=key, state=gateway_state(row, picture.at), row=row))
    return sorted(found, key=lambda gateway: gateway.name)


def one(picture: Picture, name: str) -> Gateway | None:
    row = picture.traffic.get(GATEWAY + name)
    return (
        None if row is None else Gateway(name=name, key=GATEWAY + name, state=gateway_state(row, picture.at), row=row)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address, or network of IPv6. `times`, `latest`: of its refusals, None without any. `wait`: seconds that its
    next connection waits at the gateway where that is longest, None where it isn't slowed down; `dropped`: its attempts
    are dropped there now."""

    host: str
    times: int | None = None
    latest: datetime | None = None
    wait: float | None = None
    dropped: bool = False


def troubled_addresses(picture: Picture) -> list[Address]:
    """Whom gateways slow down now, the slowest first, then those that were refused within the last hour, the most often
    first; ADDRESSES of each at most."""
    found: dict[str, Address] = {}
    for row in gateways_heard(picture.traffic, picture.at):
        for host, wait, dropped in row.get("slowed", ()):
            known = found.get(host)
            if known is None or (known.wait or 0.0) <= wait:
                found[host] = Address(host=host, wait=wait, dropped=dropped)
    found = {each.host: each for each in sorted(found.values(), key=lambda each: -(each.wait or 0.0))[:ADDRESSES]}
    lately = Refusal.objects.filter(last__gte=timezone.now() - LATELY).exclude(host="").exclude(why=Why.TAKEN_OVER)
    rows = lately.values("host").annotate(times=Sum("count"), latest=Max("last"))
    for row in rows.order_by("-times", "host")[:ADDRESSES]:
        found[row["host"]] = replace(found.get(row["host"], Address(host=row["host"])), **row)
    return list(found.values())
