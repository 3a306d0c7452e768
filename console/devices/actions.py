"""Changes to devices and bans: permission, row with its record, audit, announcement. Orders to connected clients."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from console import announcements, audit, kafka, outbox
from console.accounts.permissions import Permission, demand
from console.devices.models import Ban, Device, Presence
from console.policies.models import Policy
from gateway import contract, passwords

LONGEST_TAP = 600.0  # seconds


class DeviceExists(Exception):
    """There is a device of that name."""


class SubjectTaken(Exception):
    """Another device signs in with certificates of that subject."""


class ClientIdTaken(Exception):
    """Another device is bound to the client id, or bears it as its name."""


def add(
    *,
    actor: Any,
    name: str,
    client_id: str = "",
    labels: Sequence[str] = (),
    policies: Sequence[Policy] = (),
    note: str = "",
    subject: str = "",
    limits: Mapping[str, int] | None = None,
) -> str:
    """Adds a device. Returns its generated secret (128 bits), of which only a keyed hash is kept."""
    demand(actor, Permission.DEVICE_MANAGE)
    if Device.objects.filter(name=name).exists():
        raise DeviceExists(_("There is a device %(name)s already.") % {"name": name})
    _refuse_taken(client_id, name, subject)
    secret, _credential = passwords.generate()
    device = Device(
        name=name,
        client_id=client_id,
        labels=list(labels),
        note=note,
        subject=subject,
        limits=dict(limits or {}),
        credentials=_credentials(secret),
        rotated=timezone.now(),
    )
    after = _described(device, [policy.name for policy in policies])
    with audit.change(actor, "device.create", kind="device", name=name, after=after):
        _write(device, policies)
    announcements.changed("device", name)
    return secret


def edit(
    *,
    actor: Any,
    device: Device,
    client_id: str,
    labels: Sequence[str],
    policies: Sequence[Policy],
    note: str,
    subject: str,
    limits: Mapping[str, int],
) -> None:
    """Changes what a device is bound to. Gateways disconnect it when its client id or subject is another now; limits
    hold from its next connection on."""
    demand(actor, Permission.DEVICE_MANAGE)
    _refuse_taken(client_id, device.name, subject)
    before = _described(device, _policy_names(device))
    device.client_id, device.labels, device.note = client_id, list(labels), note
    device.subject, device.limits = subject, dict(limits)
    after = _described(device, [policy.name for policy in policies])
    with audit.change(actor, "device.edit", kind="device", name=device.name, before=before, after=after):
        _write(device, policies)
    announcements.changed("device", device.name)


def rotate(*, actor: Any, device: Device, password: str = "") -> str:
    """Gives the device a new secret and returns it: the password that somebody chose, or a generated one. The old one
    ends, and what is connected with it is disconnected."""
    demand(actor, Permission.DEVICE_MANAGE)
    if password:
        secret, made = password, [asdict(passwords.from_password(password))]
    else:
        secret, _credential = passwords.generate()
        made = _credentials(secret)
    with audit.change(actor, "device.rotate", kind="device", name=device.name, after={"chosen": bool(password)}):
        device.credentials, device.rotated = made, timezone.now()
        _write(device)
    announcements.changed("device", device.name)
    return secret


def revoke(*, actor: Any, device: Device) -> None:
    """Takes the device's secret away; it stays registered, so nobody else can use its name or client id."""
    demand(actor, Permission.DEVICE_MANAGE)
    before = {"credentials": len(device.credentials)}
    with audit.change(actor, "device.revoke", kind="device", name=device.name, before=before, after={"credentials": 0}):
        device.credentials = []
        _write(device)
    announcements.changed("device", device.name)


def enable(*, actor: Any, device: Device, enabled: bool) -> None:
    """A disabled device is refused, and disconnected where it is connected."""
    demand(actor, Permission.DEVICE_MANAGE)
    action = "device.enable" if enabled else "device.disable"
    before, after = {"enabled": device.enabled}, {"enabled": enabled}
    with audit.change(actor, action, kind="device", name=device.name, before=before, after=after):
        device.enabled = enabled
        _write(device)
    announcements.changed("device", device.name)


def delete(*, actor: Any, device: Device) -> None:
    demand(actor, Permission.DEVICE_MANAGE)
    name, before = device.name, _described(device, _policy_names(device))
    with audit.change(actor, "device.delete", kind="device", name=name, before=before), transaction.atomic():
        device.delete()
        outbox.put(contract.DEVICES, name, None)
    announcements.changed("device", name)


