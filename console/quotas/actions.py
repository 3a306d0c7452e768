"""Changes to quotas: permission, broker call, record, announcement."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from console import announcements, audit, kafka
from console.accounts.permissions import Permission, demand
from console.kafka import types
from console.quotas import limits


class NoLimit(Exception):
    """A quota without a limit is none."""


class InternalUser(Exception):
    """The user is Sluice's own."""


def put(*, actor: Any, entity: types.QuotaEntity, wanted: Mapping[str, float]) -> None:
    """Gives the entity exactly these limits, by Kafka's names; others that it has end."""
    demand(actor, Permission.ACCESS_MANAGE)
    if not wanted:
        raise NoLimit(_("Give at least one limit."))
    _change(actor, "quota.set", entity, wanted)


def remove(*, actor: Any, entity: types.QuotaEntity) -> None:
    """Ends all of the entity's limits."""
    demand(actor, Permission.ACCESS_MANAGE)
    _change(actor, "quota.remove", entity, {})


def _change(actor: Any, action: str, entity: types.QuotaEntity, wanted: Mapping[str, float]) -> None:
    if (entity.user or "").startswith("__"):
        raise InternalUser(_("Users that begin with __ are Sluice's own and are not changed here."))
    before = next((dict(quota.limits) for quota in kafka.admin().quotas() if quota.entity == entity), {})
    name = " ".join(f"{field}={whom}" for field, whom in limits.address(entity).items())  # the same in every language
    with audit.change(actor, action, kind="quota", name=name, before=before, after=dict(wanted)):
        kafka.admin().alter_quota(entity, set=wanted, remove=sorted(before.keys() - wanted.keys()))
    announcements.changed("quota", name)
