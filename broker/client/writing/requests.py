"""Produce requests and their answers, 3 to 12: topics by name, which stays when one is made anew."""

from __future__ import annotations

from broker.client.writing.queues import Answer, Request
from broker.wire import codec, framing
from broker.wire.codec import Buffer

PRODUCE, NEWEST = 0, 12
ALL_IN_SYNC = -1

_Request = codec.struct("ProduceRequest")
_Topic = codec.struct("ProduceRequest.TopicProduceData")
_Partition = codec.struct("ProduceRequest.PartitionProduceData")


def encode(request: Request, version: int, timeout_ms: int) -> list[Buffer]:
    """The body. `timeout_ms`: for the followers."""
    topics: dict[str, list[object]] = {}
    for partition, sealed in request.batches:
        topics.setdefault(partition.topic, []).append(_Partition(index=partition.index, records=sealed.data))
    data = [_Topic(name=name, partition_data=partitions) for name, partitions in topics.items()]
    return codec.encode_vectored(_Request(acks=ALL_IN_SYNC, timeout_ms=timeout_ms, topic_data=data), version)


def decode(version: int, frame: memoryview) -> tuple[dict[tuple[str, int], Answer], int]:
    """What became of each topic's and partition's batch, and for how many milliseconds the broker wants to hear
    nothing more (KIP-219). Raises Malformed."""
    _, message = framing.parse_response(PRODUCE, version, frame)
    answers = {
        (topic.name, each.index): Answer(
            each.error_code,
            each.base_offset,
            each.log_append_time_ms,
            each.error_message,
            frozenset(record.batch_index for record in each.record_errors) if each.record_errors else frozenset(),
        )
        for topic in message.responses
        for each in topic.partition_responses
    }
    return answers, message.throttle_time_ms
