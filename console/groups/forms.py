"""The form that says where a group's offsets go."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

TARGETS = [
    ("earliest", _("The oldest record")),
    ("latest", _("The end: skip what is unread")),
    ("time", _("A point in time")),
    ("shift", _("Forward or back by a number of records")),
]


class Reset(forms.Form):
    topics = forms.MultipleChoiceField(label=_("Topics"))
    target = forms.ChoiceField(label=_("Move to"), choices=TARGETS, initial="earliest")
    since = forms.DateTimeField(
        label=_("Time"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}),
        input_formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"],
    )
    shift = forms.IntegerField(label=_("Records (negative: back)"), required=False)

    def __init__(self, topics: list[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["topics"].choices = [(name, name) for name in topics]  # type: ignore[attr-defined]  # a choice field
        self.fields["topics"].initial = topics

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if data.get("target") == "time" and not data.get("since"):
            self.add_error("since", ValidationError(_("Say which time.")))
        if data.get("target") == "shift" and not data.get("shift"):
            self.add_error("shift", ValidationError(_("Say by how many records.")))
        return data

    @property
    def value(self) -> int:
        """The number that goes with the target: epoch ms, or records."""
        if self.cleaned_data["target"] == "time":
            return int(self.cleaned_data["since"].timestamp() * 1000)
        return int(self.cleaned_data.get("shift") or 0)
