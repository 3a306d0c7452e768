"""The event loop's producer against a broker that stays silent, talks nonsense or asks for quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.client import Failure, Settings, Writer
from broker.client.writing import writer as module
from broker.client.writing.batches import Batch
from broker.wire import codec, framing
from broker.wire.codec import Struct
from tests.integration.client.broker_stand_in import StandIn

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22
_Topic = codec.struct("MetadataResponse.MetadataResponseTopic")
_Partition = codec.struct("MetadataResponse.MetadataResponsePartition")


class Leader(StandIn):
    """Leads one partition of every topic, and answers a batch as `answers` says."""

    def __init__(self, answers: Callable[[int], int | None], throttle_ms: int = 0) -> None:
        super().__init__(self.say)
        self._answers = answers
        self._throttle_ms = throttle_ms
        self.batches: list[tuple[float, bytes]] = []

    def _reply(self, header: framing.RequestHeader, request: Struct) -> Struct | None:
        found = super()._reply(header, request)
        if header.api_key == METADATA and found is not None:
            found.topics = [
                _Topic(name=each.name, partitions=[_Partition(partition_index=0, leader_id=1)])
                for each in request.topics
            ]
        return found

    def say(self, header: framing.RequestHeader, request: Struct) -> Struct | None:
        if header.api_key == INIT_PRODUCER_ID:
            return codec.struct("InitProducerIdResponse")(producer_id=5, producer_epoch=0)
        assert header.api_key == PRODUCE
        (topic,) = request.topic_data
        (partition,) = topic.partition_data
        self.batches.append((asyncio.get_running_loop().time(), bytes(partition.records)))
        code = self._answers(len(self.batches))
        if code is None:
            return None
        each = codec.struct("ProduceResponse.PartitionProduceResponse")(index=0, error_code=code, base_offset=0)
        answered = codec.struct("ProduceResponse.TopicProduceResponse")(name=topic.name, partition_responses=[each])
        return codec.struct("ProduceResponse")(responses=[answered], throttle_time_ms=self._throttle_ms)


async def write(writer: Writer, value: bytes) -> list[Failure]:
    done: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
    batch = writer.batch(done.set_result)
    batch.send_all([("t", value, b"k", None, None, -1)])
    batch.seal()
    async with asyncio.timeout(30):
        return (await done).failures


def made(leader: Leader, delivery_timeout: float = 30.0) -> Writer:
    writer = Writer(Settings(bootstrap=f"127.0.0.1:{leader.port}"), delivery_timeout=delivery_timeout)
    writer.attach(asyncio.get_running_loop())
    return writer


async def test_a_broker_that_hangs_up_is_sent_the_same_bytes_again() -> None:
    async with Leader(lambda attempt: None if attempt < 4 else 0) as leader:
        writer = made(leader)
        assert not await write(writer, b"a")
        assert len(leader.batches) == 4 and len({data for _, data in leader.batches}) == 1
        assert await writer.close(1.0) == 0


async def test_a_broker_that_keeps_silent_is_asked_anew_over_another_connection() -> None:
    async with Leader(lambda attempt: 0) as leader:
        leader._silent = frozenset({PRODUCE})
        writer = made(leader)
        writer._request_timeout = 0.2
        outcome = asyncio.create_task(write(writer, b"a"))
        async with asyncio.timeout(20):
            while leader.requests.count(PRODUCE) < 2:  # noqa: ASYNC110  # polled
                await asyncio.sleep(0.01)
        leader._silent = frozenset()
        assert not await outcome and leader.requests.count(18) > 2
        await writer.close(1.0)


async def test_what_is_never_answered_is_unknown_in_time() -> None:
    async with Leader(lambda attempt: 0) as leader:
        leader._silent = frozenset({PRODUCE})
        writer = made(leader, delivery_timeout=0.5)
        assert (await write(writer, b"a"))[0].unknown
        assert writer.fatal is not None
        assert await writer.close(1.0) == 0


async def test_a_broker_that_asks_for_quiet_gets_it() -> None:
    async with Leader(lambda attempt: 0, throttle_ms=300) as leader:
        writer = made(leader)
        assert not await write(writer, b"a")
        assert not await write(writer, b"b")
        (first, _), (second, _) = leader.batches
        assert second - first > 0.29
        await writer.close(1.0)


async def test_errors_that_pass_are_waited_for() -> None:
    async with Leader(lambda attempt: (6, 5, 19, 7, 0)[min(attempt, 5) - 1]) as leader:
        writer = made(leader)
        assert not await write(writer, b"a")
        assert len(leader.batches) == 5 and writer.fatal is None
        await writer.close(1.0)


async def test_where_no_leader_is_known_metadata_is_asked_for_at_a_pace() -> None:
    async with Leader(lambda attempt: 6) as leader:
        writer = made(leader)
        outcome = asyncio.create_task(write(writer, b"a"))
        await asyncio.sleep(1.0)
        assert leader.requests.count(METADATA) < 2 / module.FIRST_PAUSE
        assert await writer.close(0.0) == 1
        assert (await outcome)[0].unknown


async def test_an_answer_that_is_none_ends_the_connection_and_nothing_else() -> None:
    class Nonsense(Leader):
        def _reply(self, header: framing.RequestHeader, request: Struct) -> Struct | None:
            found = super()._reply(header, request)
            if header.api_key == PRODUCE and len(self.batches) == 1:
                assert found is not None
                found.responses = []  # it says nothing of the batch
            return found

    async with Nonsense(lambda attempt: 0) as leader:
        writer = made(leader)
        assert not await write(writer, b"a")
        assert len(leader.batches) == 2
        await writer.close(1.0)
