"""Putting a change on record: intent, body, entry. See models.py for why it takes two steps."""

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.db import transaction
from django.utils import timezone

address_in_force: contextvars.ContextVar[str] = contextvars.ContextVar("address_in_force", default="")


class Failure(Exception):
    """Raised inside `change` to put a failure on record with text that says what happened."""


@dataclass(slots=True, kw_only=True)
class Change:
    before: Any
    after: Any
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _System:
    """A process acting on its own: the reaper, an alert rule."""

    username: str
    role: str = "admin"
    is_active: bool = True
    pk: None = None


def system(name: str) -> _System:
    return _System(f"system:{name}")


@contextlib.contextmanager
def change(actor: Any, action: str, *, kind: str, name: str, before: Any = None, after: Any = None) -> Iterator[Change]:
    """Runs the body between an Intent and its Entry. What the body raises is recorded as failed and raised on."""
    intent_model = apps.get_model("audit", "Intent")
    intent = intent_model.objects.create(
        started=timezone.now(),
        actor=actor.username,
        action=action,
        kind=kind,
        name=name,
        before=before,
        after=after,
        address=address_in_force.get(),
    )
    made = Change(before=before, after=after)
    try:
        yield made
    except BaseException as error:
        made.detail = made.detail or f"{type(error).__name__}: {error}"[:2000]
        _close(intent, actor, made, "failed")
        raise
    _close(intent, actor, made, "done")


def _close(intent: Any, actor: Any, made: Change, outcome: str) -> None:
    with transaction.atomic():
        append(
            at=timezone.now(),
            account_id=actor.pk,
            actor=intent.actor,
            action=intent.action,
            kind=intent.kind,
            name=intent.name,
            before=made.before,
            after=made.after,
            outcome=outcome,
            detail=made.detail,
            address=intent.address,
        )
        intent.delete()


def append(**fields: Any) -> Any:
    """Appends one entry to the chain; the caller holds a transaction."""
    head_model = apps.get_model("audit", "Head")
    head, _ = head_model.objects.select_for_update().get_or_create(pk=1)
    entry = apps.get_model("audit", "Entry")(previous=head.hash, **fields)
    entry.hash = entry.computed_hash()
    entry.save(force_insert=True)
    head.hash, head.length = entry.hash, head.length + 1
    head.save()
    return entry


def close_abandoned(now: datetime, older_than: timedelta = timedelta(minutes=5)) -> int:
    """Turns intents whose process died into entries with an unknown outcome. Returns how many."""
    closed = 0
    intents = apps.get_model("audit", "Intent").objects.filter(started__lt=now - older_than)
    for intent in list(intents):
        with transaction.atomic():
            if not type(intent).objects.select_for_update().filter(pk=intent.pk).exists():
                continue
            append(
                at=now,
                account_id=None,
                actor=intent.actor,
                action=intent.action,
                kind=intent.kind,
                name=intent.name,
                before=intent.before,
                after=intent.after,
                outcome="unknown",
                detail=f"The process stopped before the change started at {intent.started.isoformat()} was confirmed.",
                address=intent.address,
            )
            intent.delete()
            closed += 1
    return closed
