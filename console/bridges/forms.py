"""The form of a bridge."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from console.routes.forms import Lines, check_name
from gateway.bridges import LEAST_KEEP_ALIVE, MOST_KEEP_ALIVE, Bridge


class BridgeForm(forms.Form):
    address = forms.CharField(
        label=_("Address"), max_length=500, help_text=_("mqtt://host:port, or mqtts://host:port for TLS.")
    )
    client_id = forms.CharField(
        label=_("Client id"), max_length=128, help_text=_("The upstream keeps the bridge's session under it.")
    )
    username = forms.CharField(label=_("User name"), max_length=500, required=False)
    password = forms.CharField(
        label=_("Password"),
        max_length=1000,
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("Kept encrypted and never shown. Empty: the one that is kept stays."),
    )
    ca = forms.CharField(
        label=_("Certificate authority (PEM)"),
        max_length=100_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Who signed the upstream's certificate. Empty: the authorities that this machine trusts."),
    )
    inbound = Lines(
        label=_("Filters in"), max_length=20_000, required=False, help_text=_("Upstream topic filters, one a line.")
    )
    local_prefix = forms.CharField(
        label=_("Local prefix"), max_length=500, required=False, help_text=_("Put before topics that come in.")
    )
    outbound = Lines(
        label=_("Filters out"), max_length=20_000, required=False, help_text=_("Topic filters here, one a line.")
    )
    remote_prefix = forms.CharField(
        label=_("Remote prefix"), max_length=500, required=False, help_text=_("Put before topics that go out.")
    )
    qos = forms.TypedChoiceField(label=_("QoS"), choices=[("1", "1"), ("0", "0")], coerce=int, initial="1")
    keep_alive = forms.IntegerField(
        label=_("Keep alive, seconds"), min_value=LEAST_KEEP_ALIVE, max_value=MOST_KEEP_ALIVE, initial=60
    )
    enabled = forms.BooleanField(label=_("In force"), initial=True, required=False)
    note = forms.CharField(label=_("Note"), max_length=500, required=False)

    def __init__(self, *args: Any, named: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.named = named
        if not named:
            self.fields["name"] = forms.CharField(label=_("Name"), max_length=200, validators=[check_name])
            self.fields["name"].widget.attrs["autofocus"] = True
        for field in self.fields.values():
            field.widget.attrs.setdefault("autocomplete", "off")
            field.widget.attrs.setdefault("spellcheck", "false")

    def record(self) -> Bridge:
        """The definition, without its password."""
        data = self.cleaned_data
        kept = {name: data[name] for name in data if name not in ("name", "note", "password")}
        kept["ca"] = kept["ca"].replace("\r\n", "\n")
        return Bridge(name=self.named or data["name"], **kept)

    def show(self, problems: list[str]) -> None:
        """Puts complaints beside the fields they are about."""
        for problem in problems:
            field, _separator, text = problem.partition(": ")
            self.add_error(field if field in self.fields else None, text or problem)
