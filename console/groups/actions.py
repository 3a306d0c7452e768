"""Changes to consumer groups: permission, broker call, record, announcement."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from console import announcements, audit, kafka
from console.accounts.permissions import Permission, demand
from console.groups.queries import Move


class InternalGroup(Exception):
    """The group is Sluice's own."""


def reset(*, actor: Any, name: str, moves: Sequence[Move]) -> None:
    """Commits the planned offsets. The group must have no members: the broker raises GroupNotEmpty otherwise."""
    demand(actor, Permission.GROUP_RESET)
    _refuse_internal(name)
    before = {f"{move.topic}/{move.partition}": move.before for move in moves}
    after = {f"{move.topic}/{move.partition}": move.after for move in moves}
    with audit.change(actor, "group.reset", kind="group", name=name, before=before, after=after):
        places = {kafka.TopicPartition(move.topic, move.partition): move.after for move in moves}
        kafka.admin().alter_group_offsets(name, places)
    announcements.changed("group", name)


def delete(*, actor: Any, name: str) -> None:
    """Deletes the group with everything it has committed."""
    demand(actor, Permission.GROUP_DELETE)
    _refuse_internal(name)
    committed = kafka.admin().group_offsets([name]).get(name, {})
    before = {f"{place.topic}/{place.partition}": offset.offset for place, offset in sorted(committed.items())}
    with audit.change(actor, "group.delete", kind="group", name=name, before=before):
        error = kafka.admin().delete_groups([name]).get(name)
        if error is not None:
            raise error
    announcements.group_deleted(name)


def _refuse_internal(name: str) -> None:
    if name.startswith("__"):
        raise InternalGroup(_("Groups that begin with __ are Sluice's own and are not changed here."))
