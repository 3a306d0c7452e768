"""Produce 3-13 (0-2 are advertised so that old librdkafka compresses, and refused).

Magic 2 only, one batch a partition. acks 1 and -1 are answered after the fsync of the journal that holds the batches;
acks 0 is not answered, and a failure closes the connection. Idempotent and transactional batches (KIP-98, KIP-360,
KIP-890: from version 12 on a transaction's partition is added by producing to it). Topic ids from 13 (KIP-516).
zstd from 7 (KIP-110). Quotas: KIP-13, KIP-219.
"""

from __future__ import annotations

import inspect
from typing import Any

from broker.api.failures import KNOWN, error_of
from broker.api.registry import Context, Disconnect, Later, handles
from broker.cluster.acls import Operation, ResourceType
from broker.cluster.metadata import Topic
from broker.log.failures import LogError
from broker.log.partition import Partition
from broker.server.quotas import PRODUCE
from broker.wire import batch
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ProduceResponse = struct("ProduceResponse")
TopicAnswer = struct("ProduceResponse.TopicProduceResponse")
PartitionAnswer = struct("ProduceResponse.PartitionProduceResponse")

WRITE_PROTECTED = frozenset(("__sluice_metadata", "__consumer_offsets", "__transaction_state", "__share_group_state"))
"""Logs the broker itself keeps its state in: nobody else writes there."""


COMPRESSIONS = {
    "uncompressed": batch.Compression.NONE,
    "gzip": batch.Compression.GZIP,
    "snappy": batch.Compression.SNAPPY,
    "lz4": batch.Compression.LZ4,
    "zstd": batch.Compression.ZSTD,
}


class Refused(Exception):
    """A partition's batches can't be taken; carries the code and the words for the client."""

    def __init__(self, code: ErrorCode, message: str | None = None) -> None:
        super().__init__(message or code.name)
        self.code = code
        self.message = message


