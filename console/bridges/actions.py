"""Changes to bridges (see `console.definitions`), validated by the bridge's own rules.

A password goes one way: it is sealed here for exactly this name, address, user and authority, kept in no other form,
never shown, and has to be entered again when any of these changes.
"""

from dataclasses import asdict, replace
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from console.accounts.permissions import Permission, demand
from console.bridges.models import Bridge
from console.definitions import Kind, Wrong
from gateway import contract
from gateway.bridges import Bridge as Record
from gateway.bridges import problems
from gateway.sealing import load_key, seal


class BridgeExists(Exception):
    """There is a bridge of that name."""


class PasswordNeeded(Exception):
    """What the kept password was for has changed."""


def _described(bridge: Bridge) -> dict[str, Any]:
    """For the audit: everything but the password."""
    fields = asdict(bridge.record())
    fields["password"] = "set" if fields["password"] else "none"
    return {"note": bridge.note, **fields}


BRIDGES = Kind(noun="bridge", topic=contract.BRIDGES, described=_described)


def create(*, actor: Any, record: Record, password: str = "", note: str = "") -> Bridge:
    """Messages stored from now on go out; what was stored before doesn't."""
    demand(actor, Permission.BRIDGE_MANAGE)
    if Bridge.objects.filter(name=record.name).exists():
        raise BridgeExists(_("There is a bridge %(name)s already.") % {"name": record.name})
    record = _sealed(replace(record, since=timezone.now().timestamp()), password)
    bridge = Bridge(note=note)
    bridge.take(record)
    BRIDGES.create(actor=actor, row=bridge)
    return bridge


def edit(*, actor: Any, bridge: Bridge, record: Record, password: str = "", note: str = "") -> None:
    """Gives the bridge another definition; its name and where it has got to stay. An empty password keeps the old."""
    demand(actor, Permission.BRIDGE_MANAGE)
    old = bridge.record()
    record = replace(record, name=old.name, since=old.since)
    if not password and record.username and old.password:
        if record.context != old.context:
            raise PasswordNeeded(
                _("Enter the password again: it was for another address, user or certificate authority.")
            )
        record = replace(record, password=old.password)
    before = _described(bridge)
    bridge.take(_sealed(record, password))
    bridge.note = note
    BRIDGES.edit(actor=actor, row=bridge, before=before, more={"password": "changed"} if password else None)


def enable(*, actor: Any, bridge: Bridge, enabled: bool) -> None:
    """A disabled bridge keeps its place: what is stored meanwhile goes out once it is enabled again."""
    demand(actor, Permission.BRIDGE_MANAGE)
    BRIDGES.enable(actor=actor, row=bridge, enabled=enabled)


def delete(*, actor: Any, bridge: Bridge) -> None:
    demand(actor, Permission.BRIDGE_MANAGE)
    BRIDGES.delete(actor=actor, row=bridge)


def _sealed(record: Record, password: str) -> Record:
    if found := problems(replace(record, password=password or record.password)):
        raise Wrong(found)
    if password:
        record = replace(record, password=seal(password, load_key(settings.SLUICE.data), record.context))
    return record
