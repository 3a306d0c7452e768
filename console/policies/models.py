"""Policies: the row is what people search and edit; gateways follow its record in `__sluice_policies`."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway import policy as law


class Policy(models.Model):
    """The four lists hold topic filters, in which %c stands for the client id and %u for the device's name."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    publish = models.JSONField(_("may publish"), default=list)
    subscribe = models.JSONField(_("may subscribe"), default=list)
    deny_publish = models.JSONField(_("may not publish"), default=list)
    deny_subscribe = models.JSONField(_("may not subscribe"), default=list)
    everyone = models.BooleanField(_("applies to everyone"), default=False)
    note = models.CharField(_("note"), max_length=500, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("policy")
        verbose_name_plural = _("policies")
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def record(self) -> law.Policy:
        """As gateways know it."""
        return law.Policy(
            name=self.name,
            publish=tuple(self.publish),
            subscribe=tuple(self.subscribe),
            deny_publish=tuple(self.deny_publish),
            deny_subscribe=tuple(self.deny_subscribe),
            everyone=self.everyone,
        )
