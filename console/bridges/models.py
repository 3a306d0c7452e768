"""Bridges: the row is what people search and edit; the bridge process follows its record in `__sluice_bridges`."""

from dataclasses import asdict
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway import contract
from gateway.bridges import Bridge as Record


class Bridge(models.Model):
    """`definition` is the record, its password sealed. `address` and `enabled` repeat what is searched and sorted."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    address = models.CharField(_("address"), max_length=500)
    enabled = models.BooleanField(_("enabled"), default=True)
    definition = models.JSONField()
    note = models.CharField(_("note"), max_length=500, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("bridge")
        verbose_name_plural = _("bridges")
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def record(self) -> Record:
        """As the bridge process knows it."""
        fields = dict(self.definition)
        for name in ("inbound", "outbound"):
            fields[name] = tuple(fields.get(name, ()))
        return Record(**fields)

    def take(self, record: Record) -> None:
        """Makes the row that of `record`."""
        self.name, self.address, self.enabled = record.name, record.address, record.enabled
        self.definition = asdict(record)

    def encoded(self) -> bytes:
        return contract.encode(self.record())
