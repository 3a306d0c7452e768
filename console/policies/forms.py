"""Forms for policies, and for the simulator."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from gateway import policy as law

NAME = re.compile(r"[A-Za-z0-9._@:-]{1,200}")


def check_name(value: str) -> None:
    if not NAME.fullmatch(value):
        raise ValidationError(_("Letters, digits and . _ @ : - only."))


class Filters(forms.CharField):
    """Topic filters, one a line."""

    widget = forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "autocomplete": "off"})

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, max_length=20000, strip=True, **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def clean(self, value: Any) -> Any:
        lines = [line.strip() for line in super().clean(value).splitlines()]
        filters = list(dict.fromkeys(line for line in lines if line))
        for each in filters:
            if "{client_id}" in each or "{username}" in each:
                raise ValidationError(_("A route's {client_id} and {username} are %c and %u here."))
            if law.problems(law.Policy(name="", publish=(each,))):
                raise ValidationError(_("%(filter)s is not a topic filter."), params={"filter": each})
        return filters


class EditPolicy(forms.Form):
    publish = Filters(label=_("May publish to"))
    subscribe = Filters(label=_("May subscribe to"))
    deny_publish = Filters(label=_("May never publish to"))
    deny_subscribe = Filters(label=_("May never subscribe to"))
    everyone = forms.BooleanField(label=_("Applies to everyone, anonymous clients too"), required=False)
    note = forms.CharField(label=_("Note"), max_length=500, required=False)


class CreatePolicy(EditPolicy):
    name = forms.CharField(label=_("Name"), max_length=200, validators=[check_name])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false", "autofocus": True})


class Try(forms.Form):
    device = forms.CharField(
        label=_("Device"), max_length=200, required=False, help_text=_("Its name. Empty: an anonymous client.")
    )
    client_id = forms.CharField(
        label=_("Client id"), max_length=512, required=False, help_text=_("Empty: the device's, else its name.")
    )
    verb = forms.ChoiceField(
        label=_("May it"),
        choices=[("publish", _("publish to")), ("subscribe", _("subscribe to")), ("receive", _("receive from"))],
    )
    topic = forms.CharField(label=_("Topic"), max_length=2000)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("device", "client_id", "topic"):
            self.fields[name].widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})
