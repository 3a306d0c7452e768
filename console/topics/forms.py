"""Forms for topics. Kafka's rules for names and values are the broker's to enforce; these say them early."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
CLEANUP = [
    ("delete", _("Delete old records")),
    ("compact", _("Keep the newest per key")),
    ("compact,delete", _("Both")),
]
UNITS = [("h", _("hours")), ("d", _("days")), ("m", _("minutes")), ("s", _("seconds"))]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def check_name(value: str) -> None:
    if not NAME.fullmatch(value) or value in (".", ".."):
        raise ValidationError(_("Letters, digits, dots, dashes and underscores; at most 249 of them."))
    if value.startswith("__"):
        raise ValidationError(_("Names that begin with __ are Sluice's own."))


class CreateTopic(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=249, validators=[check_name])
    partitions = forms.IntegerField(label=_("Partitions"), min_value=1, max_value=10000, initial=3)
    replication = forms.IntegerField(label=_("Replicas"), min_value=1, max_value=32, required=False)
    cleanup = forms.ChoiceField(label=_("When it is full"), choices=CLEANUP, initial="delete")
    keep = forms.IntegerField(
        label=_("Keep for"), min_value=1, required=False, help_text=_("Empty: the cluster's default.")
    )
    keep_unit = forms.ChoiceField(label=_("Unit"), choices=UNITS, initial="d", required=False)
    keep_bytes = forms.IntegerField(
        label=_("At most, MiB per partition"), min_value=1, required=False, help_text=_("Empty: no limit by size.")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false", "autofocus": True})

    def configs(self) -> dict[str, str]:
        data = self.cleaned_data
        configs = {"cleanup.policy": data["cleanup"]}
        if data.get("keep"):
            configs["retention.ms"] = str(data["keep"] * SECONDS[data.get("keep_unit") or "d"] * 1000)
        if data.get("keep_bytes"):
            configs["retention.bytes"] = str(data["keep_bytes"] * 1024 * 1024)
        return configs


class AddPartitions(forms.Form):
    total = forms.IntegerField(label=_("Partitions afterwards"), min_value=2, max_value=10000)

    def __init__(self, now: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.now = now
        self.fields["total"].initial = now + 1

    def clean_total(self) -> int:
        total: int = self.cleaned_data["total"]
        if total <= self.now:
            raise ValidationError(
                _("The topic has %(now)d partitions; there can only be more."), params={"now": self.now}
            )
        return total
