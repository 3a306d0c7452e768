"""What is still to be published: one row for each key of a topic, with its newest value."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Pending(models.Model):
    """`value` None deletes the key (a tombstone). `holder` publishes it until `held_until`; `version` rises with each
    newer value, so that whoever publishes sees that another came meanwhile."""

    topic = models.CharField(max_length=249)
    key = models.CharField(max_length=512)
    value = models.BinaryField(null=True)
    version = models.PositiveBigIntegerField(default=1)
    created = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    holder = models.CharField(max_length=32, blank=True)
    held_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("record to publish")
        verbose_name_plural = _("records to publish")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["topic", "key"], name="one_row_per_key")]

    def __str__(self) -> str:
        return f"{self.topic} {self.key}"