def kick(*, actor: Any, client_id: str, clear: bool = False, reference: str = "") -> None:
    """Disconnects a client, wherever it is connected. `clear`: its stored session and queued messages go too.
    `reference`: the server that an MQTT 5 client is told to go to (Server Reference, 4.11)."""
    demand(actor, Permission.DEVICE_MANAGE)
    verb = "clear" if clear else "kick"
    order = contract.Control(verb=verb, client_id=client_id, actor=actor.username, at=time.time(), reference=reference)
    after = {"reference": reference} if reference else None
    with audit.change(actor, f"client.{verb}", kind="device", name=client_id, after=after):
        kafka.send(contract.CONTROL, contract.encode(order), client_id.encode())


def start_tap(*, actor: Any, client_id: str, seconds: float) -> str:
    """Has gateways copy a client's packets for a viewer, who must renew it. Returns the tap's name."""
    demand(actor, Permission.DEVICE_TAP)
    tap = secrets.token_hex(12)
    seconds = min(seconds, LONGEST_TAP)
    after = {"tap": tap, "seconds": seconds}
    with audit.change(actor, "client.tap", kind="device", name=client_id, after=after):
        order = contract.Control(
            verb="tap", client_id=client_id, actor=actor.username, at=time.time(), seconds=seconds, tap=tap
        )
        kafka.send(contract.CONTROL, contract.encode(order), client_id.encode())
    return tap


def keep_tap(*, tap: str) -> None:
    """Somebody still watches."""
    order = contract.Control(verb="tap.keep", client_id="", at=time.time(), tap=tap)
    kafka.send(contract.CONTROL, contract.encode(order), tap.encode())


def stop_tap(*, viewer: Any, client_id: str, tap: str, why: str, shown: dict[str, int]) -> None:
    """Ends a tap. Asks for no permission: whoever lost it has their tap ended all the same."""
    after = {"tap": tap, "why": why, **shown}
    with audit.change(viewer, "client.tap.stop", kind="device", name=client_id, after=after):
        order = contract.Control(verb="tap.stop", client_id=client_id, actor=viewer.username, at=time.time(), tap=tap)
        kafka.send(contract.CONTROL, contract.encode(order), client_id.encode())


def kick_device(*, actor: Any, device: Device) -> int:
    """Disconnects every client that signed in as the device. Returns how many were told to."""
    demand(actor, Permission.DEVICE_MANAGE)
    online = list(Presence.objects.filter(principal=device.name, online=True).values_list("client_id", flat=True))
    for client_id in online:
        kick(actor=actor, client_id=client_id)
    return len(online)


def ban(*, actor: Any, kind: str, value: str, until: datetime | None = None, reason: str = "") -> Ban:
    """Keeps a client id, user name or address out, until a time or for good. One that is banned already is changed."""
    demand(actor, Permission.DEVICE_MANAGE)
    after = {"until": until.isoformat() if until else None, "reason": reason}
    with audit.change(actor, "ban.set", kind="ban", name=f"{kind}:{value}", after=after), transaction.atomic():
        changes = {"until": until, "reason": reason, "by": actor.username, "created": timezone.now()}
        found, _made = Ban.objects.update_or_create(kind=kind, value=value, defaults=changes)
        record = found.record()
        outbox.put(contract.BANS, record.key, contract.encode(record))
    return found


def lift(*, actor: Any, ban: Ban) -> None:
    """Lets somebody in again."""
    demand(actor, Permission.DEVICE_MANAGE)
    before = {"until": ban.until.isoformat() if ban.until else None, "reason": ban.reason}
    key = ban.record().key
    with audit.change(actor, "ban.lift", kind="ban", name=key, before=before), transaction.atomic():
        ban.delete()
        outbox.put(contract.BANS, key, None)


def _write(device: Device, policies: Sequence[Policy] | None = None) -> None:
    """The row and its record, in one transaction."""
    with transaction.atomic():
        device.save()
        if policies is not None:
            device.policies.set(policies)
        outbox.put(contract.DEVICES, device.name, contract.encode(device.record()))


def _credentials(secret: str) -> list[dict[str, Any]]:
    return [asdict(each) for each in passwords.credentials_of(secret)]


def _refuse_taken(client_id: str, name: str, subject: str) -> None:
    others = Device.objects.exclude(name=name)
    if subject and others.filter(subject=subject).exists():
        raise SubjectTaken(_("Another device signs in with certificates of %(subject)s.") % {"subject": subject})
    bound = client_id and (others.filter(client_id=client_id).exists() or others.filter(name=client_id).exists())
    if bound:
        raise ClientIdTaken(_("The client id %(id)s belongs to another device.") % {"id": client_id})


def _policy_names(device: Device) -> list[str]:
    return list(device.policies.order_by("name").values_list("name", flat=True))


def _described(device: Device, policies: Sequence[str]) -> dict[str, Any]:
    return {
        "client_id": device.client_id,
        "labels": device.labels,
        "policies": sorted(policies),
        "note": device.note,
        "subject": device.subject,
        "limits": device.limits,
        "enabled": device.enabled,
    }
