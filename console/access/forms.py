"""Forms for broker users, ACLs, and the question."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from console.access import rules
from console.kafka import types

NAME = re.compile(r"[^\s:,;=/\\\x00-\x1f\x7f]{1,200}")
RESOURCES = {
    types.ResourceType.TOPIC: _("Topic"),
    types.ResourceType.GROUP: _("Group"),
    types.ResourceType.CLUSTER: _("Cluster"),
    types.ResourceType.TRANSACTIONAL_ID: _("Transactional id"),
    types.ResourceType.DELEGATION_TOKEN: _("Delegation token"),
    types.ResourceType.USER: _("User"),
}
MECHANISMS = [
    ("2", "SCRAM-SHA-512"),
    ("1", "SCRAM-SHA-256"),
    ("both", _("Both")),
]
PATTERNS = [
    (str(int(types.Pattern.LITERAL)), _("exactly this name, or * for all")),
    (str(int(types.Pattern.PREFIXED)), _("names that begin so")),
]
PERMISSIONS = [
    (str(int(types.Permission.ALLOW)), pgettext_lazy("acl", "Allow")),
    (str(int(types.Permission.DENY)), pgettext_lazy("acl", "Deny")),
]


def _plain(field: forms.Field, **more: Any) -> None:
    field.widget.attrs.update({"autocomplete": "off", "spellcheck": "false", **more})


class CreateUser(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=200)
    mechanism = forms.ChoiceField(label=_("Signs in by"), choices=MECHANISMS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _plain(self.fields["name"], autofocus=True)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not NAME.fullmatch(name):
            raise ValidationError(_("No spaces, colons, commas, semicolons, slashes or equals signs."))
        if name.startswith("__"):
            raise ValidationError(_("Names that begin with __ are Sluice's own."))
        return name

    def mechanisms(self) -> list[types.Scram]:
        chosen = self.cleaned_data["mechanism"]
        return [types.Scram.SHA_256, types.Scram.SHA_512] if chosen == "both" else [types.Scram(int(chosen))]


class _Resource(forms.Form):
    principal = forms.CharField(label=_("Who"), max_length=250, help_text=_("A user's name, or * for everybody."))
    host = forms.CharField(label=_("From address"), max_length=64, initial="*", required=False)
    resource = forms.TypedChoiceField(
        label=_("Resource"), choices=[(str(int(r)), label) for r, label in RESOURCES.items()], coerce=int
    )
    name = forms.CharField(label=_("Named"), max_length=249, required=False)
    operation = forms.TypedChoiceField(label=_("Operation"), choices=(), coerce=int)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in ("principal", "name", "host"):
            _plain(self.fields[field])
        known = dict.fromkeys(each for resource in rules.RESOURCES for each in rules.operations(resource))
        self.fields["operation"].choices = [  # type: ignore[attr-defined]  # a choice field
            (str(int(each)), each.name) for each in sorted(known) if each != types.Operation.ALL or self.takes_all
        ]

    takes_all = True

    def clean_principal(self) -> str:
        text: str = self.cleaned_data["principal"].removeprefix("User:")
        if not text:
            raise ValidationError(_("A user's name, or * for everybody."))
        return f"User:{text}"

    def clean_host(self) -> str:
        return self.cleaned_data["host"] or "*"

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if "resource" not in data:
            return data
        resource = types.ResourceType(data["resource"])
        if resource == types.ResourceType.CLUSTER:
            data["name"] = rules.CLUSTER_NAME
        elif not data.get("name"):
            self.add_error("name", _("This resource needs a name."))
        if "operation" in data and types.Operation(data["operation"]) not in rules.operations(resource):
            self.add_error(
                "operation",
                ValidationError(
                    _("%(operation)s means nothing here. Possible: %(possible)s."),
                    params={
                        "operation": types.Operation(data["operation"]).name,
                        "possible": ", ".join(each.name for each in rules.operations(resource)),
                    },
                ),
            )
        return data


class CreateAcl(_Resource):
    pattern = forms.TypedChoiceField(label=_("Stands for"), choices=PATTERNS, coerce=int)
    permission = forms.TypedChoiceField(label=_("Permission"), choices=PERMISSIONS, coerce=int)

    def acl(self) -> types.Acl:
        data = self.cleaned_data
        return types.Acl(
            resource=types.ResourceType(data["resource"]),
            name=data["name"],
            pattern=types.Pattern(data["pattern"]),
            principal=data["principal"],
            host=data["host"],
            operation=types.Operation(data["operation"]),
            permission=types.Permission(data["permission"]),
        )


class May(_Resource):
    takes_all = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["principal"].help_text = ""
        self.fields["host"].initial = ""
        self.fields["host"].widget.attrs["placeholder"] = _("any")
