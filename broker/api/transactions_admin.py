"""Transactions as operators see them (KIP-664).

* DescribeTransactions 0: DESCRIBE on the transactional id; topics the caller may not DESCRIBE are left out.
* ListTransactions 0 to 2: filters by state and producer id, by duration from 1 (KIP-994), by pattern from 2 (KIP-1152).
* DescribeProducers 0: READ on the topic.
* WriteTxnMarkers 1 to 2: ends a transaction in the partitions named, whatever the coordinator thinks of it; needs
  CLUSTER_ACTION or ALTER on the cluster. Answered when the markers are durable.
"""

from __future__ import annotations

from typing import Any

import re2

from broker.api.registry import Context, Later, handles
from broker.cluster.acls import Operation, ResourceType
from broker.log.failures import LogRefusal, StorageFailure
from broker.transactions.state import Transaction, TransactionState
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeTransactionsResponse = codec.struct("DescribeTransactionsResponse")
DescribedState = codec.struct("DescribeTransactionsResponse.TransactionState")
DescribedTopic = codec.struct("DescribeTransactionsResponse.TopicData")
ListTransactionsResponse = codec.struct("ListTransactionsResponse")
ListedState = codec.struct("ListTransactionsResponse.TransactionState")
DescribeProducersResponse = codec.struct("DescribeProducersResponse")
DescribedProducerTopic = codec.struct("DescribeProducersResponse.TopicResponse")
DescribedProducerPartition = codec.struct("DescribeProducersResponse.PartitionResponse")
ProducerState = codec.struct("DescribeProducersResponse.ProducerState")
WriteTxnMarkersResponse = codec.struct("WriteTxnMarkersResponse")
WritableTxnMarkerResult = codec.struct("WriteTxnMarkersResponse.WritableTxnMarkerResult")
WritableTxnMarkerTopicResult = codec.struct("WriteTxnMarkersResponse.WritableTxnMarkerTopicResult")
WritableTxnMarkerPartitionResult = codec.struct("WriteTxnMarkersResponse.WritableTxnMarkerPartitionResult")

_STATES = frozenset(state.value for state in TransactionState)


@handles(65, min=0, max=0)
def describe_transactions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DescribeTransactions."""

    def one(transactional_id: str) -> Any:
        if not ctx.allows(Operation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, transactional_id):
            return DescribedState(
                error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, transactional_id=transactional_id
            )
        if not transactional_id:
            return DescribedState(error_code=ErrorCode.INVALID_REQUEST, transactional_id=transactional_id)
        found: Transaction | None = ctx.broker.transactions.coordinator.transaction(transactional_id)
        if found is None:
            return DescribedState(error_code=ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, transactional_id=transactional_id)
        topics: dict[str, list[int]] = {}
        for topic, index in sorted(found.partitions):
            if ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic):
                topics.setdefault(topic, []).append(index)
        return DescribedState(
            transactional_id=transactional_id,
            transaction_state=found.state.value,
            transaction_timeout_ms=found.timeout_ms,
            transaction_start_time_ms=found.started_at,
            producer_id=found.producer_id,
            producer_epoch=found.epoch,
            topics=[DescribedTopic(topic=name, partitions=indexes) for name, indexes in topics.items()],
        )

    return DescribeTransactionsResponse(transaction_states=[one(i) for i in request.transactional_ids])


@handles(66, min=0, max=2)
def list_transactions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ListTransactions."""
    states, producers = set(request.state_filters), set(request.producer_id_filters)
    pattern = None
    if request.transactional_id_pattern:
        options = re2.Options()
        options.log_errors = False
        try:
            pattern = re2.compile(request.transactional_id_pattern, options)
        except re2.error:
            return ListTransactionsResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION)
    since = ctx.broker.clock.now() - request.duration_filter if request.duration_filter >= 0 else None

    def passes(t: Transaction) -> bool:
        return (
            (not states or t.state.value in states)
            and (not producers or t.producer_id in producers)
            and (since is None or 0 <= t.started_at <= since)
            and (pattern is None or pattern.fullmatch(t.id) is not None)
            and ctx.allows(Operation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, t.id)
        )

    return ListTransactionsResponse(
        unknown_state_filters=sorted(states - _STATES),
        transaction_states=[
            ListedState(transactional_id=t.id, producer_id=t.producer_id, transaction_state=t.state.value)
            for t in ctx.broker.transactions.coordinator.transactions()
            if passes(t)
        ],
    )


@handles(61, min=0, max=0)
def describe_producers(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """DescribeProducers."""

    def one(topic: str, index: int) -> Any:
        if not ctx.allows(Operation.READ, ResourceType.TOPIC, topic):
            return DescribedProducerPartition(partition_index=index, error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED)
        partition = ctx.broker.partition(topic, index)
        if partition is None:
            return DescribedProducerPartition(partition_index=index, error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return DescribedProducerPartition(
            partition_index=index,
            active_producers=[
                ProducerState(
                    producer_id=p.producer_id,
                    producer_epoch=p.producer_epoch,
                    last_sequence=p.last_sequence,
                    last_timestamp=p.last_timestamp,
                    coordinator_epoch=p.coordinator_epoch,
                    current_txn_start_offset=p.transaction_start_offset,
                )
                for p in partition.producers()
            ],
        )

    return DescribeProducersResponse(
        topics=[
            DescribedProducerTopic(name=t.name, partitions=[one(t.name, i) for i in t.partition_indexes])
            for t in request.topics
        ]
    )


@handles(27, min=1, max=2)
def write_txn_markers(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """WriteTxnMarkers."""
    allowed = ctx.allows(Operation.CLUSTER_ACTION, ResourceType.CLUSTER) or ctx.allows(
        Operation.ALTER, ResourceType.CLUSTER
    )
    now = ctx.broker.clock.now()
    newest = 0

    def mark(marker: Any, topic: str, index: int) -> ErrorCode:
        nonlocal newest
        if not allowed:
            return ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        partition = ctx.broker.partition(topic, index)
        if partition is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        try:
            appended = partition.append_control(
                marker.producer_id,
                marker.producer_epoch,
                commit=marker.transaction_result,
                coordinator_epoch=marker.coordinator_epoch,
                now=now,
            )
        except StorageFailure:
            return ErrorCode.KAFKA_STORAGE_ERROR
        except LogRefusal:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        newest = max(newest, appended.position)
        return ErrorCode.NONE

    outcomes = [
        (m, t, [(i, mark(m, t.name, i)) for i in t.partition_indexes]) for m in request.markers for t in m.topics
    ]

    def response(failure: ErrorCode | None) -> Any:
        results: dict[int, list[Any]] = {}
        for marker, topic, codes in outcomes:
            results.setdefault(marker.producer_id, []).append(
                WritableTxnMarkerTopicResult(
                    name=topic.name,
                    partitions=[
                        WritableTxnMarkerPartitionResult(
                            partition_index=i, error_code=failure if failure and code is ErrorCode.NONE else code
                        )
                        for i, code in codes
                    ],
                )
            )
        return WriteTxnMarkersResponse(
            markers=[WritableTxnMarkerResult(producer_id=p, topics=topics) for p, topics in results.items()]
        )

    if newest <= ctx.broker.commit.position:
        return response(None)
    later = Later()
    ctx.broker.commit.when_durable(
        newest, lambda error: later.complete(response(None if error is None else ErrorCode.KAFKA_STORAGE_ERROR))
    )
    return later