@handles(0, min=3, max=13, advertised_min=0, pipelined=True)
def produce(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if request.transactional_id is not None:
        return _transactional(ctx, header, request)
    return _Produce(ctx, header, request).run()


def _transactional(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """Check the producer's standing in its transaction first; mostly known at once."""
    produce = _Produce(ctx, header, request)
    if not ctx.allows(Operation.WRITE, ResourceType.TRANSACTIONAL_ID, request.transactional_id):
        return produce.refuse_all(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    found = produce.check_transaction()
    if inspect.isawaitable(found):
        return produce.run_after(found)
    if found != ErrorCode.NONE:
        return produce.refuse_all(found)
    return produce.run()


class _Produce:
    """One request on its way: appended at once, answered when durable."""

    __slots__ = ("_appended", "_ctx", "_header", "_later", "_request", "_response")

    def __init__(self, ctx: Context, header: RequestHeader, request: Any) -> None:
        self._ctx = ctx
        self._header = header
        self._request = request
        self._later = Later()
        self._response: Any = None
        self._appended: list[Any] = []

    def check_transaction(self) -> Any:
        """What the transaction coordinator says of the producer and the partitions."""
        partitions: list[tuple[str, int]] = []
        producer = None
        for topic_data in self._request.topic_data:
            topic = self._topic(topic_data)
            for data in topic_data.partition_data:
                if data.records is None or len(data.records) < batch.HEADER_SIZE:
                    continue
                if topic is not None:
                    partitions.append((topic.name, data.index))
                producer = producer or _producer(data.records)
        if producer is None:
            return ErrorCode.NONE
        transactions = self._ctx.broker.transactions
        return transactions.check_produce(
            self._request.transactional_id, *producer, partitions, implicit=self._header.api_version >= 12
        )

    async def run_after(self, check: Any) -> Any:
        code = await check
        result = self.run() if code == ErrorCode.NONE else self.refuse_all(code)
        if not isinstance(result, Later):
            return result
        done = self._ctx.connection.loop.create_future()
        result.then(lambda value: done.done() or done.set_result(value))
        return await done

    def _topic(self, topic_data: Any) -> Topic | None:
        topics = self._ctx.broker.topics
        if self._header.api_version >= 13:
            return topics.by_id(topic_data.topic_id)
        return topics.get(topic_data.name)

    def refuse_all(self, code: ErrorCode) -> Any:
        return self._answered(
            [
                TopicAnswer(
                    name=topic_data.name,
                    topic_id=topic_data.topic_id,
                    partition_responses=[
                        PartitionAnswer(index=data.index, error_code=code, base_offset=-1)
                        for data in topic_data.partition_data
                    ],
                )
                for topic_data in self._request.topic_data
            ]
        )

    def run(self) -> Any:
        if self._request.acks not in (-1, 0, 1):
            return self.refuse_all(ErrorCode.INVALID_REQUIRED_ACKS)
        now = self._ctx.broker.clock.now()
        position = 0
        size = 0
        answers = []
        for topic_data in self._request.topic_data:
            topic = self._topic(topic_data)
            problem = self._topic_problem(topic, topic_data)
            answered = []
            for data in topic_data.partition_data:
                size += len(data.records) if data.records is not None else 0
                if problem is not None:
                    answered.append(PartitionAnswer(index=data.index, error_code=problem, base_offset=-1))
                    continue
                assert topic is not None
                answer, at = self._append(topic, data, now)
                position = max(position, at)
                answered.append(answer)
            answers.append(
                TopicAnswer(name=topic_data.name, topic_id=topic_data.topic_id, partition_responses=answered)
            )
        return self._answer(answers, position, size)

    def _topic_problem(self, topic: Topic | None, topic_data: Any) -> ErrorCode | None:
        by_id = self._header.api_version >= 13
        if by_id and topic is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        name = topic_data.name if topic is None else topic.name
        if not self._ctx.allows(Operation.WRITE, ResourceType.TOPIC, name):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if topic is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.INVALID_TOPIC_EXCEPTION if name in WRITE_PROTECTED else None

    def _append(self, topic: Topic, data: Any, now: int) -> tuple[Any, int]:
        partition = self._ctx.broker.topics.partition(topic.name, data.index)
        try:
            if partition is None:
                raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            batches = self._batches(partition, data)
            appended = partition.append(batches, now)
        except Refused as refusal:
            return _failure(data.index, refusal.code, refusal.message), 0
        except KNOWN as error:
            return _failure(data.index, error_of(error), str(error) or None), 0
        meter = self._ctx.broker.meter
        meter.produced_batches += len(batches)
        for one in batches:
            meter.produced_records += one.count
        answer = PartitionAnswer(
            index=data.index,
            base_offset=appended.base_offset,
            log_append_time_ms=appended.append_time,
            log_start_offset=appended.log_start_offset,
        )
        self._appended.append(answer)
        return answer, appended.position

    def _batches(self, partition: Partition, data: Any) -> list[batch.Batch]:
        if data.records is None:
            raise Refused(ErrorCode.INVALID_RECORD, "The request has no records")
        batches = batch.validate(data.records, partition.config.max_message_bytes)
        if len(batches) != 1:
            raise Refused(ErrorCode.INVALID_RECORD, "A produce request must have exactly one record batch a partition")
        one = batches[0]
        if one.control:
            raise Refused(ErrorCode.INVALID_RECORD, "Clients can't write control records")
        if one.transactional and self._request.transactional_id is None:
            raise Refused(
                ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Transactional records need a transactional id"
            )
        if one.compression == batch.Compression.ZSTD and self._header.api_version < 7:
            raise Refused(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
        wanted = partition.config.compression_type
        if wanted != "producer" and one.compression != COMPRESSIONS[wanted]:
            return batch.split(_recompressed(one, COMPRESSIONS[wanted]))
        return batches

    def _answer(self, answers: list[Any], position: int, size: int) -> Any:
        broker = self._ctx.broker
        broker.meter.produce_requests += 1
        broker.meter.produced_bytes += size
        response = self._answered(answers)
        throttle = broker.quotas.throttle(
            PRODUCE, self._ctx.principal, self._header.client_id, size, broker.clock.monotonic()
        )
        if throttle:
            broker.meter.throttled += 1
            self._ctx.connection.throttle(throttle)
            if response is not None:
                response.throttle_time_ms = throttle
        if not position or response is None or broker.config.flush_interval_ms is not None:
            return response
        self._response = response
        broker.commit.when_durable(position, self._durable)
        return self._later

    def _durable(self, error: BaseException | None) -> None:
        if error is not None:
            code = error_of(error) if isinstance(error, LogError) else ErrorCode.KAFKA_STORAGE_ERROR
            for answer in self._appended:
                answer.error_code = code
                answer.base_offset = -1
        self._later.complete(self._response)

    def _answered(self, answers: list[Any]) -> Any:
        """The response; None when the peer wants none."""
        if self._request.acks == 0:
            for topic in answers:
                for partition in topic.partition_responses:
                    if partition.error_code:
                        raise Disconnect(
                            f"a produce request with acks=0 failed with {ErrorCode(partition.error_code).name}"
                        )
            return None
        return ProduceResponse(responses=answers)


def _failure(index: int, code: ErrorCode, message: str | None) -> Any:
    return PartitionAnswer(index=index, error_code=code, base_offset=-1, error_message=message)


def _recompressed(one: batch.Batch, compression: batch.Compression) -> bytes:
    """The batch in the topic's codec (`compression.type`)."""
    return batch.build(
        batch.records(one),
        base_offset=one.base_offset,
        compression=compression,
        producer_id=one.producer_id,
        producer_epoch=one.producer_epoch,
        base_sequence=one.base_sequence,
        transactional=one.transactional,
    )


def _producer(records: memoryview) -> tuple[int, int]:
    """Producer id and epoch as they stand in a batch's header."""
    return (
        int.from_bytes(records[43:51], "big", signed=True),
        int.from_bytes(records[51:53], "big", signed=True),
    )
