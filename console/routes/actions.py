"""Changes to routes (see `console.definitions`), validated by the gateway's own rules."""

from dataclasses import asdict, replace
from typing import Any

from django.utils.translation import gettext as _

from console.accounts.permissions import Permission, demand
from console.definitions import Kind, Wrong
from console.routes.models import Route
from gateway import contract
from gateway.routes import Downlink, Uplink, problems


class RouteExists(Exception):
    """There is a route of that name."""


def _described(route: Route) -> dict[str, Any]:
    return {"kind": route.kind, "note": route.note, **asdict(route.record())}


ROUTES = Kind(noun="route", topic=contract.ROUTES, described=_described)


def create(*, actor: Any, record: Uplink | Downlink, note: str = "") -> Route:
    demand(actor, Permission.ROUTE_MANAGE)
    if Route.objects.filter(name=record.name).exists():
        raise RouteExists(_("There is a route %(name)s already.") % {"name": record.name})
    _check(record)
    route = Route(note=note)
    route.take(record)
    ROUTES.create(actor=actor, row=route)
    return route


def edit(*, actor: Any, route: Route, record: Uplink | Downlink, note: str) -> None:
    """Gives the route other rules; its name and kind stay."""
    demand(actor, Permission.ROUTE_MANAGE)
    _check(record)
    before = _described(route)
    route.take(replace(record, name=route.name))
    route.note = note
    ROUTES.edit(actor=actor, row=route, before=before)


def enable(*, actor: Any, route: Route, enabled: bool) -> None:
    demand(actor, Permission.ROUTE_MANAGE)
    ROUTES.enable(actor=actor, row=route, enabled=enabled)


def delete(*, actor: Any, route: Route) -> None:
    demand(actor, Permission.ROUTE_MANAGE)
    ROUTES.delete(actor=actor, row=route)


def _check(record: Uplink | Downlink) -> None:
    if found := problems(record):
        raise Wrong(found)
