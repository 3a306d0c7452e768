"""Dealing with dead letters: sent again as they are, sent again edited, or put aside."""

from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from console import announcements, audit, jobs, kafka
from console.accounts.permissions import Permission, demand
from console.deadletters import queries
from console.deadletters.models import Letter
from console.deadletters.queries import KIND
from console.deadletters.redrive import Headers, NoTarget, Outgoing, again, marked


class LetterGone(Exception):
    """The record is not in its topic any more, or somebody has dealt with it already."""


def send_again(
    *,
    actor: Any,
    letter: Letter,
    target: str = "",
    value: bytes | None = None,
    key: bytes | None = None,
    headers: Headers | None = None,
    edited: bool = False,
) -> kafka.Delivered:
    """Writes one letter to where it came from, or to `target`; `edited`: with this key, value and these headers.

    The letter is claimed first, so that two people who press the button at once send it once. A crash after the
    broker's acknowledgement leaves it claimed, with an audit entry of unknown outcome, rather than open and sent twice.
    """
    demand(actor, Permission.DEADLETTER_REDRIVE)
    record = queries.read_record(letter.topic, letter.partition, letter.offset)
    if record is None:
        raise LetterGone(_("The record is not in its topic any more."))
    outgoing = _edited(record, letter, target, key, value, headers) if edited else again(record, job="", target=target)
    _refuse_internal(outgoing.topic)
    free = queries.unclaimed(Letter.objects.filter(pk=letter.pk, state=Letter.State.OPEN))
    if not free.update(state=Letter.State.REDRIVEN, resolved_at=timezone.now(), resolved_by=actor.username):
        raise LetterGone(_("Somebody has dealt with this dead letter already."))
    after: dict[str, Any] = {"topic": outgoing.topic, "edited": edited}
    try:
        with audit.change(actor, "deadletter.redrive", kind="deadletter", name=str(letter), after=after) as change:
            delivered = kafka.send(outgoing.topic, outgoing.value, outgoing.key, list(outgoing.headers))
            change.after = {**after, "partition": delivered.partition, "offset": delivered.offset}
    except kafka.ClientError:
        # refused, or its outcome is unknown: better seen twice than never
        Letter.objects.filter(pk=letter.pk).update(state=Letter.State.OPEN, resolved_at=None, resolved_by="")
        raise
    announcements.changed("topic", letter.topic)
    return delivered


def _edited(
    record: kafka.Record, letter: Letter, target: str, key: bytes | None, value: bytes | None, headers: Headers | None
) -> Outgoing:
    planned = again(record, job="", target=target)
    own = headers if headers is not None else ()
    return Outgoing(
        topic=planned.topic, key=key, value=value, headers=marked(own, job="", redrives=letter.redrives + 1)
    )


def start_redrive(
    *, actor: Any, topic: str, reason: str | None, text: str, target: str = "", per_second: int = 0
) -> Any:
    """Starts a job that sends again every open letter of `topic` that the filter selects now.

    The selection is fixed by writing the job into its rows: what dies from now on is not part of it, and no second job
    and no single redrive takes a letter that this one holds.
    """
    demand(actor, Permission.DEADLETTER_REDRIVE)
    _refuse_internal(target or topic)
    params = {"topic": topic, "target": target, "per_second": per_second}
    wanted = {**params, "reason": reason, "text": text}
    with audit.change(actor, "deadletter.redrive-all", kind="topic", name=topic, after=wanted) as change:
        with transaction.atomic():
            title = _("Send again: %(topic)s") % {"topic": topic}
            job = jobs.start(actor=actor, kind=KIND, title=title, params=params)
            free = queries.unclaimed(queries.letters(topic, state=Letter.State.OPEN, reason=reason, text=text))
            job.total = free.update(job=job.pk)
            if not job.total:
                raise LetterGone(_("There is nothing to send again."))
            job.save(update_fields=["total"])
        change.after = {**wanted, "count": job.total, "job": str(job.pk)}
    return job


def discard(*, actor: Any, topic: str, reason: str | None, text: str, only: Letter | None = None) -> int:
    """Puts letters aside: they leave the open ones and stay in their topic until retention. Returns how many."""
    demand(actor, Permission.DEADLETTER_DELETE)
    selected = queries.unclaimed(queries.letters(topic, state=Letter.State.OPEN, reason=reason, text=text))
    if only is not None:
        selected = selected.filter(pk=only.pk)
    name = str(only) if only else topic
    with audit.change(
        actor,
        "deadletter.discard",
        kind="deadletter" if only else "topic",
        name=name,
        after={"reason": reason, "text": text},
    ) as change:
        count = selected.update(state=Letter.State.DISCARDED, resolved_at=timezone.now(), resolved_by=actor.username)
        change.after = {"reason": reason, "text": text, "count": count}
    announcements.changed("topic", topic)
    return count


def _refuse_internal(topic: str) -> None:
    if topic.startswith("__"):
        raise NoTarget(_("Topics that begin with __ are Sluice's own; nothing is sent there."))
