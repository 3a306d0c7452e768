"""What device pages show."""

import os
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from console.audit.models import Entry
from console.devices.models import Ban, Device, Presence
from console.supervisor.addresses import mqtt


def find_devices(rows: QuerySet[Device], text: str) -> QuerySet[Device]:
    """Every word must be in the name, the client id, a label or the note."""
    for word in text.split():
        rows = rows.filter(
            Q(name__icontains=word) | Q(client_id__icontains=word) | Q(labels__icontains=word) | Q(note__icontains=word)
        )
    return rows


def find_clients(rows: QuerySet[Presence], text: str) -> QuerySet[Presence]:
    for word in text.split():
        rows = rows.filter(
            Q(client_id__icontains=word)
            | Q(principal__icontains=word)
            | Q(address__startswith=word)
            | Q(gateway__icontains=word)
        )
    return rows


def by_state(rows: QuerySet[Any], state: str) -> QuerySet[Any]:
    """online, offline, refused (and not online), disabled; anything else keeps all."""
    if state == "online":
        return rows.filter(online=True)
    if state == "offline":
        return rows.filter(online=False)
    if state == "refused":
        return rows.filter(online=False, refused=True)
    if state == "disabled":
        return rows.filter(enabled=False)
    return rows


def clients_of(device: Device) -> list[Presence]:
    """What signed in as the device, newest first, and what uses the client id it is bound to."""
    mine = Q(principal=device.name)
    if device.client_id:
        mine |= Q(client_id=device.client_id)
    return list(Presence.objects.filter(mine).order_by("-online", "-since")[:20])


def bans_on(device: Device) -> list[Ban]:
    """Those in force that keep the device out by its name or client id."""
    about = Q(kind=Ban.Kind.USER, value=device.name)
    about |= Q(kind=Ban.Kind.CLIENT, value=device.client_id or device.name)
    return [ban for ban in Ban.objects.filter(about) if not ban.is_over]


def is_known(client_id: str) -> bool:
    """Whether the client has a page."""
    return Presence.objects.filter(client_id=client_id).exists() or Device.objects.filter(name=client_id).exists()


def held_by(gateway: str) -> dict[str, int]:
    """What a gateway holds: `online` clients, and sessions kept for those `away`, as it last told."""
    here = Presence.objects.filter(gateway=gateway)
    return {"online": here.filter(online=True).count(), "away": here.filter(online=False, clean_start=False).count()}


def changes_of(device: Device) -> list[Entry]:
    """The newest audit entries about the device."""
    return list(Entry.objects.filter(kind="device", name=device.name)[:10])


def connect_command(name: str, client_id: str) -> str:
    """How to try the device with a common client, against the first MQTT listener."""
    return f"mosquitto_pub {_there()} -i {client_id or name} -u {name} -P … -t test -m hello -q 1"


def listen_command() -> str:
    """How to be a client that hears everything."""
    return f"mosquitto_sub {_there()} -i tester -t '#'"


def _there() -> str:
    listener = mqtt(os.environ)
    port = listener.port if listener is not None else 1883
    return f"-h {settings.SLUICE.public_url.hostname} -p {port}"
