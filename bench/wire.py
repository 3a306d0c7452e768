"""What the wire package costs: microseconds per message, batch and frame, for the requests a busy broker sees.

python -m bench.wire
"""

import time
from collections.abc import Callable
from typing import Any

from broker.wire import batch, codec, framing
from broker.wire.batch import Record

ROUNDS = 5
SECONDS = 0.05  # per round


def cost(what: Callable[[], Any]) -> float:
    """Microseconds a call, the best of several rounds."""
    what()
    calls, best = 1, float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            what()
        spent = time.perf_counter() - start
        best = min(best, spent / calls)
        calls = max(1, int(SECONDS / best))
    return best * 1e6


def show(name: str, what: Callable[[], Any]) -> None:
    print(f"{name:44} {cost(what):10.2f} µs")


def both_ways(name: str, message: Any, version: int) -> None:
    kind = message._message
    data = memoryview(codec.encode(message, version))
    show(f"{name} v{version}: encode ({len(data)} B)", lambda: codec.encode(message, version))
    show(f"{name} v{version}: decode", lambda: codec.decode(kind, version, data))


def messages() -> None:
    struct = codec.struct
    records = batch.build([Record(0, 1, b"key", bytes(100))])
    produced = struct("ProduceRequest.PartitionProduceData")(index=1, records=records)
    answered = struct("ProduceResponse.PartitionProduceResponse")(index=1, base_offset=5)
    both_ways(
        "Produce, one batch",
        struct("ProduceRequest")(
            topic_data=[struct("ProduceRequest.TopicProduceData")(name="topic", partition_data=[produced])]
        ),
        10,
    )
    both_ways(
        "Produce's answer",
        struct("ProduceResponse")(
            responses=[struct("ProduceResponse.TopicProduceResponse")(name="topic", partition_responses=[answered])]
        ),
        10,
    )
    wanted, topic = struct("FetchRequest.FetchPartition"), struct("FetchRequest.FetchTopic")
    found, answer = struct("FetchResponse.PartitionData"), struct("FetchResponse.FetchableTopicResponse")
    for count in (1, 1000):
        both_ways(
            f"Fetch, {count} partitions",
            struct("FetchRequest")(topics=[topic(partitions=[wanted(partition=each) for each in range(count)])]),
            16,
        )
        both_ways(
            f"Fetch's answer, {count} partitions",
            struct("FetchResponse")(
                responses=[answer(partitions=[found(partition_index=each, records=b"") for each in range(count)])]
            ),
            16,
        )
    ready = codec.encode(found(records=b""), 16)
    cached = struct("FetchResponse")(responses=[answer(partitions=[ready] * 1000)])
    show("Fetch's answer, 1000 partitions, cached", lambda: codec.encode(cached, 16))
    both_ways("Heartbeat", struct("HeartbeatRequest")(group_id="group", member_id="m" * 40), 4)
    commit = struct("OffsetCommitRequest.OffsetCommitRequestPartition")(committed_offset=5)
    both_ways(
        "OffsetCommit, one partition",
        struct("OffsetCommitRequest")(
            group_id="group",
            member_id="m" * 40,
            topics=[struct("OffsetCommitRequest.OffsetCommitRequestTopic")(name="topic", partitions=[commit])],
        ),
        9,
    )
    partition = struct("MetadataResponse.MetadataResponsePartition")(replica_nodes=[1], isr_nodes=[1])
    described = struct("MetadataResponse.MetadataResponseTopic")(name="topic", partitions=[partition] * 10)
    both_ways("Metadata's answer, 100 topics of 10", struct("MetadataResponse")(topics=[described] * 100), 13)


def frames() -> None:
    header = framing.RequestHeader(12, 4, 7, "client")
    data = b"".join(framing.request(header, codec.struct("HeartbeatRequest")(group_id="group")))
    answer = codec.struct("HeartbeatResponse")()
    splitter = framing.Splitter(1 << 20)
    show("split a frame off", lambda: splitter.feed(data))
    show("request header", lambda: framing.parse_request(memoryview(data)[4:]))
    show("response frame", lambda: framing.response(header, answer))


def batches() -> None:
    for count in (1, 1000):
        items = [Record(each, 1, b"key", bytes(100)) for each in range(count)]
        pairs = [(record.key, record.value) for record in items]
        data = batch.build(items)
        (view,) = batch.split(data)
        show(f"validate a batch of {count}", lambda data=data: batch.validate(data, 1 << 30))
        show(f"place a batch of {count}", lambda view=view: batch.placed(view, 1, 2))
        show(
            f"place a batch of {count}, append time",
            lambda view=view: batch.placed(view, 1, 2, 3),
        )
        show(f"read {count} records", lambda view=view: list(batch.records(view)))
        show(f"build a batch of {count}", lambda items=items: batch.build(items))
        show(f"build a batch of {count} pairs", lambda pairs=pairs: batch.keyed(pairs, 1))


if __name__ == "__main__":
    messages()
    frames()
    batches()
