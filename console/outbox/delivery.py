"""Putting records into the outbox, and publishing them."""

import logging
import secrets
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from console import deadline, kafka
from gateway import contract

log = logging.getLogger("sluice.outbox")

HOLD = timedelta(seconds=30)  # longer than publishing one record can take
SECONDS = 3.0
_SPECS = {spec.name: spec for spec in contract.TOPICS}
_there: set[tuple[str, str]] = set()  # (cluster, topic) that this process has seen


def _rows() -> Any:
    return apps.get_model("outbox", "Pending").objects


def put(topic: str, key: str, value: bytes | None) -> None:
    """Keeps a record in this transaction, and publishes it once the transaction is committed."""
    with transaction.atomic():
        row, made = (
            _rows()
            .select_for_update()
            .get_or_create(topic=topic, key=key, defaults={"value": value, "created": timezone.now()})
        )
        if not made:
            _rows().filter(pk=row.pk).update(value=value, version=F("version") + 1)
        transaction.on_commit(lambda: deliver(row.pk), robust=True)


def waiting() -> int:
    """How many records are not published yet."""
    return int(_rows().count())


def drain() -> int:
    """Publishes what waits; stops at the first failure, since the others would fail alike. Returns how many went."""
    went = 0
    for pk in list(_rows().values_list("pk", flat=True)):
        if not deliver(pk):
            break
        went += 1
    return went


def deliver(pk: Any) -> bool:
    """Publishes one row until its newest value is out. False when the broker can't take it now."""
    now, holder = timezone.now(), secrets.token_hex(16)
    free = Q(held_until=None) | Q(held_until__lt=now)
    if not _rows().filter(free, pk=pk).update(holder=holder, held_until=now + HOLD):
        return True  # another process publishes it, or it is out
    mine = _rows().filter(pk=pk, holder=holder)
    while (row := mine.first()) is not None:
        try:
            _ensure(row.topic)
            value = None if row.value is None else bytes(row.value)
            kafka.send(row.topic, value, row.key.encode(), partition=0, timeout=SECONDS)
        except (kafka.ClientError, kafka.SettingsError) as error:
            log.warning("%s %s waits: %s", row.topic, row.key, error)
            mine.update(holder="", held_until=None, attempts=F("attempts") + 1, error=str(error)[:500])
            return False
        mine.filter(version=row.version).delete()
        mine.update(held_until=timezone.now() + HOLD)  # a newer value came meanwhile: it is next
    return True


def _ensure(topic: str) -> None:
    """Makes the topic as the gateway would, if neither a gateway nor this was there before."""
    cluster = kafka.settings().bootstrap
    if (cluster, topic) in _there:
        return
    admin = kafka.admin()
    answers = deadline.gather({"topics": lambda: admin.topics([topic])}, SECONDS)
    if answers["topics"] is None:
        raise kafka.ClientError(answers.missing.get("topics", "the broker doesn't answer"))
    if topic not in answers["topics"]:
        spec = _SPECS[topic]
        error = admin.create_topics(
            [kafka.types.NewTopic(name=spec.name, partitions=spec.partitions, configs=spec.config)]
        ).get(topic)
        if error is not None and not isinstance(error, kafka.errors.TopicExists):
            raise error
    _there.add((cluster, topic))
