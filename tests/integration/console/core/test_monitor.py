"""The monitor against a real broker: when traffic stops, its numbers are those of an independent client."""

import threading
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from console import history, kafka
from console.kafka import types
from console.monitor.run import run
from console.snapshot import held
from console.snapshot.tail import Tail
from gateway import contract
from tests.integration.console.core.conftest import eventually


@pytest.fixture
def sampled(broker: str, database: None, settings: Any) -> Any:
    """A running monitor and a tail that follows it, as two processes would be."""
    stop = threading.Event()
    monitor = threading.Thread(target=run, args=(stop,), daemon=True)
    monitor.start()
    tail = Tail()
    tail.start()
    yield broker
    stop.set()
    monitor.join(60)
    tail.stop()
    assert not monitor.is_alive()


def independent_lag(broker: str, group: str, topic: str, partitions: int) -> int:
    reader = Consumer({"bootstrap.servers": broker, "group.id": group, "enable.auto.commit": False})
    places = reader.committed([TopicPartition(topic, index) for index in range(partitions)], timeout=60)
    lag = sum(
        reader.get_watermark_offsets(place, timeout=60)[1] - place.offset for place in places if place.offset >= 0
    )
    reader.close()
    return int(lag)


def test_counts_lag_age_and_rates_are_what_an_independent_client_computes(sampled: str, unique: str) -> None:
    admin = AdminClient({"bootstrap.servers": sampled})
    for future in admin.create_topics([NewTopic(unique, 3, 1)]).values():
        future.result(60)
    producer = Producer({"bootstrap.servers": sampled})
    written = int(time.time() * 1000) - 90_000
    for number in range(300):
        producer.produce(unique, b"x" * 50, partition=number % 3, timestamp=written + number)
    assert producer.flush(60) == 0
    reader = Consumer({"bootstrap.servers": sampled, "group.id": unique, "enable.auto.commit": False})
    reader.commit(offsets=[TopicPartition(unique, 0, 100), TopicPartition(unique, 1, 40)], asynchronous=False)
    reader.close()

    def settled() -> bool:
        picture = held.current()
        topic, group = picture.topics.get(unique), picture.groups.get(unique)
        return bool(topic and group and topic.messages == 300 and group.lag == 60 and group.age is not None)

    eventually(settled, within=90)
    picture = held.current()
    topic, group = picture.topics[unique], picture.groups[unique]
    assert group.lag == independent_lag(sampled, unique, unique, 3) == 60
    assert (topic.partitions, topic.lag, topic.groups) == (3, 60, 1)
    assert group.topics == (unique,)
    assert group.age is not None
    assert abs(group.age - (time.time() - (written + 121) / 1000)) < 60
    eventually(lambda: held.current().topics[unique].in_rate == 0, within=90)
    eventually(lambda: held.current().topics[unique].last == written + 299, within=90)
    eventually(lambda: held.current().topics[unique].cleanup == "delete", within=90)
    assert held.current().cluster.embedded

    admin.delete_topics([unique])[unique].result(60)
    eventually(lambda: unique not in held.current().topics)
    found = history.read([f"topic/{unique}/lag", "cluster/in"], now=time.time(), window=120)
    assert 60.0 in found.values[0]
    assert any(value is not None for value in found.values[1])


def test_the_picture_moves_while_records_flow(sampled: str, unique: str) -> None:
    producer = Producer({"bootstrap.servers": sampled})
    stop = threading.Event()

    def flow() -> None:
        while not stop.wait(0.02):
            producer.produce(unique, b"x")
            producer.poll(0)

    thread = threading.Thread(target=flow, daemon=True)
    thread.start()
    try:
        moving = eventually(lambda: getattr(held.current().topics.get(unique), "in_rate", None), within=90)
        assert moving > 0
    finally:
        stop.set()
        thread.join(60)
        producer.flush(5)


def test_doors_that_let_anybody_in_are_named_until_they_are_closed(sampled: str, unique: str) -> None:
    admin = kafka.admin()
    names = [contract.GATEWAY_KEY + unique]
    if "__sluice_presence" not in admin.topics(["__sluice_presence"]):
        admin.create_topic("__sluice_presence", 1, -1, {"cleanup.policy": "compact"})

    def say(anonymous: bool) -> None:
        status = contract.GatewayStatus(
            gateway=unique,
            at=time.time(),
            started=0.0,
            connections=0,
            sessions=0,
            subscriptions=0,
            retained=0,
            anonymous=anonymous,
        )
        kafka.send("__sluice_presence", contract.encode(status), key=names[0].encode(), timeout=10)

    rule = types.Acl(
        resource=types.ResourceType.TOPIC,
        name=unique,
        pattern=types.Pattern.LITERAL,
        principal="User:somebody",
        host="*",
        operation=types.Operation.READ,
        permission=types.Permission.ALLOW,
    )
    try:
        say(True)
        eventually(lambda: held.current().cluster.open_doors == ("mqtt", "kafka"))
        say(False)
        admin.create_acls([rule])
        eventually(lambda: held.current().cluster.open_doors == ())
    finally:
        admin.delete_acls([types.AclFilter(name=unique)])
