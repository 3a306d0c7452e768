"""Changes to routes: permission, the gateway's own validation, row with its record, audit, announcement."""

from dataclasses import asdict, replace
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from console import announcements, audit, outbox
from console.accounts.permissions import Permission, demand
from console.routes.models import Route
from gateway import contract
from gateway.routes import Downlink, Uplink, problems


class RouteExists(Exception):
    """There is a route of that name."""


class Wrong(Exception):
    """The gateway would leave the route out. `problems` says why, each `field: text`."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("; ".join(found))
        self.problems = found


def create(*, actor: Any, record: Uplink | Downlink, note: str = "") -> Route:
    demand(actor, Permission.ROUTE_MANAGE)
    if Route.objects.filter(name=record.name).exists():
        raise RouteExists(_("There is a route %(name)s already.") % {"name": record.name})
    _check(record)
    route = Route(note=note)
    route.take(record)
    with audit.change(actor, "route.create", kind="route", name=record.name, after=_described(route)):
        _write(route)
    announcements.changed("route", record.name)
    return route


def edit(*, actor: Any, route: Route, record: Uplink | Downlink, note: str) -> None:
    """Gives the route other rules; its name and kind stay."""
    demand(actor, Permission.ROUTE_MANAGE)
    _check(record)
    before = _described(route)
    route.take(replace(record, name=route.name))
    route.note = note
    with audit.change(actor, "route.edit", kind="route", name=route.name, before=before, after=_described(route)):
        _write(route)
    announcements.changed("route", route.name)


def enable(*, actor: Any, route: Route, enabled: bool) -> None:
    demand(actor, Permission.ROUTE_MANAGE)
    action = "route.enable" if enabled else "route.disable"
    before, after = {"enabled": route.enabled}, {"enabled": enabled}
    route.take(replace(route.record(), enabled=enabled))
    with audit.change(actor, action, kind="route", name=route.name, before=before, after=after):
        _write(route)
    announcements.changed("route", route.name)


def delete(*, actor: Any, route: Route) -> None:
    demand(actor, Permission.ROUTE_MANAGE)
    name, before = route.name, _described(route)
    with audit.change(actor, "route.delete", kind="route", name=name, before=before), transaction.atomic():
        route.delete()
        outbox.put(contract.ROUTES, name, None)
    announcements.changed("route", name)


def _check(record: Uplink | Downlink) -> None:
    if found := problems(record):
        raise Wrong(found)


def _write(route: Route) -> None:
    with transaction.atomic():
        route.save()
        outbox.put(contract.ROUTES, route.name, route.encoded())


def _described(route: Route) -> dict[str, Any]:
    return {"kind": route.kind, "note": route.note, **asdict(route.record())}
