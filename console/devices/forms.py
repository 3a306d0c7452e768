"""Forms for devices and bans."""

import ipaddress
import re
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.devices.models import Ban
from console.policies.models import Policy
from gateway.policy import unfit

LABEL = re.compile(r"[^\s,]{1,64}")
DURATIONS = [
    ("0", _("for good")),
    ("900", _("15 minutes")),
    ("3600", _("1 hour")),
    ("86400", _("1 day")),
    ("604800", _("1 week")),
]


def check_name(value: str) -> None:
    """Raises ValidationError for what gateways would refuse as a device's name (MQTT user name)."""
    if unfit(value) or any(ord(char) < 32 for char in value):
        raise ValidationError(_("A device's name can't contain / + # or control characters."))
    if value.startswith("$"):
        raise ValidationError(_("Names that begin with $ are Sluice's own."))


class EditDevice(forms.Form):
    client_id = forms.CharField(
        label=_("Client id"),
        max_length=512,
        required=False,
        help_text=_("The only MQTT client id it may use. Empty: any that is not another device's."),
    )
    labels = forms.CharField(
        label=_("Labels"), max_length=500, required=False, help_text=_("Words to find it by, with commas between.")
    )
    policies = forms.ModelMultipleChoiceField(
        label=_("Policies"),
        queryset=Policy.objects.filter(everyone=False),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    note = forms.CharField(label=_("Note"), max_length=500, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("client_id", "labels"):
            self.fields[name].widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})

    def clean_labels(self) -> list[str]:
        words = [word.strip() for word in self.cleaned_data["labels"].split(",")]
        labels = list(dict.fromkeys(word for word in words if word))
        for label in labels:
            if not LABEL.fullmatch(label):
                raise ValidationError(_("A label has no spaces and at most 64 characters."))
        return labels


class AddDevice(EditDevice):
    name = forms.CharField(
        label=_("Name"),
        max_length=200,
        validators=[check_name],
        help_text=_("It signs in with this name as its MQTT user name."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false", "autofocus": True})


class AddBan(forms.Form):
    kind = forms.ChoiceField(label=_("Kind"), choices=Ban.Kind.choices)
    value = forms.CharField(label=_("Who"), max_length=512)
    lasts = forms.ChoiceField(label=_("How long"), choices=DURATIONS)
    reason = forms.CharField(label=_("Reason"), max_length=200, required=False)

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if data.get("kind") == Ban.Kind.ADDRESS and data.get("value"):
            try:
                data["value"] = str(ipaddress.ip_address(data["value"]))
            except ValueError:
                self.add_error("value", _("That is not an IP address."))
        return data

    def until(self) -> Any:
        seconds = int(self.cleaned_data["lasts"])
        return timezone.now() + timedelta(seconds=seconds) if seconds else None
