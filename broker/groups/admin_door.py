"""The calls of operators: list, describe, delete."""

from __future__ import annotations

from collections.abc import Iterable

from broker.groups.classic import ClassicGroup
from broker.groups.classic_state import State
from broker.groups.directory import Described, DescribedMember, Listing
from broker.groups.table import GroupTable
from broker.wire.errors import ErrorCode


class AdminDoor(GroupTable):
    """ListGroups, DescribeGroups, DeleteGroups."""

    def list_groups(self, states: Iterable[str] = (), types: Iterable[str] = ()) -> list[Listing]:
        """ListGroups; filters compare without case, empty ones let everything pass."""
        wanted_states = {state.lower() for state in states}
        wanted_types = {kind.lower() for kind in types}
        return [
            Listing(
                group_id=group.id,
                protocol_type=group.protocol_type or "",
                state=group.state_name,
                type=group.type_name,
            )
            for group in self._groups.values()
            if (not wanted_states or group.state_name.lower() in wanted_states)
            and (not wanted_types or group.type_name.lower() in wanted_types)
        ]

    def describe_group(self, group_id: str) -> Described:
        """DescribeGroups of one classic group."""
        group = self._groups.get(group_id)
        if not isinstance(group, ClassicGroup):
            return Described(
                group_id=group_id,
                error=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id} not found."
                if group is None
                else f"Group {group_id} is not a classic group.",
            )
        shown = group.state in (State.STABLE, State.COMPLETING)
        return Described(
            group_id=group_id,
            state=group.state_name,
            protocol_type=group.protocol_type or "",
            protocol=(group.protocol or "") if shown else "",
            members=tuple(
                DescribedMember(
                    member_id=m.id,
                    instance_id=m.instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    metadata=m.metadata(group.protocol) if shown else b"",
                    assignment=m.assignment if shown else b"",
                )
                for m in group.members.values()
            ),
        )

    def delete_group(self, group_id: str, now: int) -> ErrorCode:
        """DeleteGroups of one group."""
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if not group.is_empty:
            return ErrorCode.NON_EMPTY_GROUP
        self._log.append([*self._tombstones(group), *self.offsets.tombstones(group_id)], now)
        self.offsets.drop(group_id)
        self._drop(group)
        return ErrorCode.NONE
