"""Topics and consumer groups as the monitor last saw them. See the package's docstring for what they are not."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Topic(models.Model):
    name = models.CharField(_("name"), max_length=249, unique=True)
    topic_id = models.CharField(max_length=36, blank=True)
    partitions = models.PositiveIntegerField(_("partitions"), default=0)
    replication = models.PositiveIntegerField(_("replicas"), null=True)
    messages = models.BigIntegerField(_("messages"), null=True)
    size = models.BigIntegerField(_("size"), null=True)
    lag = models.BigIntegerField(_("lag"), null=True)
    cleanup = models.CharField(_("cleanup"), max_length=32, blank=True)

    class Meta:
        verbose_name = _("topic")
        verbose_name_plural = _("topics")
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class Group(models.Model):
    name = models.CharField(_("name"), max_length=512, unique=True)
    kind = models.CharField(_("kind"), max_length=16, blank=True)
    state = models.CharField(_("state"), max_length=32, blank=True)
    members = models.PositiveIntegerField(_("members"), null=True)
    topics = models.TextField(_("topics"), blank=True)
    lag = models.BigIntegerField(_("lag"), null=True)

    class Meta:
        verbose_name = _("group")
        verbose_name_plural = _("groups")
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name
