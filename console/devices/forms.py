"""Forms for devices and bans."""

import ipaddress
import re
from datetime import timedelta
from itertools import zip_longest
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.devices.models import LIMITS, Ban
from console.policies.models import Policy
from gateway.passwords import MIN_PASSWORD
from gateway.policy import unfit

LABEL = re.compile(r"[^\s,]{1,64}")
SMALLEST = {"packet_size": 1024}  # a device must be able to connect
LARGEST = 268_435_455  # that MQTT has a packet of
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
    subject = forms.CharField(
        label=_("Certificate subject"),
        max_length=512,
        required=False,
        help_text=_("The common name of a client certificate that it may sign in with."),
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
        for name in ("client_id", "labels", "subject"):
            self.fields[name].widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})
        for name, label in LIMITS:
            field = forms.IntegerField(label=label, min_value=SMALLEST.get(name, 1), max_value=LARGEST, required=False)
            field.widget.attrs.update({"inputmode": "numeric"})
            self.fields[name] = field

    @property
    def limit_pairs(self) -> list[tuple[forms.BoundField, forms.BoundField | None]]:
        """Fields that stand beside each other."""
        found = [self[name] for name, _label in LIMITS]
        return list(zip_longest(found[::2], found[1::2]))

    def limits(self) -> dict[str, int]:
        """Those that are given."""
        return {name: self.cleaned_data[name] for name, _label in LIMITS if self.cleaned_data[name] is not None}

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


class NewPassword(forms.Form):
    password = forms.CharField(
        label=_("A password of your own"),
        max_length=200,
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("Leave it empty to have a better one generated, which SCRAM can use as well."),
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if password and len(password) < MIN_PASSWORD:
            raise ValidationError(_("A password has at least %(count)s characters.") % {"count": MIN_PASSWORD})
        return password


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
