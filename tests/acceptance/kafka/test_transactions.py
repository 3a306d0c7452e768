"""Transactions through our seam and through aiokafka: atomic, isolated, fenced, and ended by an operator."""

import time
from collections.abc import Callable

import aiokafka
import pytest

from broker.client import Admin, Consumer, Producer, Record, Settings, TopicPartition, errors
from tests.acceptance.kafka.conftest import Node


def read(settings: Settings, topic: str, isolation: str, partitions: int = 1) -> list[bytes | None]:
    """All that is there now, by isolation."""
    consumer = Consumer(settings, isolation=isolation, fetch_wait=0.1, overrides={"enable.partition.eof": True})
    consumer.assign({TopicPartition(topic, index): 0 for index in range(partitions)})
    found: list[Record] = []
    deadline = time.monotonic() + 60
    while len(consumer.ends) < partitions:
        assert time.monotonic() < deadline, f"{topic} could not be read to its end"
        found += consumer.poll(500, 0.15)
    consumer.close()
    return [record.value for record in found]


def test_what_was_aborted_is_seen_by_nobody_who_asks_for_committed_records(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, place = topic(1), None
    place = TopicPartition(made, 0)
    producer = Producer(settings, transactional_id=name("tx"))
    producer.init_transactions()
    for value, commit in ((b"a", True), (b"b", False), (b"c", True)):
        producer.begin()
        producer.send(made, value)
        if commit:
            producer.commit()
        else:
            producer.abort()
    producer.begin()
    producer.send(made, b"open")
    assert read(settings, made, "read_committed") == [b"a", b"c"]
    assert read(settings, made, "read_uncommitted") == [b"a", b"b", b"c", b"open"]
    # three records and three markers are before the open transaction
    assert admin.offsets([place], committed_only=True)[place].offset == 6
    assert admin.offsets([place])[place].offset == 7
    producer.commit()
    assert read(settings, made, "read_committed") == [b"a", b"c", b"open"]
    assert admin.offsets([place], committed_only=True)[place].offset == 8
    producer.close()


def test_records_of_several_partitions_and_offsets_appear_together(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    source, target, group = topic(1), topic(3), name("group")
    seed = Producer(settings)
    seed.send_many([(source, b"%d" % n, None, None) for n in range(5)])
    seed.close()
    consumer = Consumer(settings, group)
    consumer.subscribe([source])
    found: list[Record] = []
    deadline = time.monotonic() + 60
    while len(found) < 5 and time.monotonic() < deadline:
        found += consumer.poll(5, 0.2)
    producer = Producer(settings, transactional_id=name("tx"))
    producer.init_transactions()
    for commit in (False, True):
        producer.begin()
        for record in found:
            producer.send(target, record.value, partition=record.offset % 3)
        producer.send_offsets({TopicPartition(source, 0): 5}, consumer.group_metadata())
        if commit:
            producer.commit()
        else:
            producer.abort()
            assert admin.group_offsets([group])[group] == {}
    assert sorted(value or b"" for value in read(settings, target, "read_committed", 3)) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    assert admin.group_offsets([group], require_stable=True)[group][TopicPartition(source, 0)].offset == 5
    consumer.close()
    producer.close()


def test_a_newer_producer_of_the_same_id_fences_the_older(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, tx = topic(1), name("tx")
    old = Producer(settings, transactional_id=tx)
    old.init_transactions()
    old.begin()
    old.send(made, b"old")
    new = Producer(settings, transactional_id=tx)
    new.init_transactions()
    with pytest.raises(errors.ClientError) as refused:
        old.send(made, b"late")
        old.commit()
    assert isinstance(old.fatal, errors.Fenced) or isinstance(refused.value, errors.Fenced)
    new.begin()
    new.send(made, b"new")
    new.commit()
    assert read(settings, made, "read_committed") == [b"new"]
    old.close(0)
    new.close()


def left_alone(settings: Settings, topic: str, name: Callable[[str], str]) -> Producer:
    """A producer with an open transaction that holds a record and ends soon: as soon as this machine can write one."""
    for seconds in (1.0, 5.0, 25.0):
        producer = Producer(settings, transactional_id=name("tx"), transaction_timeout=seconds)
        producer.init_transactions()
        producer.begin()
        try:
            producer.send(topic, b"left")
        except errors.ClientError:  # a message's time is the transaction's
            producer.close(0)
        else:
            return producer
    raise AssertionError("a record could not be written within 25 s")


def test_a_transaction_that_is_left_alone_is_aborted_after_its_timeout(
    settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made = topic(1)
    left = left_alone(settings, made, name)
    other = Producer(settings)
    other.send(made, b"other")
    deadline = time.monotonic() + 120
    while read(settings, made, "read_committed") != [b"other"]:
        assert time.monotonic() < deadline, "the transaction was never aborted"
    with pytest.raises(errors.ClientError):
        left.commit(5)
    other.close()
    left.close(0)


def test_transactions_are_listed_described_and_ended_by_an_operator(
    settings: Settings, admin: Admin, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, tx = topic(2), name("tx")
    place = TopicPartition(made, 1)
    producer = Producer(settings, transactional_id=tx)
    producer.init_transactions()
    producer.begin()
    producer.send(made, b"x", partition=1)
    assert [(each.id, each.state) for each in admin.transactions() if each.id == tx] == [(tx, "Ongoing")]
    described = admin.describe_transactions([tx, name("unknown")])
    assert set(described) == {tx}
    assert (described[tx].state, described[tx].partitions, described[tx].timeout_ms) == ("Ongoing", (place,), 60_000)
    (active,) = admin.producers([place])[place]
    assert (active.transaction_start, active.producer_id) == (0, described[tx].producer_id)
    admin.abort_transaction(place, active)
    assert read(settings, made, "read_committed", 2) == []
    assert admin.producers([place])[place][0].transaction_start == -1
    producer.close(0)


async def test_aiokafka_commits_and_aborts(
    cluster: Node, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made = topic(1)
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=name("tx"))
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(made, b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(made, b"dropped")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(made, b"kept too")
    finally:
        await producer.stop()
    assert read(settings, made, "read_committed") == [b"kept", b"kept too"]
