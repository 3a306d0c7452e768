"""The form of a quota."""

import ipaddress
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.kafka import types
from console.quotas import limits


class SetQuota(forms.Form):
    """Limits left empty are none."""

    def __init__(self, *args: Any, entity: types.QuotaEntity | None = None, **kwargs: Any) -> None:
        """`entity`: whom it limits, where that is decided already."""
        super().__init__(*args, **kwargs)
        self.entity = entity
        if entity is None:
            for field, label in limits.PARTS:
                self.fields[field] = forms.CharField(label=label, max_length=249, required=False)
                self.fields[field].widget.attrs.update({"autocomplete": "off", "spellcheck": "false"})
        for limit in limits.LIMITS:
            self.fields[limit.name] = forms.FloatField(label=limit.label, min_value=0.000001, required=False)

    def clean(self) -> dict[str, Any]:
        """New connections are limited by address, all else by user and client id."""
        whom = self.whom()
        if whom == types.QuotaEntity():
            raise ValidationError(_("Name a user, a client id or an address; * is every one without its own."))
        if whom.ip is not None and (whom.user is not None or whom.client_id is not None):
            self.add_error("ip", _("An address can't be combined with a user or client id."))
        elif whom.ip and not _is_address(whom.ip):
            self.add_error("ip", _("That is not an IP address."))
        for name in self.wanted():
            of_addresses = name in limits.OF_ADDRESSES
            if of_addresses and whom.ip is None:
                self.add_error(name, _("That limits addresses only."))
            if not of_addresses and whom.ip is not None:
                self.add_error(name, _("Addresses have no such limit."))
        return self.cleaned_data

    def whom(self) -> types.QuotaEntity:
        return self.entity if self.entity is not None else limits.entity(self.cleaned_data)

    def wanted(self) -> dict[str, float]:
        data = self.cleaned_data
        return {limit.name: data[limit.name] for limit in limits.LIMITS if data.get(limit.name) is not None}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
