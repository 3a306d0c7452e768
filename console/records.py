"""What a record says, under the names its form gives the fields: for the pages of routes and bridges."""

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _


def described(
    form: type[forms.Form], values: Mapping[str, Any], leave_out: Container[str]
) -> Iterator[tuple[Any, str]]:
    """(label, text) of each field in the form's order; "" for what isn't set."""
    for name, field in form.base_fields.items():
        if name in values and name not in leave_out:
            yield field.label, _text(field, values[name])


def _text(field: forms.Field, value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(field, forms.ChoiceField):
        return str(dict(field.choices).get(str(value), value))  # type: ignore[arg-type]  # flat choices here
    if value in ("", None) or (not value and not field.required):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    if isinstance(value, dict):
        flat = all(isinstance(each, str) for each in value.values())
        return "\n".join(f"{k}={v}" for k, v in value.items()) if flat else json.dumps(value, indent=2)
    return f"{value:g}" if isinstance(value, float) else str(value)
