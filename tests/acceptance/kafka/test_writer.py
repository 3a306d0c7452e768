"""The event loop's producer against a cluster."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from kafka.partitioner.default import murmur2

from broker.client import Admin, Consumer, EncodedHeaders, Failure, Settings, TopicPartition, Writer, errors
from broker.client.outgoing import Sending
from broker.client.writing.batches import Batch
from tests.acceptance.kafka.conftest import Node
from tests.acceptance.kafka.test_seam import read
from tests.integration.client.cutting_proxy import CuttingProxy


@contextlib.asynccontextmanager
async def writing(settings: Settings, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(settings, **options)
    writer.attach(asyncio.get_running_loop())
    try:
        yield writer
    finally:
        await writer.close(5.0)


def hand_over(writer: Writer, messages: Sequence[Sending]) -> "asyncio.Future[Batch]":
    done: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
    batch = writer.batch(done.set_result)
    assert batch.send_all(messages) == len(messages)
    batch.seal()
    return done


async def write(writer: Writer, messages: Sequence[Sending]) -> list[Failure]:
    async with asyncio.timeout(60):
        return (await hand_over(writer, messages)).failures


async def test_records_come_back_as_they_were_written(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1)
    kept = EncodedHeaders([("a", b"1"), ("a", None), ("b", "zwei")])
    places: list[tuple[str, int, int, int, int]] = []

    def placed(*place: Any) -> None:
        places.append(place)

    long = b"x" * 70_000
    async with writing(settings) as writer:
        assert not await write(
            writer,
            [
                (made, b"value", b"key", kept, placed, -1),
                (made, None, b"key", None, None, -1),
                (made, b"", None, [*kept, ("c", b"")], None, -1),
                (made, long, long, None, placed, 0),
                (made, b"", b"", None, placed, 0),
            ],
        )
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, 0): 0})
    records = read(consumer, 5)
    consumer.close()
    assert [(each.key, each.value) for each in records] == [
        (b"key", b"value"),
        (b"key", None),
        (None, b""),
        (long, long),
        (b"", b""),
    ]
    assert records[0].headers == (("a", b"1"), ("a", None), ("b", b"zwei"))
    assert records[2].headers == (*records[0].headers, ("c", b""))
    assert places == [(made, 0, at, records[at].timestamp, count) for at, count in ((0, 1), (3, 2))]


async def test_keys_go_to_the_partitions_that_java_puts_them_in(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(7)
    places: dict[bytes, int] = {}
    keys = (b"device-1", b"device-2", b"", "größe".encode(), b"1234", b"12345")

    def remember(key: bytes) -> Callable[[str, int, int, int, int], None]:
        return lambda _, partition, *rest: places.__setitem__(key, partition)

    async with writing(settings) as writer:
        assert not await write(writer, [(made, b"x", key, None, remember(key), -1) for key in keys])
        assert await writer.partitions(made) == 7
    assert places == {key: (murmur2(key) & 0x7FFFFFFF) % 7 for key in keys}


async def test_a_message_that_is_too_large_fails_alone(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1, max_message_bytes="5000")
    sizes = [10, 20, 6000, 30, 40, 7000, 50]
    async with writing(settings) as writer:
        assert not await write(writer, [(made, b"first", b"k", None, None, 0)])
        before = [hand_over(writer, [(made, b"%d" % number, b"k", None, None, 0)]) for number in range(3)]
        failures = await write(writer, [(made, b"x" * size, b"k", None, None, 0) for size in sizes])
        assert not await write(writer, [(made, b"last", b"k", None, None, 0)])
        assert [(await each).failures for each in before] == [[], [], []]
    assert [(len(each.value or b""), type(each.error), each.unknown) for each in failures] == [
        (6000, errors.RecordTooLarge, False),
        (7000, errors.RecordTooLarge, False),
    ]
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, 0): 0})
    values = [each.value or b"" for each in read(consumer, 10)]
    consumer.close()
    expected = [b"first", b"0", b"1", b"2", *(b"x" * size for size in sizes if size < 5000), b"last"]
    assert values == expected


async def test_more_than_a_batch_holds_is_stored_in_order(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(2)
    count = 20_000
    async with writing(settings) as writer:
        messages: list[Sending] = [
            (made, b"%06d" % number + b"." * 200, b"k%d" % (number % 5), None, None, -1) for number in range(count)
        ]
        assert not await write(writer, messages)
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, 0): 0, TopicPartition(made, 1): 0})
    records = read(consumer, count)
    consumer.close()
    for partition in (0, 1):
        numbers = [int((each.value or b"")[:6]) for each in records if each.partition == partition]
        assert numbers == sorted(set(numbers))
    assert len(records) == count


async def test_a_topic_that_must_not_be_written_to_refuses_for_certain(
    settings: Settings, name: Callable[[str], str]
) -> None:
    async with writing(settings) as writer:
        failures = await write(writer, [("no spaces here", b"x", b"k", None, None, -1)])
        assert [(type(each.error), each.unknown) for each in failures] == [(errors.InvalidTopic, False)]
        assert not await write(writer, [(name("made-by-use"), b"x", b"k", None, None, -1)])


async def test_connections_that_break_lose_nothing_and_double_nothing(
    settings: Settings, topic: Callable[..., str], admin: Admin, cluster: Node
) -> None:
    made = topic(3)
    host, port = settings.addresses[0]
    async with CuttingProxy(host, port) as proxy, writing(proxy.settings(settings)) as writer:
        assert await writer.partitions(made) == 3
        proxy.begin(seed=7)
        outcomes = []
        for number in range(600):
            messages: list[Sending] = [
                (made, b"%d.%d" % (number, part), b"%d" % part, None, None, part % 3) for part in range(6)
            ]
            outcomes.append(hand_over(writer, messages))
            await asyncio.sleep(0.002)
        proxy.end()
        async with asyncio.timeout(60):
            assert [(await each).failures for each in outcomes] == [[]] * 600
        assert proxy.cuts > 5 and writer.fatal is None
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, partition): 0 for partition in range(3)})
    records = read(consumer, 3600)
    assert not consumer.poll(10, 1.0)
    consumer.close()
    for partition in range(3):
        found = [each.value for each in records if each.partition == partition]
        wanted = [b"%d.%d" % (number, part) for number in range(600) for part in range(6) if part % 3 == partition]
        assert found == wanted


async def test_answers_that_never_come_are_asked_for_again_over_another_connection(
    settings: Settings, topic: Callable[..., str]
) -> None:
    made = topic(2)
    async with CuttingProxy(*settings.addresses[0]) as proxy, writing(proxy.settings(settings)) as writer:
        writer._request_timeout = 0.5
        assert not await write(writer, [(made, b"-1", b"k", None, None, part) for part in range(2)])
        proxy.muted = True
        outcomes = []
        for number in range(300):
            outcomes.append(hand_over(writer, [(made, b"%d" % number, b"k", None, None, part) for part in range(2)]))
            await asyncio.sleep(0.01)
        proxy.muted = False
        async with asyncio.timeout(60):
            assert [(await each).failures for each in outcomes] == [[]] * 300
        assert writer.fatal is None
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, partition): 0 for partition in range(2)})
    records = read(consumer, 602)
    assert not consumer.poll(10, 1.0)
    consumer.close()
    for partition in range(2):
        assert [each.value for each in records if each.partition == partition] == [b"%d" % at for at in range(-1, 300)]


async def test_a_restarted_broker_loses_nothing_and_doubles_nothing(
    settings: Settings, topic: Callable[..., str], cluster: Node
) -> None:
    made = topic(2)
    async with writing(settings) as writer:
        outcomes = []
        restarting: asyncio.Future[None] | None = None
        for number in range(400):
            messages: list[Sending] = [(made, b"%d" % number, b"k", None, None, part) for part in range(2)]
            outcomes.append(hand_over(writer, messages))
            await asyncio.sleep(0.002)
            if number == 100:
                restarting = asyncio.get_running_loop().run_in_executor(None, restart, cluster)
        assert restarting is not None
        async with asyncio.timeout(120):
            await restarting
            assert [(await each).failures for each in outcomes] == [[]] * 400
        assert writer.fatal is None
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, partition): 0 for partition in range(2)})
    records = read(consumer, 800)
    assert not consumer.poll(10, 1.0)
    consumer.close()
    for partition in range(2):
        assert [each.value for each in records if each.partition == partition] == [b"%d" % at for at in range(400)]


def restart(cluster: Node) -> None:
    cluster.kill()
    cluster.start()


async def test_a_broker_that_stays_away_makes_outcomes_unknown_in_time(topic: Callable[..., str]) -> None:
    nobody = Settings(bootstrap="127.0.0.1:1")
    async with writing(nobody, delivery_timeout=0.5) as writer:
        failures = await write(writer, [("t", b"x", b"k", None, None, -1)])
        assert [each.unknown for each in failures] == [True]
        assert writer.last_error is not None


async def test_a_full_queue_takes_what_there_is_room_for(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1)
    async with writing(settings, queue_messages=10) as writer:
        done: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
        batch = writer.batch(done.set_result)
        message: Sending = (made, b"x", b"k", None, None, -1)
        assert batch.send_all([message] * 25) == 10
        assert batch.send_all([message]) == 0
        batch.seal()
        assert not (await done).failures
        assert not await write(writer, [message] * 10)


@pytest.mark.parametrize("timeout", [0.0, 0.2])
async def test_what_is_left_when_it_is_closed_fails(timeout: float) -> None:
    writer = Writer(Settings(bootstrap="127.0.0.1:1"))
    writer.attach(asyncio.get_running_loop())
    done = hand_over(writer, [("t", b"x", b"k", None, None, -1)])
    assert await writer.close(timeout) == 1
    assert len((await done).failures) == 1 and writer.fatal is not None
    late = hand_over(writer, [("t", b"y", b"k", None, None, -1)])
    async with asyncio.timeout(5):
        assert len((await late).failures) == 1
