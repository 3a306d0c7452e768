"""Work that outlives a request: redrives, exports, imports.

The row is the truth. A Celery message is only the wake-up: a runner resumes at the row's cursor, holds a lease while
it works, and the reaper sends another wake-up for any job whose lease ran out. A message lost or delivered twice
changes nothing.
"""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Job(models.Model):
    class State(models.TextChoices):
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    FINISHED: ClassVar = (State.DONE, State.FAILED, State.CANCELLED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=32, db_index=True)
    title = models.CharField(max_length=255)
    params = models.JSONField(default=dict)
    state = models.CharField(max_length=9, choices=State.choices, default=State.QUEUED, db_index=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    cursor = models.JSONField(null=True)
    total = models.PositiveBigIntegerField(null=True)  # unknown until the runner says
    done = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    message = models.TextField(blank=True)
    result = models.JSONField(null=True)
    cancel_requested = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField(default=0)
    lease = models.CharField(max_length=32, blank=True)
    lease_until = models.DateTimeField(null=True)
    created = models.DateTimeField()
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering: ClassVar = ["-created"]

    def __str__(self) -> str:
        return f"{self.kind} {self.title}"

    @property
    def handled(self) -> int:
        return self.done + self.failed

    @property
    def percent(self) -> int | None:
        return min(100, 100 * (self.done + self.failed) // self.total) if self.total else None

    @property
    def is_finished(self) -> bool:
        return self.state in self.FINISHED
