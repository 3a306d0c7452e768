"""Topics: CreateTopics 2-7 (KIP-464 defaults, KIP-525 configs in the answer), DeleteTopics 1-6 (by id from 6, KIP-516),
CreatePartitions 0-3 (KIP-195). `validate_only` checks everything and changes nothing. One node: a replication factor
other than 1 (or -1) is INVALID_REPLICATION_FACTOR. Partitions created and deleted count against the client's
controller_mutation_rate (KIP-599): beyond it, clients that know the code (CreateTopics 6, DeleteTopics 5,
CreatePartitions 3) are refused with THROTTLING_QUOTA_EXCEEDED, older ones are served and muted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from broker.api.configs import effective
from broker.api.failures import KNOWN, error_of
from broker.api.produce import WRITE_PROTECTED
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.cluster.config_names import TOPIC
from broker.cluster.topic_names import require_valid_name
from broker.cluster.topics import MAX_PARTITIONS
from broker.server.quotas import Mutations
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

CreateTopicsResponse = struct("CreateTopicsResponse")
CreatedTopic = struct("CreateTopicsResponse.CreatableTopicResult")
CreatedConfig = struct("CreateTopicsResponse.CreatableTopicConfigs")
DeleteTopicsResponse = struct("DeleteTopicsResponse")
DeletedTopic = struct("DeleteTopicsResponse.DeletableTopicResult")
CreatePartitionsResponse = struct("CreatePartitionsResponse")
GrownTopic = struct("CreatePartitionsResponse.CreatePartitionsTopicResult")

NO_ID = bytes(16)


class Refused(Exception):
    """A topic can't be created, grown or deleted; carries the code and the words for the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@handles(19, min=2, max=7)
async def create_topics(ctx: Context, header: RequestHeader, request: Any) -> Any:
    named = Counter(topic.name for topic in request.topics)
    spending = _mutations(ctx, header, strict_from=6)
    answers = []
    told: set[str] = set()
    for wanted in request.topics:
        if named[wanted.name] > 1:
            if wanted.name not in told:
                told.add(wanted.name)
                answers.append(_not_created(wanted.name, ErrorCode.INVALID_REQUEST, "Duplicate topic name."))
            continue
        try:
            answers.append(await _create(ctx, wanted, spending, validate_only=request.validate_only))
        except Refused as refusal:
            answers.append(_not_created(wanted.name, refusal.code, str(refusal)))
        except KNOWN as error:
            answers.append(_not_created(wanted.name, error_of(error), str(error)))
    return CreateTopicsResponse(throttle_time_ms=_throttled(ctx, spending), topics=answers)


def _mutations(ctx: Context, header: RequestHeader, *, strict_from: int) -> Mutations:
    """What the request may still create and delete."""
    return ctx.broker.quotas.mutations(
        ctx.principal,
        header.client_id,
        strict=header.api_version >= strict_from,
        now=ctx.broker.clock.monotonic(),
    )


def _throttled(ctx: Context, spending: Mutations) -> int:
    """How long the client has to wait; its connection is muted for so long (KIP-219)."""
    throttle = spending.throttle(ctx.broker.clock.monotonic())
    if throttle:
        ctx.broker.meter.throttled += 1
        ctx.connection.throttle(throttle)
    return throttle


def _not_created(name: str, code: ErrorCode, message: str) -> Any:
    return CreatedTopic(name=name, error_code=code, error_message=message)


async def _create(ctx: Context, wanted: Any, spending: Mutations, *, validate_only: bool) -> Any:
    name = wanted.name
    may = ctx.allows(Operation.CREATE, ResourceType.CLUSTER) or ctx.allows(Operation.CREATE, ResourceType.TOPIC, name)
    if not may or (name.startswith("__") and not ctx.super_user):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
    require_valid_name(name)
    if ctx.broker.topics.get(name) is not None:
        raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    alike = ctx.broker.topics.colliding(name)
    if alike is not None:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {alike}")
    partitions = _partitions_of(ctx, wanted)
    configs = _configs_of(wanted)
    spending.spend(partitions, ctx.broker.clock.monotonic())
    may_see = ctx.allows(Operation.DESCRIBE_CONFIGS, ResourceType.TOPIC, name)
    topic_id = NO_ID
    if not validate_only:
        topic_id = (await ctx.broker.topics.create(name, partitions, configs)).topic_id
    answer = CreatedTopic(name=name, topic_id=topic_id, error_message=None)
    if may_see:
        answer.num_partitions = partitions
        answer.replication_factor = 1
        answer.configs = _shown(ctx, configs)
    else:
        answer.topic_config_error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        answer.configs = None
    return answer


def _partitions_of(ctx: Context, wanted: Any) -> int:
    if wanted.assignments:
        if wanted.num_partitions != -1 or wanted.replication_factor != -1:
            raise Refused(
                ErrorCode.INVALID_REQUEST,
                "A manual partition assignment was specified, but number of partitions or replication factor too.",
            )
        _require_assignments(ctx, [(one.partition_index, one.broker_ids) for one in wanted.assignments])
        count = len(wanted.assignments)
    else:
        if wanted.replication_factor not in (-1, 1):
            least = wanted.replication_factor == 0 or wanted.replication_factor < -1
            raise Refused(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                "Replication factor must be larger than 0, or -1 to use the default value."
                if least
                else f"Unable to replicate the partition {wanted.replication_factor} time(s): "
                "The target replication factor of "
                f"{wanted.replication_factor} cannot be reached because only 1 broker(s) are registered.",
            )
        count = ctx.broker.config.default_partitions if wanted.num_partitions == -1 else wanted.num_partitions
    if count < 1:
        raise Refused(ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
    if count > MAX_PARTITIONS:
        raise Refused(ErrorCode.INVALID_PARTITIONS, f"Number of partitions is limited to {MAX_PARTITIONS}.")
    return count


def _require_assignments(ctx: Context, assignments: list[tuple[int, list[int]]]) -> None:
    if sorted(index for index, _ in assignments) != list(range(len(assignments))):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence"
        )
    for index, brokers in assignments:
        if list(brokers) != [ctx.broker.node_id]:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"The manual partition assignment {index} names other brokers than {ctx.broker.node_id}, the only one.",
            )


