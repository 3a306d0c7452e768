"""Where share groups stand (KIP-932).

* DescribeShareGroupOffsets 0 to 1: DESCRIBE on the group and on each topic; lag from 1 (KIP-1226): records beyond the
  start offset that are not done. A partition the group has not begun to read has start offset -1, and so has every
  partition of a group that is not there.
* AlterShareGroupOffsets 0: READ on the group and on each topic; the group must be empty; one not there is made.
* DeleteShareGroupOffsets 0: DELETE on the group, READ on each topic; the group must be empty.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.ports import StateUnwritable
from broker.groups.share_coordinator import Place
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeShareGroupOffsetsResponse = codec.struct("DescribeShareGroupOffsetsResponse")
DescribedGroup = codec.struct("DescribeShareGroupOffsetsResponse.DescribeShareGroupOffsetsResponseGroup")
DescribedTopic = codec.struct("DescribeShareGroupOffsetsResponse.DescribeShareGroupOffsetsResponseTopic")
DescribedPartition = codec.struct("DescribeShareGroupOffsetsResponse.DescribeShareGroupOffsetsResponsePartition")
AlterShareGroupOffsetsResponse = codec.struct("AlterShareGroupOffsetsResponse")
AlteredTopic = codec.struct("AlterShareGroupOffsetsResponse.AlterShareGroupOffsetsResponseTopic")
AlteredPartition = codec.struct("AlterShareGroupOffsetsResponse.AlterShareGroupOffsetsResponsePartition")
DeleteShareGroupOffsetsResponse = codec.struct("DeleteShareGroupOffsetsResponse")
DeletedTopic = codec.struct("DeleteShareGroupOffsetsResponse.DeleteShareGroupOffsetsResponseTopic")


@handles(90, min=0, max=1)
def describe_share_group_offsets(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DescribeShareGroupOffsets."""

    def refused(error: ErrorCode) -> Any:
        return DescribeShareGroupOffsetsResponse(
            groups=[DescribedGroup(group_id=g.group_id, error_code=error) for g in request.groups]
        )

    response = DescribeShareGroupOffsetsResponse(groups=[_described(ctx, group) for group in request.groups])
    return ctx.broker.shares.durable(response, refused)


def _described(ctx: Context, group: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group.group_id):
        return DescribedGroup(group_id=group.group_id, error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if ctx.broker.groups.coordinator.is_other_than_share(group.group_id):
        return DescribedGroup(
            group_id=group.group_id,
            error_code=ErrorCode.GROUP_ID_NOT_FOUND,
            error_message=f"Group {group.group_id} is not a share group.",
        )
    if group.topics is None:
        asked: dict[str, list[int]] = {}
        for place in ctx.broker.shares.coordinator.places(group.group_id):
            topic = ctx.broker.topics.by_id(place.topic)
            if topic is not None and ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.name):
                asked.setdefault(topic.name, []).append(place.index)
    else:
        asked = {t.topic_name: list(t.partitions) for t in group.topics}
    return DescribedGroup(
        group_id=group.group_id,
        topics=[_described_topic(ctx, group.group_id, name, indexes) for name, indexes in asked.items()],
    )


def _described_topic(ctx: Context, group_id: str, name: str, indexes: list[int]) -> Any:
    topic = ctx.broker.topics.get(name)
    error = ErrorCode.NONE
    if not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name):
        error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    elif topic is None:
        error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def one(index: int) -> Any:
        if topic is None or error is not ErrorCode.NONE:
            return DescribedPartition(partition_index=index, start_offset=-1, leader_epoch=-1, error_code=error)
        log = ctx.broker.topics.partition(name, index)
        if log is None:
            return DescribedPartition(
                partition_index=index,
                start_offset=-1,
                leader_epoch=-1,
                error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            )
        known = ctx.broker.shares.coordinator.partition(Place(group_id, topic.topic_id, index))
        if known is None:
            return DescribedPartition(partition_index=index, start_offset=-1, leader_epoch=log.leader_epoch)
        start = max(known.start, log.log_start_offset)
        return DescribedPartition(
            partition_index=index,
            start_offset=start,
            leader_epoch=log.leader_epoch,
            lag=max(log.high_watermark - start - known.done_in_flight(), 0),
        )

    return DescribedTopic(
        topic_name=name,
        topic_id=bytes(16) if topic is None or error is not ErrorCode.NONE else topic.topic_id,
        partitions=[one(index) for index in indexes],
    )


