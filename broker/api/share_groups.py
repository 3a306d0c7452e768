"""Share groups' membership (KIP-932).

* ShareGroupHeartbeat 1: READ on the group, DESCRIBE on each topic named.
* ShareGroupDescribe 1: DESCRIBE on the group; a group with a topic the caller may not DESCRIBE is not shown.
"""

from __future__ import annotations

from typing import Any

from broker.api.groups_admin import authorized_operations
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.consumer_state import by_topic
from broker.groups.share import ShareBeat, ShareHeartbeat
from broker.groups.share_door import DescribedShare
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ShareGroupHeartbeatResponse = codec.struct("ShareGroupHeartbeatResponse")
HeartbeatAssignment = codec.struct("ShareGroupHeartbeatResponse.Assignment")
HeartbeatPartitions = codec.struct("ShareGroupHeartbeatResponse.TopicPartitions")
ShareGroupDescribeResponse = codec.struct("ShareGroupDescribeResponse")
DescribedGroup = codec.struct("ShareGroupDescribeResponse.DescribedGroup")
DescribedMember = codec.struct("ShareGroupDescribeResponse.Member")
DescribedAssignment = codec.struct("ShareGroupDescribeResponse.Assignment")
DescribedPartitions = codec.struct("ShareGroupDescribeResponse.TopicPartitions")

_ASSIGNOR = "simple"


@handles(76, min=1, max=1)
def share_group_heartbeat(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ShareGroupHeartbeat."""

    def shape(beat: ShareBeat) -> Any:
        return ShareGroupHeartbeatResponse(
            error_code=beat.error,
            error_message=beat.message,
            member_id=beat.member_id,
            member_epoch=beat.epoch,
            heartbeat_interval_ms=beat.interval_ms,
            assignment=None
            if beat.assignment is None
            else HeartbeatAssignment(
                topic_partitions=[
                    HeartbeatPartitions(topic_id=topic, partitions=indexes)
                    for topic, indexes in by_topic(beat.assignment).items()
                ]
            ),
        )

    def refused(error: ErrorCode) -> Any:
        return ShareGroupHeartbeatResponse(error_code=error)

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    names = request.subscribed_topic_names
    if names and not all(ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name) for name in names):
        return refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    call = ShareHeartbeat(
        group_id=request.group_id,
        member_id=request.member_id,
        member_epoch=request.member_epoch,
        rack_id=request.rack_id,
        topics=None if names is None else frozenset(names),
        client_id=header.client_id or "",
        client_host=f"/{ctx.address}",
    )
    return ctx.broker.groups.ask(lambda coordinator, now: coordinator.share_heartbeat(call, now), shape, refused)


@handles(77, min=1, max=1)
def share_group_describe(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ShareGroupDescribe."""
    asked = request.include_authorized_operations
    return ShareGroupDescribeResponse(groups=[_described(ctx, group_id, asked=asked) for group_id in request.group_ids])


def _described(ctx: Context, group_id: str, *, asked: bool) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group_id):
        return DescribedGroup(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, group_id=group_id)
    group: DescribedShare = ctx.broker.groups.coordinator.describe_share(group_id)
    if group.error is not ErrorCode.NONE:
        return DescribedGroup(error_code=group.error, error_message=group.message, group_id=group_id)
    names = {name for m in group.members for name in m.topics}
    if not all(ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name) for name in names):
        return DescribedGroup(
            error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            error_message="The group has topics that may not be described.",
            group_id=group_id,
        )
    view = ctx.broker.groups.topics
    members = []
    for m in group.members:
        named = ((view.topic_by_id(topic), indexes) for topic, indexes in by_topic(m.assigned).items())
        members.append(
            DescribedMember(
                member_id=m.id,
                rack_id=m.rack_id,
                member_epoch=m.epoch,
                client_id=m.client_id,
                client_host=m.client_host,
                subscribed_topic_names=sorted(m.topics),
                assignment=DescribedAssignment(
                    topic_partitions=[
                        DescribedPartitions(topic_id=topic.id, topic_name=topic.name, partitions=indexes)
                        for topic, indexes in named
                        if topic is not None
                    ]
                ),
            )
        )
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        group_epoch=group.epoch,
        assignment_epoch=group.epoch,
        assignor_name=_ASSIGNOR,
        members=members,
        authorized_operations=authorized_operations(ctx, group_id, asked=asked),
    )
