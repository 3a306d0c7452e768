"""Refused connections: kept from what gateways report, and found again."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from console.devices.models import LATELY, Device, Refusal
from console.devices.reasons import saying
from gateway.contract import CLOSED_FIELDS
from gateway.why import Why

KEPT = 5_000  # rows; those that were quiet longest go first
SHOWN = 10
LONGEST = {"kind": 60, "why": 60, "client_id": 200, "username": 200, "host": 200}  # of what makes two alike


def keep(rows: Iterable[Sequence[Any]]) -> None:
    """Counts rows of CLOSED_FIELDS; those of older gateways end before `why`. One that was counted already, by its
    time, counts no more."""
    with transaction.atomic():
        for values in rows:
            given = dict(zip(CLOSED_FIELDS, values, strict=False))
            at = datetime.fromtimestamp(float(given["at"]), UTC)
            key = {name: str(given.get(name, ""))[:most] for name, most in LONGEST.items()}
            found, made = Refusal.objects.get_or_create(**key, defaults={"last": at})
            if made or found.last < at:
                found.count += int(given["count"])
                found.last, found.detail = at, str(given["detail"])[:200]
                found.save()
        beyond = Refusal.objects.order_by("-last", "-pk").values_list("pk", flat=True)[KEPT : KEPT + 500]
        Refusal.objects.filter(pk__in=list(beyond)).delete()


def find(rows: Any, text: str) -> Any:
    for word in text.split():
        rows = rows.filter(
            Q(client_id__icontains=word)
            | Q(username__icontains=word)
            | Q(host__startswith=word)
            | Q(detail__icontains=word)
            | Q(why__in=saying(word))
            | Q(kind__in=saying(word))
        )
    return rows


def of_device(device: Device) -> list[Refusal]:
    """The latest that named the device, or a client id that is its own."""
    client_id = device.client_id or device.name
    mine = Q(username=device.name) | Q(client_id=client_id[: LONGEST["client_id"]])
    return list(Refusal.objects.filter(mine)[:SHOWN])


def take_overs(rows: Iterable[Refusal]) -> list[Refusal]:
    """Of these: where another connection with the same client id came, within the last hour; the latest first."""
    return [row for row in rows if row.why == Why.TAKEN_OVER and row.last >= timezone.now() - LATELY]


def of_client(client_id: str) -> list[Refusal]:
    return list(Refusal.objects.filter(client_id=client_id[: LONGEST["client_id"]])[:SHOWN])