def _group_refusal(ctx: Context, group_id: str, operation: Operation) -> ErrorCode | None:
    if not ctx.allows(operation, ResourceType.GROUP, group_id):
        return ErrorCode.GROUP_AUTHORIZATION_FAILED
    group = ctx.broker.groups.coordinator.share_group(group_id)
    if group is None:
        return ErrorCode.GROUP_ID_NOT_FOUND
    return None if group.is_empty else ErrorCode.NON_EMPTY_GROUP


def _topic_refusal(ctx: Context, name: str) -> ErrorCode | None:
    if not ctx.allows(Operation.READ, ResourceType.TOPIC, name):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if ctx.broker.topics.get(name) is None else None


@handles(91, min=0, max=0)
def alter_share_group_offsets(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """AlterShareGroupOffsets."""

    def refused(error: ErrorCode) -> Any:
        return AlterShareGroupOffsetsResponse(error_code=error)

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id:
        return refused(ErrorCode.INVALID_GROUP_ID)
    try:
        wrong = ctx.broker.groups.step(lambda groups, now: groups.ensure_share(request.group_id, now))
    except StateUnwritable:
        return refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    wrong = wrong or _group_refusal(ctx, request.group_id, Operation.READ)
    if wrong:
        return refused(wrong)

    def one(name: str, topic_id: bytes, p: Any, coordinator: Any, now: int) -> Any:
        log = ctx.broker.topics.partition(name, p.partition_index)
        if log is None:
            return AlteredPartition(partition_index=p.partition_index, error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        start = min(max(p.start_offset, log.log_start_offset), log.high_watermark)
        coordinator.begin(Place(request.group_id, topic_id, p.partition_index), start, now)
        return AlteredPartition(partition_index=p.partition_index)

    def alter(coordinator: Any, now: int) -> Any:
        topics = []
        for t in request.topics:
            refusal = _topic_refusal(ctx, t.topic_name)
            topic = ctx.broker.topics.get(t.topic_name)
            if refusal is not None or topic is None:
                partitions = [
                    AlteredPartition(partition_index=p.partition_index, error_code=refusal) for p in t.partitions
                ]
                topics.append(AlteredTopic(topic_name=t.topic_name, partitions=partitions))
            else:
                partitions = [one(t.topic_name, topic.topic_id, p, coordinator, now) for p in t.partitions]
                topics.append(AlteredTopic(topic_name=t.topic_name, topic_id=topic.topic_id, partitions=partitions))
        return AlterShareGroupOffsetsResponse(responses=topics)

    return ctx.broker.shares.ask(alter, lambda response: response, refused)


@handles(92, min=0, max=0)
def delete_share_group_offsets(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DeleteShareGroupOffsets."""

    def refused(error: ErrorCode) -> Any:
        return DeleteShareGroupOffsetsResponse(error_code=error)

    wrong = _group_refusal(ctx, request.group_id, Operation.DELETE)
    if wrong is not None:
        return refused(wrong)

    def delete(coordinator: Any, now: int) -> Any:
        topics = []
        for t in request.topics:
            refusal = _topic_refusal(ctx, t.topic_name)
            topic = ctx.broker.topics.get(t.topic_name)
            if refusal is not None or topic is None:
                topics.append(DeletedTopic(topic_name=t.topic_name, error_code=refusal))
                continue
            places = [p for p in coordinator.places(request.group_id) if p.topic == topic.topic_id]
            coordinator.forget(places, now)
            topics.append(DeletedTopic(topic_name=t.topic_name, topic_id=topic.topic_id))
        return DeleteShareGroupOffsetsResponse(responses=topics)

    return ctx.broker.shares.ask(delete, lambda response: response, refused)
