"""Brings the rows in step with the monitor's picture: what changed is written, what is gone is removed."""

import time
from collections.abc import Mapping
from typing import Any

from django.db import models, transaction

from console.inventory.models import Group, Topic
from console.snapshot import Picture

SECONDS = 15.0
BATCH = 500
_TOPIC = ("topic_id", "partitions", "replication", "messages", "size", "lag", "cleanup")
_GROUP = ("kind", "state", "members", "topics", "lag")


class Inventory:
    """The monitor's hold on the rows: remembers what it wrote, so that a quiet cluster costs nothing."""

    def __init__(self) -> None:
        self._topics: dict[str, tuple[Any, ...]] | None = None
        self._groups: dict[str, tuple[Any, ...]] | None = None
        self._due = 0.0

    def keep(self, picture: Picture) -> None:
        """Writes if it is time to; call it each round."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SECONDS
        topics = {
            one.name: (one.id, one.partitions, one.replication, one.messages, one.size, one.lag, one.cleanup or "")
            for one in picture.topics.values()
        }
        groups = {
            one.name: (one.kind, one.state, one.members, " ".join(one.topics), one.lag)
            for one in picture.groups.values()
        }
        _write(Topic, _TOPIC, self._topics, topics)
        _write(Group, _GROUP, self._groups, groups)
        self._topics, self._groups = topics, groups


def _write(
    model: type[models.Model],
    fields: tuple[str, ...],
    before: Mapping[str, tuple[Any, ...]] | None,
    now: Mapping[str, tuple[Any, ...]],
) -> None:
    manager: Any = model._default_manager
    known = set(manager.values_list("name", flat=True)) if before is None else set(before)
    rows = [
        model(name=name, **dict(zip(fields, values, strict=True)))
        for name, values in now.items()
        if before is None or before.get(name) != values
    ]
    gone = sorted(known - set(now))
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        manager.bulk_create(part, update_conflicts=True, unique_fields=["name"], update_fields=fields)
    for start in range(0, len(gone), BATCH):
        with transaction.atomic():
            manager.filter(name__in=gone[start : start + BATCH]).delete()
