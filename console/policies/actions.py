"""Changes to policies: permission, row with its record, audit, announcement."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from console import announcements, audit, outbox
from console.accounts.permissions import Permission, demand
from console.policies.models import Policy
from gateway import contract
from gateway import policy as law

FIELDS = ("publish", "subscribe", "deny_publish", "deny_subscribe", "everyone", "note")


class PolicyExists(Exception):
    """There is a policy of that name."""


class Malformed(Exception):
    """A filter is not an MQTT topic filter; the text says which."""


class InUse(Exception):
    """Devices are assigned to the policy: without it they would be allowed less than somebody meant, or nothing."""


def create(*, actor: Any, name: str, values: Mapping[str, Any]) -> Policy:
    """`values`: some of FIELDS. Lists are of topic filters."""
    demand(actor, Permission.POLICY_MANAGE)
    if Policy.objects.filter(name=name).exists():
        raise PolicyExists(_("There is a policy %(name)s already.") % {"name": name})
    policy = _with(Policy(name=name), values)
    with audit.change(actor, "policy.create", kind="policy", name=name, after=_described(policy)):
        _write(policy)
    announcements.changed("policy", name)
    return policy


def edit(*, actor: Any, policy: Policy, values: Mapping[str, Any]) -> None:
    demand(actor, Permission.POLICY_MANAGE)
    before = _described(policy)
    _with(policy, values)
    with audit.change(actor, "policy.edit", kind="policy", name=policy.name, before=before, after=_described(policy)):
        _write(policy)
    announcements.changed("policy", policy.name)


def delete(*, actor: Any, policy: Policy) -> None:
    """Deletes a policy that no device is assigned to."""
    demand(actor, Permission.POLICY_MANAGE)
    name, before = policy.name, _described(policy)
    with audit.change(actor, "policy.delete", kind="policy", name=name, before=before), transaction.atomic():
        if assigned := policy.devices.count():
            raise InUse(_("%(n)d devices are assigned to it. Take it away from them first.") % {"n": assigned})
        policy.delete()
        outbox.put(contract.POLICIES, name, None)
    announcements.changed("policy", name)


def _with(policy: Policy, values: Mapping[str, Any]) -> Policy:
    for field in FIELDS:
        if field in values:
            value = values[field]
            filters = isinstance(value, Sequence) and not isinstance(value, str)
            setattr(policy, field, list(value) if filters else value)
    if wrong := law.problems(policy.record()):
        raise Malformed("; ".join(wrong))
    return policy


def _write(policy: Policy) -> None:
    with transaction.atomic():
        policy.save()
        outbox.put(contract.POLICIES, policy.name, contract.encode(policy.record()))


def _described(policy: Policy) -> dict[str, Any]:
    return {field: getattr(policy, field) for field in FIELDS}
