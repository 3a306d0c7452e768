"""The consumer group protocol (KIP-848).

* ConsumerGroupHeartbeat 0 to 1: assignors `uniform` and `range`; from 1 the client makes its own member id (KIP-1082)
  and may subscribe by an RE2 pattern, which finds topics the caller may DESCRIBE. READ on the group; DESCRIBE on each
  topic named. A classic group of the consumer protocol becomes a consumer group when its first new member comes.
* ConsumerGroupDescribe 0 to 1: DESCRIBE on the group; a group with a topic the caller may not DESCRIBE is not shown.

A heartbeat is answered once everything it tells is durable.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Any

from broker.api.groups_admin import authorized_operations
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.assignors import Partition
from broker.groups.consumer_door import DescribedConsumers
from broker.groups.consumer_state import JOINING, ConsumerBeat, ConsumerHeartbeat, by_topic
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ConsumerGroupHeartbeatResponse = codec.struct("ConsumerGroupHeartbeatResponse")
HeartbeatAssignment = codec.struct("ConsumerGroupHeartbeatResponse.Assignment")
HeartbeatPartitions = codec.struct("ConsumerGroupHeartbeatResponse.TopicPartitions")
ConsumerGroupDescribeResponse = codec.struct("ConsumerGroupDescribeResponse")
DescribedGroup = codec.struct("ConsumerGroupDescribeResponse.DescribedGroup")
DescribedMember = codec.struct("ConsumerGroupDescribeResponse.Member")
DescribedAssignment = codec.struct("ConsumerGroupDescribeResponse.Assignment")
DescribedPartitions = codec.struct("ConsumerGroupDescribeResponse.TopicPartitions")

_CLASSIC_MEMBER = 0
_CONSUMER_MEMBER = 1


@handles(68, min=0, max=1)
def consumer_group_heartbeat(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ConsumerGroupHeartbeat."""

    def shape(beat: ConsumerBeat) -> Any:
        return ConsumerGroupHeartbeatResponse(
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
        return ConsumerGroupHeartbeatResponse(error_code=error)

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    names = request.subscribed_topic_names
    if names and not all(_may_describe(ctx, name) for name in names):
        return refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    member_id = request.member_id
    if not member_id and request.member_epoch == JOINING and header.api_version == 0:
        member_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    owned = request.topic_partitions
    call = ConsumerHeartbeat(
        group_id=request.group_id,
        member_id=member_id,
        member_epoch=request.member_epoch,
        instance_id=request.instance_id,
        rack_id=request.rack_id,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topics=None if names is None else frozenset(names),
        regex=request.subscribed_topic_regex,
        assignor=request.server_assignor,
        owned=None if owned is None else frozenset((t.topic_id, i) for t in owned for i in t.partitions),
        client_id=header.client_id or "",
        client_host=f"/{ctx.address}",
        may_see=lambda name: _may_describe(ctx, name),
    )
    return ctx.broker.groups.ask(lambda coordinator, now: coordinator.consumer_heartbeat(call, now), shape, refused)


def _may_describe(ctx: Context, topic: str) -> bool:
    return ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic)


@handles(69, min=0, max=1)
def consumer_group_describe(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ConsumerGroupDescribe."""
    return ConsumerGroupDescribeResponse(
        groups=[
            _described(ctx, group_id, asked=request.include_authorized_operations) for group_id in request.group_ids
        ]
    )


def _described(ctx: Context, group_id: str, *, asked: bool) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group_id):
        return DescribedGroup(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED, group_id=group_id)
    group: DescribedConsumers = ctx.broker.groups.coordinator.describe_consumers(group_id)
    if group.epochs is None:
        return DescribedGroup(error_code=group.error, error_message=group.message, group_id=group_id)
    names = {name for m in group.members for name in m.subscribed}
    if not all(_may_describe(ctx, name) for name in names):
        return DescribedGroup(
            error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            error_message="The group has topics that may not be described.",
            group_id=group_id,
        )
    target = group.epochs.target
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        group_epoch=group.epochs.epoch,
        assignment_epoch=group.epochs.epoch,
        assignor_name=group.epochs.assignor,
        members=[
            DescribedMember(
                member_id=m.id,
                instance_id=m.instance_id,
                rack_id=m.rack_id,
                member_epoch=m.epoch,
                client_id=m.client_id,
                client_host=m.client_host,
                subscribed_topic_names=sorted(m.topics),
                subscribed_topic_regex=m.regex,
                assignment=_assignment(ctx, m.assigned),
                target_assignment=_assignment(ctx, target.get(m.id, ())),
                member_type=_CONSUMER_MEMBER if m.classic is None else _CLASSIC_MEMBER,
            )
            for m in group.members
        ],
        authorized_operations=authorized_operations(ctx, group_id, asked=asked),
    )


def _assignment(ctx: Context, partitions: Iterable[Partition]) -> Any:
    named = ((ctx.broker.groups.topics.topic_by_id(topic), indexes) for topic, indexes in by_topic(partitions).items())
    return DescribedAssignment(
        topic_partitions=[
            DescribedPartitions(topic_id=topic.id, topic_name=topic.name, partitions=indexes)
            for topic, indexes in named
            if topic is not None
        ]
    )
