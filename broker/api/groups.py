"""The classic group protocol.

* JoinGroup 0 to 9: MEMBER_ID_REQUIRED from 4 (KIP-394), static members from 5 (KIP-345), the reason of 8 is not
  kept, `skip_assignment` from 9 (KIP-814). Before 1 the session time-out is the rebalance time-out.
* SyncGroup 0 to 5: protocol type and name are checked from 5 (KIP-559).
* Heartbeat 0 to 4.
* LeaveGroup 0 to 5: batched from 3 (KIP-345).

Each needs READ on the group. Answers that rest on written state leave once it is durable.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.classic_calls import Join, Joined, Leaver, Sync, Synced
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

JoinGroupResponse = codec.struct("JoinGroupResponse")
JoinGroupResponseMember = codec.struct("JoinGroupResponse.JoinGroupResponseMember")
SyncGroupResponse = codec.struct("SyncGroupResponse")
HeartbeatResponse = codec.struct("HeartbeatResponse")
LeaveGroupResponse = codec.struct("LeaveGroupResponse")
MemberResponse = codec.struct("LeaveGroupResponse.MemberResponse")


def _may_read(ctx: Context, group_id: str) -> bool:
    return ctx.allows(Operation.READ, ResourceType.GROUP, group_id)


@handles(11, min=0, max=9)
def join_group(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """JoinGroup: answered when the generation is complete."""
    version = header.api_version

    def shape(joined: Joined) -> Any:
        return JoinGroupResponse(
            error_code=joined.error,
            generation_id=joined.generation_id,
            protocol_type=joined.protocol_type,
            protocol_name=joined.protocol_name if version >= 7 else joined.protocol_name or "",
            leader=joined.leader,
            skip_assignment=joined.skip_assignment,
            member_id=joined.member_id,
            members=[
                JoinGroupResponseMember(member_id=m.member_id, group_instance_id=m.instance_id, metadata=m.metadata)
                for m in joined.members
            ],
        )

    def refused(error: ErrorCode) -> Any:
        return shape(Joined(error=error, member_id=request.member_id))

    if not _may_read(ctx, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    call = Join(
        group_id=request.group_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        client_id=header.client_id or "",
        client_host=f"/{ctx.address}",
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=request.rebalance_timeout_ms if version >= 1 else request.session_timeout_ms,
        protocol_type=request.protocol_type,
        protocols=tuple((p.name, bytes(p.metadata)) for p in request.protocols),
        require_member_id=version >= 4,
        skip_assignment=version >= 9,
    )
    return ctx.broker.groups.ask(lambda coordinator, now: coordinator.join(call, now), shape, refused)


@handles(14, min=0, max=5)
def sync_group(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """SyncGroup: answered when the leader's assignment is durable."""

    def shape(synced: Synced) -> Any:
        return SyncGroupResponse(
            error_code=synced.error,
            protocol_type=synced.protocol_type,
            protocol_name=synced.protocol_name,
            assignment=synced.assignment,
        )

    def refused(error: ErrorCode) -> Any:
        return SyncGroupResponse(error_code=error)

    if not _may_read(ctx, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if header.api_version >= 5 and (request.protocol_type is None or request.protocol_name is None):
        return refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    call = Sync(
        group_id=request.group_id,
        generation_id=request.generation_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        protocol_type=request.protocol_type,
        protocol_name=request.protocol_name,
        assignments=tuple((a.member_id, bytes(a.assignment)) for a in request.assignments),
    )
    return ctx.broker.groups.ask(lambda coordinator, now: coordinator.sync(call, now), shape, refused)


@handles(12, min=0, max=4)
def heartbeat(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """Heartbeat: writes nothing, waits for nothing."""
    if not _may_read(ctx, request.group_id):
        return HeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    error = ctx.broker.groups.step(
        lambda coordinator, now: coordinator.heartbeat(
            request.group_id, request.member_id, request.group_instance_id, request.generation_id, now
        )
    )
    return HeartbeatResponse(error_code=error)


@handles(13, min=0, max=5)
def leave_group(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """LeaveGroup, one member before 3, a batch since."""
    version = header.api_version

    def refused(error: ErrorCode) -> Any:
        return LeaveGroupResponse(error_code=error)

    def shape(answer: tuple[ErrorCode, tuple[tuple[Leaver, ErrorCode], ...]]) -> Any:
        error, results = answer
        if version < 3 and results:
            return LeaveGroupResponse(error_code=results[0][1])
        return LeaveGroupResponse(
            error_code=error,
            members=[
                MemberResponse(member_id=leaver.member_id, group_instance_id=leaver.instance_id, error_code=code)
                for leaver, code in results
            ],
        )

    if not _may_read(ctx, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if version >= 3:
        leavers = [Leaver(member_id=m.member_id, instance_id=m.group_instance_id) for m in request.members]
    else:
        leavers = [Leaver(member_id=request.member_id, instance_id=None)]
    return ctx.broker.groups.ask(
        lambda coordinator, now: coordinator.leave(request.group_id, leavers, now), shape, refused
    )