def _configs_of(wanted: Any) -> dict[str, str]:
    configs: dict[str, str | None] = {config.name: config.value for config in wanted.configs}
    TOPIC.validate(configs)
    return {name: value for name, value in configs.items() if value is not None}


def _shown(ctx: Context, configs: Mapping[str, str]) -> list[Any]:
    return [
        CreatedConfig(name=name, value=value, config_source=source)
        for name, value, source in effective(ctx.broker, configs)
    ]


@handles(20, min=1, max=6)
async def delete_topics(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if header.api_version >= 6:
        wanted = [(one.name, one.topic_id) for one in request.topics]
    else:
        wanted = [(name, NO_ID) for name in request.topic_names]
    named = Counter(wanted)
    spending = _mutations(ctx, header, strict_from=5)
    answers = []
    for name, topic_id in dict.fromkeys(wanted):
        try:
            if named[name, topic_id] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name or id.")
            answers.append(await _delete(ctx, spending, name, topic_id))
        except Refused as refusal:
            answers.append(
                DeletedTopic(name=name, topic_id=topic_id, error_code=refusal.code, error_message=str(refusal))
            )
        except KNOWN as error:
            answers.append(
                DeletedTopic(name=name, topic_id=topic_id, error_code=error_of(error), error_message=str(error))
            )
    return DeleteTopicsResponse(throttle_time_ms=_throttled(ctx, spending), responses=answers)


async def _delete(ctx: Context, spending: Mutations, name: str | None, topic_id: bytes) -> Any:
    if name is not None and topic_id != NO_ID:
        raise Refused(ErrorCode.INVALID_REQUEST, "You may not specify both topic name and topic id.")
    if name is None:
        if topic_id == NO_ID:
            raise Refused(ErrorCode.INVALID_REQUEST, "Neither topic name nor id were specified.")
        topic = ctx.broker.topics.by_id(topic_id)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic ID.")
        if not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.name):
            raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
    else:
        if not ctx.allows(Operation.DELETE, ResourceType.TOPIC, name):
            raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
        topic = ctx.broker.topics.get(name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    if not ctx.allows(Operation.DELETE, ResourceType.TOPIC, topic.name):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
    if topic.name in WRITE_PROTECTED:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, "The broker keeps its own state in this topic.")
    spending.spend(topic.partitions, ctx.broker.clock.monotonic())
    await ctx.broker.topics.delete(topic)
    return DeletedTopic(name=topic.name, topic_id=topic.topic_id)


@handles(37, min=0, max=3)
async def create_partitions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    named = Counter(topic.name for topic in request.topics)
    spending = _mutations(ctx, header, strict_from=3)
    answers = []
    for name in dict.fromkeys(topic.name for topic in request.topics):
        wanted = next(topic for topic in request.topics if topic.name == name)
        try:
            if named[name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            await _grow(ctx, wanted, spending, validate_only=request.validate_only)
            answers.append(GrownTopic(name=name))
        except Refused as refusal:
            answers.append(GrownTopic(name=name, error_code=refusal.code, error_message=str(refusal)))
        except KNOWN as error:
            answers.append(GrownTopic(name=name, error_code=error_of(error), error_message=str(error)))
    return CreatePartitionsResponse(throttle_time_ms=_throttled(ctx, spending), results=answers)


async def _grow(ctx: Context, wanted: Any, spending: Mutations, *, validate_only: bool) -> None:
    if not ctx.allows(Operation.ALTER, ResourceType.TOPIC, wanted.name):
        raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
    topic = ctx.broker.topics.get(wanted.name)
    if topic is None:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    if topic.name in WRITE_PROTECTED:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, "The broker keeps its own state in this topic.")
    if wanted.count == topic.partitions:
        raise Refused(ErrorCode.INVALID_PARTITIONS, f"Topic already has {topic.partitions} partition(s).")
    if wanted.count < topic.partitions:
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {topic.name} currently has {topic.partitions} partition(s); {wanted.count} would not be an "
            "increase.",
        )
    if wanted.count > MAX_PARTITIONS:
        raise Refused(ErrorCode.INVALID_PARTITIONS, f"Number of partitions is limited to {MAX_PARTITIONS}.")
    if wanted.assignments is not None:
        added = wanted.count - topic.partitions
        if len(wanted.assignments) != added:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Attempted to add {added} additional partition(s), but only {len(wanted.assignments)} assignment(s) "
                "were specified.",
            )
        _require_assignments(ctx, [(index, one.broker_ids) for index, one in enumerate(wanted.assignments)])
    spending.spend(wanted.count - topic.partitions, ctx.broker.clock.monotonic())
    if not validate_only:
        await ctx.broker.topics.grow(topic, wanted.count)
