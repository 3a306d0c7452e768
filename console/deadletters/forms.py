"""Forms for dead letters: where one goes and what it holds, and how many go at once."""

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.deadletters.redrive import Headers
from console.topics.forms import NAME

MAX_VALUE = 1_000_000


def check_target(value: str) -> None:
    if not NAME.fullmatch(value) or value.startswith("__"):
        raise ValidationError(_("That is not a topic's name."))


class SendAgain(forms.Form):
    target = forms.CharField(label=_("Send to topic"), max_length=249, validators=[check_target])
    key = forms.CharField(label=_("Key"), required=False, strip=False, max_length=MAX_VALUE)
    value = forms.CharField(
        label=_("Value"), required=False, strip=False, max_length=MAX_VALUE, widget=forms.Textarea(attrs={"rows": 8})
    )
    headers = forms.CharField(
        label=_("Headers"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=_("A JSON object of names and texts."),
    )

    def __init__(self, *args: Any, text: bool, **kwargs: Any) -> None:
        """`text` False: the record is not text, so only where it goes can be changed."""
        super().__init__(*args, **kwargs)
        self.fields["target"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false", "list": "topics"})
        for name in ("key", "value", "headers"):
            if text:
                self.fields[name].widget.attrs.update({"class": "mono", "spellcheck": "false"})
            else:
                del self.fields[name]

    def clean_value(self) -> str:
        # a browser sends line ends as CR LF; a payload has them as it was shown
        value: str = self.cleaned_data["value"]
        return value.replace("\r\n", "\n")

    def clean_headers(self) -> Headers:
        try:
            headers = json.loads(self.cleaned_data["headers"] or "{}")
        except ValueError as error:
            raise ValidationError(_("That is not JSON: %(why)s"), params={"why": error}) from error
        if not isinstance(headers, dict) or not all(isinstance(value, str | None) for value in headers.values()):
            raise ValidationError(_("A JSON object of names and texts is needed."))
        return tuple((name, None if value is None else value.encode()) for name, value in headers.items())


class SendAllAgain(forms.Form):
    target = forms.CharField(
        label=_("Send to topic"),
        max_length=249,
        required=False,
        validators=[check_target],
        help_text=_("Empty: each goes back to the topic it came from."),
    )
    per_second = forms.IntegerField(
        label=_("At most, per second"), min_value=1, max_value=100_000, required=False, help_text=_("Empty: no limit.")
    )


class TypeCount(forms.Form):
    """What is done to many at once is confirmed by typing how many they are."""

    typed = forms.CharField(required=False, strip=True)

    def __init__(self, count: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count = count

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed != str(self.count):
            raise ValidationError(_("That is not the number."))
        return typed
