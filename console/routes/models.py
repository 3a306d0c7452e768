"""Routes: the row is what people search and edit; gateways follow its record in `__sluice_routes`."""

from dataclasses import asdict
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway import contract
from gateway.routes import Downlink, Uplink


class Route(models.Model):
    """`definition` is the record as gateways read it. `source`, `target`, `priority` and `enabled` repeat what is
    searched and sorted by."""

    class Kind(models.TextChoices):
        UPLINK = "uplink", _("Uplink")
        DOWNLINK = "downlink", _("Downlink")

    name = models.CharField(_("name"), max_length=200, unique=True)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    source = models.CharField(_("from"), max_length=2000)
    target = models.CharField(_("to"), max_length=2000)
    priority = models.IntegerField(_("priority"), default=100)
    enabled = models.BooleanField(_("enabled"), default=True)
    definition = models.JSONField()
    note = models.CharField(_("note"), max_length=500, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("route")
        verbose_name_plural = _("routes")
        ordering: ClassVar = ["priority", "name"]

    def __str__(self) -> str:
        return self.name

    def record(self) -> Uplink | Downlink:
        """As gateways know it."""
        kind = Uplink if self.kind == self.Kind.UPLINK else Downlink
        fields = dict(self.definition)
        if isinstance(fields.get("allow"), list):
            fields["allow"] = tuple(fields["allow"])
        made: Uplink | Downlink = kind(**fields)
        return made

    def take(self, record: Uplink | Downlink) -> None:
        """Makes the row that of `record`."""
        self.name, self.enabled, self.definition = record.name, record.enabled, asdict(record)
        if isinstance(record, Uplink):
            self.kind, self.source, self.target = self.Kind.UPLINK, record.filter, record.topic
            self.priority = record.priority
        else:
            self.kind, self.source, self.target = self.Kind.DOWNLINK, record.topic, record.mqtt_topic

    def encoded(self) -> bytes:
        return contract.encode(self.record())
