"""The record of every change: who did what to what, from which value to which, and how it ended.

Entries are only ever appended. Each carries the hash of its predecessor, so an entry that was altered or removed
breaks the chain at its place; triggers refuse UPDATE and DELETE, for what goes around this code.

The broker and this database can't commit together: an `Intent` is written before a change is tried and replaced by
its Entry afterwards. An Intent left behind by a crash becomes an Entry whose outcome is unknown.
"""

import hashlib
import json
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

GENESIS = "0" * 64


class Intent(models.Model):
    started = models.DateTimeField()
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=64)
    kind = models.CharField(max_length=32)
    name = models.CharField(max_length=512)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    address = models.CharField(max_length=64, blank=True)


class Entry(models.Model):
    class Outcome(models.TextChoices):
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        UNKNOWN = "unknown", _("Unknown")

    at = models.DateTimeField()
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    actor = models.CharField(max_length=150)  # the name as it was
    action = models.CharField(max_length=64, db_index=True)
    kind = models.CharField(max_length=32)
    name = models.CharField(max_length=512)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    outcome = models.CharField(max_length=8, choices=Outcome.choices)
    detail = models.TextField(blank=True)
    address = models.CharField(max_length=64, blank=True)
    previous = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["kind", "name"])]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor} {self.action} {self.name}"

    def computed_hash(self) -> str:
        """SHA-256 over the predecessor's hash and this entry's content in canonical JSON."""
        content: dict[str, Any] = {
            "at": self.at.isoformat(),
            "actor": self.actor,
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "outcome": self.outcome,
            "detail": self.detail,
            "address": self.address,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(self.previous.encode() + text.encode()).hexdigest()


class Head(models.Model):
    """The chain's last hash and length: one row, locked while an entry is appended."""

    hash = models.CharField(max_length=64, default=GENESIS)
    length = models.PositiveBigIntegerField(default=0)
