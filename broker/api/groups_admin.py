"""Groups as operators see them.

* DescribeGroups 0 to 6: classic groups; authorised operations from 3; an unknown group is Dead, from 6 with
  GROUP_ID_NOT_FOUND (KIP-1043). Needs DESCRIBE on the group.
* ListGroups 0 to 5: filters by state from 4 (KIP-518), by type from 5 (KIP-848). With DESCRIBE on the cluster all
  groups, else those whose DESCRIBE the caller has.
* DeleteGroups 0 to 3: needs DELETE on the group; a group with members is refused with NON_EMPTY_GROUP.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import OPERATIONS_OF, Operation, ResourceType
from broker.groups.coordinator import GroupCoordinator
from broker.groups.directory import Described
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeGroupsResponse = codec.struct("DescribeGroupsResponse")
DescribedGroup = codec.struct("DescribeGroupsResponse.DescribedGroup")
DescribedGroupMember = codec.struct("DescribeGroupsResponse.DescribedGroupMember")
ListGroupsResponse = codec.struct("ListGroupsResponse")
ListedGroup = codec.struct("ListGroupsResponse.ListedGroup")
DeleteGroupsResponse = codec.struct("DeleteGroupsResponse")
DeletableGroupResult = codec.struct("DeleteGroupsResponse.DeletableGroupResult")

NOT_ASKED = -(2**31)


def authorized_operations(ctx: Context, group_id: str, *, asked: bool) -> int:
    """The bit set of what the caller may do with the group (KIP-430)."""
    if not asked:
        return NOT_ASKED
    operations = OPERATIONS_OF[ResourceType.GROUP]
    return sum(1 << op for op in operations if ctx.allows(op, ResourceType.GROUP, group_id))


@handles(15, min=0, max=6)
def describe_groups(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DescribeGroups."""
    knows_not_found = header.api_version >= 6

    def one(group_id: str) -> Any:
        if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group_id):
            return DescribedGroup(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, group_id=group_id)
        group: Described = ctx.broker.groups.coordinator.describe_group(group_id)
        error = group.error
        if error is ErrorCode.GROUP_ID_NOT_FOUND and not knows_not_found:
            error = ErrorCode.NONE
        return DescribedGroup(
            error_code=error,
            error_message=group.error_message,
            group_id=group_id,
            group_state=group.state,
            protocol_type=group.protocol_type,
            protocol_data=group.protocol,
            members=[
                DescribedGroupMember(
                    member_id=m.member_id,
                    group_instance_id=m.instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    member_metadata=m.metadata,
                    member_assignment=m.assignment,
                )
                for m in group.members
            ],
            authorized_operations=authorized_operations(
                ctx, group_id, asked=request.include_authorized_operations and not error
            ),
        )

    return DescribeGroupsResponse(groups=[one(group_id) for group_id in request.groups])


@handles(16, min=0, max=5)
def list_groups(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ListGroups."""
    all_of_them = ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER)
    listings = ctx.broker.groups.coordinator.list_groups(request.states_filter, request.types_filter)
    return ListGroupsResponse(
        groups=[
            ListedGroup(group_id=g.group_id, protocol_type=g.protocol_type, group_state=g.state, group_type=g.type)
            for g in listings
            if all_of_them or ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, g.group_id)
        ]
    )


@handles(42, min=0, max=3)
def delete_groups(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DeleteGroups."""
    names = list(dict.fromkeys(request.groups_names))

    def shape(errors: list[ErrorCode]) -> Any:
        return DeleteGroupsResponse(
            results=[DeletableGroupResult(group_id=n, error_code=e) for n, e in zip(names, errors, strict=True)]
        )

    def refused(error: ErrorCode) -> Any:
        return shape([error] * len(names))

    def delete(coordinator: GroupCoordinator, now: int) -> list[ErrorCode]:
        errors = []
        for name in names:
            shared = coordinator.share_group(name) is not None
            error = coordinator.delete_group(name, now) if name in allowed else ErrorCode.GROUP_AUTHORIZATION_FAILED
            if shared and error is ErrorCode.NONE:
                ctx.broker.shares.step(lambda shares, at, n=name: shares.forget(shares.places(n), at))
            errors.append(error)
        return errors

    allowed = {n for n in names if ctx.allows(Operation.DELETE, ResourceType.GROUP, n)}
    return ctx.broker.groups.ask(delete, shape, refused)
