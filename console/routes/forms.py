"""Forms for routes, and for trying them."""

import json
import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from gateway.routes import DEAD_LETTER, DISCARD, Downlink, Incoming, Uplink

NAME = re.compile(r"[A-Za-z0-9._@:-]{1,200}")


def check_name(value: str) -> None:
    if not NAME.fullmatch(value):
        raise ValidationError(_("Letters, digits and . _ @ : - only."))


class Lines(forms.CharField):
    """Words, one a line."""

    widget = forms.Textarea(attrs={"rows": 2, "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def clean(self, value: Any) -> Any:
        return tuple(line.strip() for line in super().clean(value).splitlines() if line.strip())


class Headers(forms.CharField):
    """`name=template`, one a line."""

    widget = forms.Textarea(attrs={"rows": 2, "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value

    def clean(self, value: Any) -> Any:
        found: dict[str, str] = {}
        for line in super().clean(value).splitlines():
            if not line.strip():
                continue
            name, separator, template = line.partition("=")
            if not separator or not name.strip():
                raise ValidationError(_("Write name=template, one a line."))
            found[name.strip()] = template.strip()
        return found


class Schema(forms.CharField):
    """A JSON Schema, or nothing."""

    widget = forms.Textarea(attrs={"rows": 4, "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, indent=2) if isinstance(value, dict) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text.strip():
            return None
        try:
            schema = json.loads(text)
        except ValueError as error:
            raise ValidationError(_("That is not JSON: %(reason)s"), params={"reason": str(error)}) from error
        if not isinstance(schema, dict):
            raise ValidationError(_("A schema is a JSON object."))
        return schema


class _Route(forms.Form):
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

    def show(self, problems: list[str]) -> None:
        """Puts the gateway's complaints beside the fields they are about."""
        for problem in problems:
            label, _separator, text = problem.partition(": ")
            field = "headers" if label.startswith("header ") else label
            self.add_error(field if field in self.fields else None, text or problem)


def _expired() -> forms.ChoiceField:
    return forms.ChoiceField(
        label=_("Messages that expire"),
        choices=[
            ("", _("As the gateway is set")),
            (DISCARD, _("Are discarded")),
            (DEAD_LETTER, _("Go to the dead letters")),
        ],
        required=False,
        help_text=_("What becomes of a message that expires before a subscriber had it."),
    )


class UplinkForm(_Route):
    filter = forms.CharField(label=_("MQTT topic filter"), max_length=2000)
    topic = forms.CharField(label=_("Broker topic"), max_length=500, initial="mqtt.messages")
    key = forms.CharField(label=_("Key"), max_length=500, initial="{client_id}", required=False)
    priority = forms.IntegerField(
        label=_("Priority"), min_value=0, max_value=10000, initial=100, help_text=_("The lowest number decides.")
    )
    enabled = forms.BooleanField(label=_("In force"), initial=True, required=False)
    headers = Headers(label=_("Headers"), max_length=5000, required=False, help_text=_("name=template, one a line."))
    max_size = forms.IntegerField(
        label=_("Largest payload, bytes"),
        min_value=0,
        initial=0,
        required=False,
        help_text=_("0: whatever the gateway takes."),
    )
    json_only = forms.BooleanField(label=_("JSON payloads only"), required=False)
    schema = Schema(
        label=_("JSON Schema"),
        max_length=50000,
        required=False,
        help_text=_("What payloads must match. Empty: not asked."),
    )
    sample = forms.FloatField(
        label=_("Sampling"),
        min_value=0,
        max_value=1,
        initial=1.0,
        required=False,
        help_text=_("The share that is kept: 1 is every message, 0.1 one in ten."),
    )
    message_id = forms.CharField(
        label=_("Message id"),
        max_length=500,
        required=False,
        help_text=_("A template, as {payload.id}. Empty: the user property sluice.message.id."),
    )
    deduplicate = forms.FloatField(
        label=_("De-duplicate within, seconds"),
        min_value=0,
        initial=0,
        required=False,
        help_text=_("0: a message id may come again."),
    )
    allow = Lines(
        label=_("Topics the template may create"),
        max_length=5000,
        required=False,
        help_text=_("Names with *, one a line. Empty: those that begin as the template does."),
    )
    max_topics = forms.IntegerField(label=_("At most that many topics"), min_value=1, initial=100, required=False)
    expired = _expired()

    def record(self) -> Uplink:
        data = self.cleaned_data
        return Uplink(
            name=self.named or data["name"],
            filter=data["filter"],
            topic=data["topic"],
            key=data["key"],
            headers=data["headers"],
            priority=data["priority"],
            enabled=data["enabled"],
            max_size=data["max_size"] or 0,
            json_only=data["json_only"],
            schema=data["schema"],
            sample=1.0 if data["sample"] is None else data["sample"],
            message_id=data["message_id"],
            deduplicate=data["deduplicate"] or 0.0,
            allow=data["allow"],
            max_topics=data["max_topics"] or 100,
            expired=data["expired"],
        )


class DownlinkForm(_Route):
    topic = forms.CharField(label=_("Broker topic"), max_length=249)
    mqtt_topic = forms.CharField(label=_("MQTT topic"), max_length=2000)
    client_id = forms.CharField(
        label=_("Client id"),
        max_length=500,
        initial="{key}",
        required=False,
        help_text=_("Whose inbox it goes to. Empty: published to whoever subscribes."),
    )
    qos = forms.TypedChoiceField(label=_("QoS"), choices=[("0", "0"), ("1", "1"), ("2", "2")], coerce=int, initial="1")
    expiry = forms.IntegerField(label=_("Expires after, seconds"), min_value=0, initial=0, required=False)
    expired = _expired()
    retain = forms.BooleanField(label=_("Retained"), required=False)
    enabled = forms.BooleanField(label=_("In force"), initial=True, required=False)

    def record(self) -> Downlink:
        data = self.cleaned_data
        return Downlink(
            name=self.named or data["name"],
            topic=data["topic"],
            mqtt_topic=data["mqtt_topic"],
            client_id=data["client_id"],
            qos=data["qos"],
            retain=data["retain"],
            expiry=data["expiry"] or 0,
            expired=data["expired"],
            enabled=data["enabled"],
        )


FORMS: dict[str, type[UplinkForm] | type[DownlinkForm]] = {"uplink": UplinkForm, "downlink": DownlinkForm}


class Try(forms.Form):
    """An MQTT message, as a device would publish it."""

    topic = forms.CharField(label=_("MQTT topic"), max_length=2000)
    client_id = forms.CharField(label=_("Client id"), max_length=512, initial="device-1")
    username = forms.CharField(label=_("Device"), max_length=200, required=False)
    qos = forms.TypedChoiceField(
        label=_("QoS"), choices=[("0", "0"), ("1", "1"), ("2", "2")], coerce=int, required=False
    )
    payload = forms.CharField(
        label=_("Payload"), required=False, max_length=20000, strip=False, widget=forms.Textarea(attrs={"rows": 5})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})

    def clean_topic(self) -> str:
        topic: str = self.cleaned_data["topic"]
        if "+" in topic or "#" in topic:
            raise ValidationError(_("A message has a topic name, without wildcards."))
        return topic

    def message(self) -> Incoming:
        data = self.cleaned_data
        return Incoming(
            topic=data["topic"],
            payload=data["payload"].encode(),
            client_id=data["client_id"],
            username=data["username"],
            qos=data["qos"] or 0,
        )


class TryRecord(forms.Form):
    """A record, as an application would write it."""

    topic = forms.CharField(label=_("Broker topic"), max_length=249)
    key = forms.CharField(label=_("Key"), max_length=2000, required=False)
    payload = forms.CharField(
        label=_("Value"), required=False, max_length=20000, strip=False, widget=forms.Textarea(attrs={"rows": 5})
    )
