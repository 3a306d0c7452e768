"""Keeps the table of clients in step with `__sluice_presence`: the monitor reads, this writes, a batch at a time."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from django.db import transaction

from console.devices.models import Presence
from gateway import contract

BATCH = 2000
_FIELDS = tuple(field.name for field in Presence._meta.concrete_fields if field.name not in ("id", "client_id"))


def row(found: contract.Presence) -> Presence:
    return Presence(
        client_id=found.client_id[:512],
        online=found.online,
        since=datetime.fromtimestamp(found.since, UTC),
        principal=found.principal[:512],
        gateway=found.gateway[:200],
        address=found.address[:100],
        protocol=found.protocol,
        listener=found.listener[:200],
        tls=found.tls,
        keep_alive=found.keep_alive,
        clean_start=found.clean,
        subscriptions=found.subscriptions,
        queued=found.queued,
        queued_bytes=found.queued_bytes,
        dropped=found.dropped,
        expired=found.expired,
        missing=found.missing,
        reason=found.reason[:500],
    )


def keep(newest: Mapping[str, contract.Presence | None]) -> None:
    """Writes the newest of each client; None: nothing is known of it any more."""
    gone = [client_id for client_id, found in newest.items() if found is None]
    rows = [row(found) for found in newest.values() if found is not None]
    with transaction.atomic():
        for start in range(0, len(gone), 500):
            Presence.objects.filter(client_id__in=gone[start : start + 500]).delete()
        Presence.objects.bulk_create(
            rows, batch_size=BATCH, update_conflicts=True, unique_fields=["client_id"], update_fields=_FIELDS
        )


def forget_others(known: Iterable[str]) -> int:
    """Removes rows of clients that the topic, read to its end, doesn't know. Returns how many."""
    known = set(known)
    others = [pk for pk, client_id in Presence.objects.values_list("pk", "client_id") if client_id not in known]
    for start in range(0, len(others), 500):
        Presence.objects.filter(pk__in=others[start : start + 500]).delete()
    return len(others)
