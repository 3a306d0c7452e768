"""What the pages show, from the index alone: no broker call but for one letter's contents."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet

from console import kafka
from console.deadletters.models import Letter
from console.jobs.models import Job

READ_SECONDS = 3.0
ERRORS_OF = 500  # letters that `errors` looks at: what a page can pay for, however many there are
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
KIND = "redrive"  # of the jobs that send many again


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Open letters of one topic that died for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """One dead-letter topic. `oldest` and `newest` are epoch ms of open letters, None without any."""

    name: str
    open: int
    resolved: int
    oldest: int | None
    newest: int | None
    causes: Sequence[Cause]


def open_count() -> int:
    """Letters nobody has dealt with, over all topics."""
    return Letter.objects.filter(state=Letter.State.OPEN).count()


def of_group(group: str) -> list[tuple[str, int]]:
    """(topic, open letters) of what a group could not process, most first."""
    rows = Letter.objects.filter(group=group, state=Letter.State.OPEN).order_by().values("topic")
    return sorted(((row["topic"], row["n"]) for row in rows.annotate(n=Count("id"))), key=lambda row: -row[1])


def topic_rows(names: Sequence[str]) -> list[TopicRow]:
    """A row for each dead-letter topic, those of `names` that are empty included."""
    still_open = Q(state=Letter.State.OPEN)
    totals: dict[str, dict[str, Any]] = {
        row["topic"]: dict(row)
        for row in Letter.objects.order_by()
        .values("topic")
        .annotate(
            open=Count("id", filter=still_open),
            resolved=Count("id", filter=~still_open),
            oldest=Min("at", filter=still_open),
            newest=Max("at", filter=still_open),
        )
    }
    causes: dict[str, list[Cause]] = {}
    grouped = Letter.objects.filter(still_open).order_by().values("topic", "reason").annotate(count=Count("id"))
    for row in sorted(grouped, key=lambda row: -row["count"]):
        causes.setdefault(row["topic"], []).append(Cause(reason=row["reason"], count=row["count"]))
    rows = []
    for name in sorted({*names, *totals}):
        total = totals.get(name, {})
        rows.append(
            TopicRow(
                name=name,
                open=total.get("open", 0),
                resolved=total.get("resolved", 0),
                oldest=total.get("oldest"),
                newest=total.get("newest"),
                causes=causes.get(name, []),
            )
        )
    return rows


def letters(topic: str, *, state: str = "", reason: str | None = None, text: str = "") -> QuerySet[Letter]:
    """The letters of a topic; `reason` "" means those that give none, None means any."""
    found = Letter.objects.filter(topic=topic)
    if state:
        found = found.filter(state=state)
    if reason is not None:
        found = found.filter(reason=reason)
    return search(found, text)


def unclaimed(found: QuerySet[Letter]) -> QuerySet[Letter]:
    """Those that no unfinished job holds."""
    working = Job.objects.filter(kind=KIND).exclude(state__in=Job.FINISHED).values("pk")
    return found.exclude(job__in=working)


def search(found: QuerySet[Letter], text: str) -> QuerySet[Letter]:
    """Those with every word in key, detail, origin topic, group or reason."""
    for word in text.split():
        found = found.filter(
            Q(key__icontains=word)
            | Q(detail__icontains=word)
            | Q(origin_topic__icontains=word)
            | Q(group__icontains=word)
            | Q(reason__icontains=word)
        )
    return found


def reasons(topic: str) -> list[Cause]:
    """The reasons of a topic's open letters, most first."""
    rows = Letter.objects.filter(topic=topic, state=Letter.State.OPEN).order_by().values("reason")
    counted = [Cause(reason=row["reason"], count=row["count"]) for row in rows.annotate(count=Count("id"))]
    return sorted(counted, key=lambda cause: (-cause.count, cause.reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Open letters whose details differ in nothing but numbers. `words`: the search that finds them."""

    pattern: str
    words: str
    groups: Sequence[str]
    count: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """`rows`, the most frequent first, in the newest `looked_at` open letters of a topic; `more`: there are others."""

    rows: Sequence[Error]
    looked_at: int
    more: bool


def errors(topic: str, most: int = 5) -> Errors:
    """What went wrong in a topic's newest open letters."""
    newest = Letter.objects.filter(topic=topic, state=Letter.State.OPEN).order_by("-at", "-id")
    looked_at = list(newest.values_list("detail", "group", "at")[: ERRORS_OF + 1])
    found: dict[str, list[tuple[str, int]]] = {}
    for detail, group, at in looked_at[:ERRORS_OF]:
        found.setdefault(NUMBER.sub("…", detail), []).append((group, at))
    counted = sorted(found.items(), key=lambda item: -len(item[1]))[:most]
    rows = [
        Error(
            pattern=pattern,
            words=" ".join([word for word in pattern.split() if "…" not in word][:12]),
            groups=sorted({group for group, _at in letters if group})[:3],
            count=len(letters),
            newest=letters[0][1],
        )
        for pattern, letters in counted
        if pattern
    ]
    return Errors(rows=rows, looked_at=min(len(looked_at), ERRORS_OF), more=len(looked_at) > ERRORS_OF)


def read_record(topic: str, partition: int, offset: int) -> kafka.Record | None:
    """One record from the broker; None when it is not there any more."""
    place = kafka.TopicPartition(topic, partition)
    consumer: Any = kafka.consumer(reset="error")
    try:
        consumer.assign({place: offset})
        deadline = time.monotonic() + READ_SECONDS
        while time.monotonic() < deadline:
            for record in consumer.poll(1, max(0.05, deadline - time.monotonic())):
                return record if record.offset == offset else None
            if consumer.last_error is not None and isinstance(consumer.last_error, kafka.ClusterError):
                return None
        return None
    finally:
        consumer.close()
