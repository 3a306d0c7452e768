"""Idempotent and transactional producers (KIP-98).

* InitProducerId 0 to 5: a producer that names itself keeps its transactional id (KIP-360) from 3; PRODUCER_FENCED
  from 4, INVALID_PRODUCER_EPOCH before. Without a transactional id a fresh producer id, which is not remembered.
* AddPartitionsToTxn 0 to 5: all or nothing; from 4 batched and for brokers alone, with `verify_only`.
* AddOffsetsToTxn 0 to 4.
* TxnOffsetCommit 0 to 6: member and generation checked from 3 (KIP-447); from 5 it adds the group by itself (KIP-890);
  topic ids in 6.
* EndTxn 0 to 5: from 5 the epoch is bumped and answered (KIP-890, transaction version 2).

WRITE on the transactional id throughout; WRITE on topics added; READ on groups and on topics committed. Answers leave
when the transaction's state is durable; EndTxn's when markers and offsets are too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from broker.api.offsets import CommitSheet
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.directory import OffsetCommitCall
from broker.groups.ports import StateUnwritable
from broker.transactions.coordinator import Init, Producer
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

InitProducerIdResponse = codec.struct("InitProducerIdResponse")
AddPartitionsToTxnResponse = codec.struct("AddPartitionsToTxnResponse")
AddPartitionsToTxnResult = codec.struct("AddPartitionsToTxnResponse.AddPartitionsToTxnResult")
AddPartitionsToTxnTopicResult = codec.struct("AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult")
AddPartitionsToTxnPartitionResult = codec.struct("AddPartitionsToTxnResponse.AddPartitionsToTxnPartitionResult")
AddOffsetsToTxnResponse = codec.struct("AddOffsetsToTxnResponse")
TxnOffsetCommitResponse = codec.struct("TxnOffsetCommitResponse")
TxnOffsetCommitResponseTopic = codec.struct("TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic")
TxnOffsetCommitResponsePartition = codec.struct("TxnOffsetCommitResponse.TxnOffsetCommitResponsePartition")
EndTxnResponse = codec.struct("EndTxnResponse")


def _may_write(ctx: Context, transactional_id: str) -> bool:
    return ctx.allows(Operation.WRITE, ResourceType.TRANSACTIONAL_ID, transactional_id)


def _fenced(error: ErrorCode, *, knows: bool) -> ErrorCode:
    """Older clients know a fenced producer by its epoch alone."""
    return ErrorCode.INVALID_PRODUCER_EPOCH if error is ErrorCode.PRODUCER_FENCED and not knows else error


@handles(22, min=0, max=5)
def init_producer_id(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """InitProducerId."""

    def shape(producer: Producer) -> Any:
        return InitProducerIdResponse(
            error_code=_fenced(producer.error, knows=header.api_version >= 4),
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
        )

    def refused(error: ErrorCode) -> Any:
        return shape(Producer(error=error))

    if request.transactional_id is None:
        if not _may_be_idempotent(ctx):
            return refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
        return asyncio.ensure_future(_fresh_producer(ctx))
    if not _may_write(ctx, request.transactional_id):
        return refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    call = Init(
        transactional_id=request.transactional_id,
        timeout_ms=request.transaction_timeout_ms,
        producer_id=request.producer_id,
        epoch=request.producer_epoch,
    )
    return ctx.broker.transactions.ask_with_id(
        lambda coordinator, fresh_id, now: coordinator.init(call, fresh_id, now), shape, refused
    )


def _may_be_idempotent(ctx: Context) -> bool:
    """KIP-679: whoever may write any topic may write it idempotently."""
    return ctx.allows(Operation.IDEMPOTENT_WRITE, ResourceType.CLUSTER) or ctx.broker.metadata.authorizer.allows_any(
        principal=ctx.principal, host=ctx.address, operation=Operation.WRITE, resource_type=ResourceType.TOPIC
    )


async def _fresh_producer(ctx: Context) -> Any:
    return InitProducerIdResponse(producer_id=await ctx.broker.metadata.next_producer_id(), producer_epoch=0)


@handles(24, min=0, max=5)
def add_partitions_to_txn(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """AddPartitionsToTxn."""
    if header.api_version >= 4:
        return _add_batched(ctx, request)

    def refused(error: ErrorCode) -> Any:
        return AddPartitionsToTxnResponse(results_by_topic_v3_and_below=_every(request.v3_and_below_topics, error))

    if not _may_write(ctx, request.v3_and_below_transactional_id):
        return refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    results = _add(
        ctx,
        request.v3_and_below_transactional_id,
        request.v3_and_below_producer_id,
        request.v3_and_below_producer_epoch,
        request.v3_and_below_topics,
        verify=False,
        knows_fenced=header.api_version >= 2,
    )
    response = AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results)
    return ctx.broker.transactions.durable(response, refused)


def _add_batched(ctx: Context, request: Any) -> Any:
    def refused(error: ErrorCode) -> Any:
        return AddPartitionsToTxnResponse(error_code=error)

    if not ctx.allows(Operation.CLUSTER_ACTION, ResourceType.CLUSTER):
        return refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    results = [
        AddPartitionsToTxnResult(
            transactional_id=t.transactional_id,
            topic_results=_add(
                ctx,
                t.transactional_id,
                t.producer_id,
                t.producer_epoch,
                t.topics,
                verify=t.verify_only,
                knows_fenced=True,
            ),
        )
        for t in request.transactions
    ]
    return ctx.broker.transactions.durable(AddPartitionsToTxnResponse(results_by_transaction=results), refused)


def _every(topics: list[Any], error: ErrorCode) -> list[Any]:
    return _results(topics, lambda name, index: error)


def _results(topics: list[Any], code: Any) -> list[Any]:
    return [
        AddPartitionsToTxnTopicResult(
            name=t.name,
            results_by_partition=[
                AddPartitionsToTxnPartitionResult(partition_index=i, partition_error_code=code(t.name, i))
                for i in t.partitions
            ],
        )
        for t in topics
    ]


def _add(
    ctx: Context,
    transactional_id: str,
    producer_id: int,
    epoch: int,
    topics: list[Any],
    *,
    verify: bool,
    knows_fenced: bool,
) -> list[Any]:
    """All partitions or none: what can't be added keeps the others from being tried."""
    wrong: dict[tuple[str, int], ErrorCode] = {}
    places = [(t.name, i) for t in topics for i in t.partitions]
    for name, index in places:
        if not ctx.allows(Operation.WRITE, ResourceType.TOPIC, name):
            wrong[name, index] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif ctx.broker.partition(name, index) is None:
            wrong[name, index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if wrong:
        return _results(topics, lambda name, index: wrong.get((name, index), ErrorCode.OPERATION_NOT_ATTEMPTED))
    try:
        if verify:
            error = ctx.broker.transactions.step(
                lambda c, now: c.verify(transactional_id, producer_id, epoch, partitions=places)
            )
        else:
            error = ctx.broker.transactions.step(
                lambda c, now: c.add(transactional_id, producer_id, epoch, partitions=places, now=now)
            )
    except StateUnwritable:
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return _every(topics, _fenced(error, knows=knows_fenced))


@handles(25, min=0, max=4)
def add_offsets_to_txn(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """AddOffsetsToTxn."""

    def shape(error: ErrorCode) -> Any:
        return AddOffsetsToTxnResponse(error_code=_fenced(error, knows=header.api_version >= 2))

    if not _may_write(ctx, request.transactional_id):
        return shape(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return shape(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    return ctx.broker.transactions.ask(
        lambda c, now: c.add(
            request.transactional_id, request.producer_id, request.producer_epoch, groups=[request.group_id], now=now
        ),
        shape,
        shape,
    )


@handles(28, min=0, max=6)
def txn_offset_commit(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """TxnOffsetCommit."""
    sheet = CommitSheet(ctx, request.topics, by_id=header.api_version >= 6)

    def refused(error: ErrorCode) -> Any:
        return TxnOffsetCommitResponse(
            topics=sheet.all_refused(error, TxnOffsetCommitResponseTopic, TxnOffsetCommitResponsePartition)
        )

    def shape(codes: tuple[ErrorCode, ...]) -> Any:
        return TxnOffsetCommitResponse(
            topics=sheet.answered(codes, TxnOffsetCommitResponseTopic, TxnOffsetCommitResponsePartition)
        )

    if not _may_write(ctx, request.transactional_id):
        return refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    who = (request.transactional_id, request.producer_id, request.producer_epoch)
    groups = [request.group_id]
    try:
        if header.api_version >= 5:
            error = ctx.broker.transactions.step(lambda c, now: c.add(*who, groups=groups, now=now))
        else:
            error = ctx.broker.transactions.step(lambda c, now: c.verify(*who, groups=groups))
    except StateUnwritable:
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    if error is not ErrorCode.NONE:
        return refused(_fenced(error, knows=False))
    call = OffsetCommitCall(
        group_id=request.group_id,
        generation_or_epoch=request.generation_id_or_member_epoch,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        commits=sheet.commits,
    )
    return ctx.broker.groups.ask(
        lambda coordinator, now: coordinator.stage_offsets(call, request.producer_id, now), shape, refused
    )


@handles(26, min=0, max=5)
def end_txn(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """EndTxn."""
    version = header.api_version

    def shape(producer: Producer) -> Any:
        return EndTxnResponse(
            error_code=_fenced(producer.error, knows=version >= 2),
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
        )

    def refused(error: ErrorCode) -> Any:
        return shape(Producer(error=error))

    if not _may_write(ctx, request.transactional_id):
        return refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    return ctx.broker.transactions.ask_with_id(
        lambda coordinator, fresh_id, now: coordinator.end(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            commit=request.committed,
            bump=version >= 5,
            fresh_id=fresh_id,
            now=now,
        ),
        shape,
        refused,
    )
