"""Follows every dead-letter topic and keeps the index; runs in the monitor process, in a thread of its own.

Each step reads what is new and writes rows and positions in one transaction. Positions are the database's, not a
group's: after a crash, reading goes on exactly where the rows end.
"""

import logging
import threading
import time
from collections.abc import Iterable
from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone

from console import kafka
from console.deadletters.models import Letter, Position
from console.deadletters.topics import holds_dead_letters

log = logging.getLogger("sluice.deadletters")

BATCH = 1_000
POLL_SECONDS = 0.5
TOPICS_SECONDS = 5.0
RETENTION_SECONDS = 60.0
RESOLVED_KEPT = timedelta(days=30)
BACK_OFF_SECONDS = 5.0


class Indexer:
    """One follower of all dead-letter topics. `run` until `stop`; trouble is logged and tried again."""

    def __init__(self) -> None:
        self._consumer: kafka.Consumer | None = None
        self._ids: dict[str, str] = {}
        self._assigned: set[kafka.TopicPartition] = set()
        self._topics_due = 0.0
        self._retention_due = 0.0

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                try:
                    self.step(time.monotonic())
                except kafka.ClientError as error:
                    log.warning("dead letters are not indexed for now: %s", error)
                    self._forget()
                    stop.wait(BACK_OFF_SECONDS)
        finally:
            self._forget()
            connection.close()

    def step(self, now: float) -> int:
        """Look for topics when it is time, read a batch, index it. Returns how many letters were new."""
        if now >= self._topics_due:
            self._follow_topics()
            self._topics_due = now + TOPICS_SECONDS
        if now >= self._retention_due:
            self._apply_retention()
            self._retention_due = now + RETENTION_SECONDS
        if not self._assigned or self._consumer is None:
            time.sleep(POLL_SECONDS)
            return 0
        return self._index(self._consumer.poll(BATCH, POLL_SECONDS))

    def _forget(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._assigned, self._topics_due = None, set(), 0.0

    def _follow_topics(self) -> None:
        topics = {name: topic for name, topic in kafka.admin().topics().items() if holds_dead_letters(name)}
        ids = {name: str(topic.id) for name, topic in topics.items()}
        changed = {name for name, known in self._ids.items() if ids.get(name) != known}
        self._ids = ids
        if changed and self._consumer is not None:
            gone = [place for place in self._assigned if place.topic in changed]
            self._consumer.remove(gone)
            self._assigned.difference_update(gone)
        self._drop_topics(ids)
        wanted = {
            kafka.TopicPartition(name, partition.index)
            for name, topic in topics.items()
            for partition in topic.partitions
        }
        new = wanted - self._assigned
        if not new:
            return
        known = {
            (row.topic_id, row.partition): row.offset
            for row in Position.objects.filter(topic_id__in=list(ids.values()))
        }
        places = {place: known.get((ids[place.topic], place.partition), kafka.BEGINNING) for place in new}
        if self._consumer is None:
            self._consumer = kafka.consumer()
            self._consumer.assign(places)
        else:
            self._consumer.add(places)
        self._assigned |= new

    def _drop_topics(self, ids: dict[str, str]) -> None:
        """A deleted topic takes its letters along, and one made anew under the same name begins empty."""
        stale = Letter.objects.exclude(topic_id__in=list(ids.values()))
        if stale.exists():
            with transaction.atomic():
                stale.delete()
                Position.objects.exclude(topic_id__in=list(ids.values())).delete()

    def _index(self, found: Iterable[kafka.Record]) -> int:
        letters, positions = [], {}
        for record in found:
            topic_id = self._ids.get(record.topic)
            if topic_id is None:
                continue
            letters.append(letter_of(record, topic_id))
            positions[record.topic, topic_id, record.partition] = record.offset + 1
        if not letters:
            return 0
        with transaction.atomic():
            Letter.objects.bulk_create(letters, ignore_conflicts=True)
            for (topic, topic_id, partition), offset in positions.items():
                Position.objects.update_or_create(
                    topic_id=topic_id, partition=partition, defaults={"topic": topic, "offset": offset}
                )
        return len(letters)

    def _apply_retention(self) -> None:
        """What the broker has removed can't be sent again: say so; forget what was dealt with long ago."""
        places = sorted(self._assigned)
        starts = kafka.admin().offsets(places, kafka.types.At.EARLIEST) if places else {}
        now = timezone.now()
        for place, found in starts.items():
            if found.error or found.offset <= 0:
                continue
            below = Letter.objects.filter(
                topic_id=self._ids[place.topic], partition=place.partition, offset__lt=found.offset
            )
            below.filter(state=Letter.State.OPEN).update(state=Letter.State.GONE, resolved_at=now)
        Letter.objects.exclude(state=Letter.State.OPEN).filter(resolved_at__lt=now - RESOLVED_KEPT).delete()


def letter_of(record: kafka.Record, topic_id: str) -> Letter:
    """The index row of a record."""
    said = kafka.deadletter.describe(record)
    return Letter(
        topic=record.topic,
        topic_id=topic_id,
        partition=record.partition,
        offset=record.offset,
        at=max(0, record.timestamp),
        key=printable(record.key)[:200],
        size=len(record.value or b""),
        convention=said.convention[:16],
        reason=(said.reason or "")[:100],
        detail=(said.detail or "")[:500],
        origin_topic=(said.topic or "")[:249],
        origin_partition=said.partition,
        origin_offset=said.offset,
        group=(said.group or "")[:255],
        attempts=said.attempts if said.attempts is not None and 0 <= said.attempts < 2**31 else None,
        redrives=min(max(said.redrives, 0), 2**31 - 1),
    )


def printable(data: bytes | None) -> str:
    """Bytes as text for display and search: UTF-8 where it is, without control characters."""
    text = (data or b"").decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
