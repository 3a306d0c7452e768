"""Offsets of partitions.

ListOffsets 1-11: by timestamp at record level, and -1 latest (the last stable offset for read_committed), -2 earliest,
-3 the record with the highest timestamp (KIP-734), -4 earliest local (KIP-405: without tiered storage, the earliest),
-5 latest tiered (KIP-1005: without tiered storage, none), -6 earliest pending upload (none).
OffsetForLeaderEpoch 2-4 (KIP-320). DeleteRecords 0-2 (KIP-107).
"""

from __future__ import annotations

from typing import Any

from broker.api.failures import KNOWN, error_of
from broker.api.produce import WRITE_PROTECTED
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.log.partition import Partition
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ListOffsetsResponse = struct("ListOffsetsResponse")
ListedTopic = struct("ListOffsetsResponse.ListOffsetsTopicResponse")
ListedPartition = struct("ListOffsetsResponse.ListOffsetsPartitionResponse")
OffsetForLeaderEpochResponse = struct("OffsetForLeaderEpochResponse")
EpochTopic = struct("OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult")
EpochEnd = struct("OffsetForLeaderEpochResponse.EpochEndOffset")
DeleteRecordsResponse = struct("DeleteRecordsResponse")
DeletedTopic = struct("DeleteRecordsResponse.DeleteRecordsTopicResult")
DeletedPartition = struct("DeleteRecordsResponse.DeleteRecordsPartitionResult")

LATEST, EARLIEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING = -1, -2, -3, -4, -5, -6
NEVER = 1 << 15
LEAST_VERSION = {LATEST: 0, EARLIEST: 0, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING: 11}


@handles(2, min=1, max=11)
def list_offsets(ctx: Context, header: RequestHeader, request: Any) -> Any:
    committed = request.isolation_level == 1
    topics = []
    for topic in request.topics:
        allowed = ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.name)
        seen: set[int] = set()
        twice = {one.partition_index for one in topic.partitions if _again(seen, one.partition_index)}
        answers = []
        for wanted in topic.partitions:
            partition = ctx.broker.topics.partition(topic.name, wanted.partition_index)
            if not allowed:
                error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif wanted.partition_index in twice:
                error = ErrorCode.INVALID_REQUEST
            elif partition is None:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif wanted.timestamp < 0 and header.api_version < LEAST_VERSION.get(wanted.timestamp, NEVER):
                error = ErrorCode.UNSUPPORTED_VERSION
            else:
                error = epoch_error(partition, wanted.current_leader_epoch)
            if error:
                answers.append(ListedPartition(partition_index=wanted.partition_index, error_code=error))
                continue
            assert partition is not None
            answers.append(_listed(partition, wanted.partition_index, wanted.timestamp, committed))
        topics.append(ListedTopic(name=topic.name, partitions=answers))
    return ListOffsetsResponse(topics=topics)


def _again(seen: set[int], index: int) -> bool:
    if index in seen:
        return True
    seen.add(index)
    return False


def epoch_error(partition: Partition, current: int) -> ErrorCode:
    """Whether the client's idea of the leader epoch is this one's (KIP-320)."""
    if current < 0 or current == partition.leader_epoch:
        return ErrorCode.NONE
    return ErrorCode.FENCED_LEADER_EPOCH if current < partition.leader_epoch else ErrorCode.UNKNOWN_LEADER_EPOCH


def _listed(partition: Partition, index: int, timestamp: int, committed: bool) -> Any:
    try:
        offset, at, epoch = _offset(partition, timestamp, committed)
    except KNOWN as error:
        return ListedPartition(partition_index=index, error_code=error_of(error))
    return ListedPartition(partition_index=index, timestamp=at, offset=offset, leader_epoch=epoch)


def _offset(partition: Partition, timestamp: int, committed: bool) -> tuple[int, int, int]:
    """(offset, timestamp, leader epoch); -1s where there is none."""
    if timestamp == LATEST:
        end = partition.last_stable_offset if committed else partition.high_watermark
        return end, -1, partition.leader_epoch
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        start = partition.log_start_offset
        epoch = partition.epoch_of(start) if start < partition.high_watermark else partition.leader_epoch
        return start, -1, epoch
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING):
        return -1, -1, -1
    if timestamp == MAX_TIMESTAMP:
        hit = partition.offset_of_max_timestamp(committed=committed)
    else:
        hit = partition.offset_for_time(timestamp, committed=committed)
    return (-1, -1, -1) if hit is None else (hit.offset, hit.timestamp, hit.leader_epoch)


@handles(23, min=2, max=4)
def offset_for_leader_epoch(ctx: Context, header: RequestHeader, request: Any) -> Any:
    topics = []
    for topic in request.topics:
        allowed = ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.topic)
        answers = []
        for wanted in topic.partitions:
            partition = ctx.broker.topics.partition(topic.topic, wanted.partition)
            if not allowed:
                error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif partition is None:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                error = epoch_error(partition, wanted.current_leader_epoch)
            epoch, end = -1, -1
            if not error:
                assert partition is not None
                epoch, end = partition.end_offset_for_epoch(wanted.leader_epoch)
            answers.append(EpochEnd(error_code=error, partition=wanted.partition, leader_epoch=epoch, end_offset=end))
        topics.append(EpochTopic(topic=topic.topic, partitions=answers))
    return OffsetForLeaderEpochResponse(topics=topics)


@handles(21, min=0, max=2)
async def delete_records(ctx: Context, header: RequestHeader, request: Any) -> Any:
    topics = []
    moved: list[tuple[Any, Partition]] = []
    position = 0
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            answer = DeletedPartition(partition_index=wanted.partition_index, low_watermark=-1)
            partition = ctx.broker.topics.partition(topic.name, wanted.partition_index)
            answer.error_code = _not_deletable(ctx, topic.name, partition, wanted.offset)
            if not answer.error_code:
                assert partition is not None
                try:
                    position = max(position, partition.delete_records_before(wanted.offset))
                    moved.append((answer, partition))
                except KNOWN as error:
                    answer.error_code = error_of(error)
            answers.append(answer)
        topics.append(DeletedTopic(name=topic.name, partitions=answers))
    try:
        if position:
            await ctx.broker.commit.durable(position)
    except KNOWN as error:
        for answer, _ in moved:
            answer.error_code = error_of(error)
    else:
        for answer, partition in moved:
            answer.low_watermark = partition.log_start_offset
    return DeleteRecordsResponse(topics=topics)


def _not_deletable(ctx: Context, topic: str, partition: Partition | None, offset: int) -> ErrorCode:
    if not ctx.allows(Operation.DELETE, ResourceType.TOPIC, topic):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if topic in WRITE_PROTECTED:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    if not partition.config.delete:
        return ErrorCode.POLICY_VIOLATION
    return ErrorCode.NONE if offset >= -1 else ErrorCode.OFFSET_OUT_OF_RANGE
