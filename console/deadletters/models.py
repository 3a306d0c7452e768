"""The index of dead letters: one row for each record of a dead-letter topic, and what became of it.

The records stay in their topics, which are the truth about contents; a row holds what is searched, counted and sorted
by, and the one thing a topic has no place for: whether somebody has dealt with the letter. The indexer alone adds rows;
each batch of rows and the position after it are written in one transaction, so no letter is indexed twice or passed
over.
"""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Letter(models.Model):
    class State(models.TextChoices):
        OPEN = "open", _("Open")
        REDRIVEN = "redriven", _("Sent again")
        DISCARDED = "discarded", _("Discarded")
        GONE = "gone", _("Removed by retention")

    topic = models.CharField(max_length=249)
    topic_id = models.CharField(max_length=36)
    partition = models.PositiveIntegerField()
    offset = models.PositiveBigIntegerField()
    at = models.BigIntegerField()  # epoch ms, of the record in the dead-letter topic
    key = models.CharField(max_length=200, blank=True)  # as text, cut; for search and display alone
    size = models.PositiveIntegerField()  # bytes of the value
    convention = models.CharField(max_length=16, blank=True)
    reason = models.CharField(max_length=100, blank=True)
    detail = models.CharField(max_length=500, blank=True)
    origin_topic = models.CharField(max_length=249, blank=True)
    origin_partition = models.IntegerField(null=True)
    origin_offset = models.BigIntegerField(null=True)
    group = models.CharField(max_length=255, blank=True)
    attempts = models.PositiveIntegerField(null=True)
    redrives = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    job = models.UUIDField(null=True)  # the redrive that dealt with it
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["topic_id", "partition", "offset"], name="one_row_per_letter")
        ]
        indexes: ClassVar = [
            models.Index(fields=["topic", "state", "reason"]),
            models.Index(fields=["topic", "state", "partition", "offset"]),
            models.Index(fields=["state", "at"]),
            models.Index(fields=["topic", "state", "at"]),
            models.Index(fields=["group", "state", "topic"]),
        ]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Position(models.Model):
    """How far a partition of a dead-letter topic has been indexed: the next offset to read."""

    topic = models.CharField(max_length=249)
    topic_id = models.CharField(max_length=36)
    partition = models.PositiveIntegerField()
    offset = models.PositiveBigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["topic_id", "partition"], name="one_position_per_partition")
        ]
