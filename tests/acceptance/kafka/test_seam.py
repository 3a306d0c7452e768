"""Our own client against a cluster: producer, consumer, admin."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka.partitioner.default import murmur2

from broker.client import (
    Admin,
    Batch,
    Consumer,
    Producer,
    Record,
    Settings,
    TopicPartition,
    capabilities,
    errors,
    types,
)
from tests.acceptance.kafka.conftest import Node


def read(consumer: Consumer, count: int, timeout: float = 60) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.poll(500, 0.2)
    return found


def eventually(check: Callable[[], bool], timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_record_comes_back_as_it_was_written(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1, retention_ms="-1")  # the record is years old
    producer = Producer(settings)
    place = producer.send(
        made, b"value", b"key", [("a", b"1"), ("a", None), ("b", "zwei")], timestamp=1_700_000_000_123
    )
    producer.send(made, None, b"key")
    producer.send(made, b"", b"")
    producer.close()
    consumer = Consumer(settings)
    consumer.assign({TopicPartition(made, 0): 0})
    first, second, third = read(consumer, 3)
    consumer.close()
    assert (first.offset, place.offset) == (0, 0)
    assert (first.key, first.value, first.timestamp) == (b"key", b"value", 1_700_000_000_123)
    assert first.headers == (("a", b"1"), ("a", None), ("b", b"zwei"))
    assert (second.key, second.value) == (b"key", None)
    assert (third.key, third.value) == (b"", b"")


def test_a_batch_tells_once_when_all_its_messages_have_their_outcome(
    settings: Settings, topic: Callable[..., str]
) -> None:
    made = topic(4)
    producer = Producer(settings)
    finished: list[Batch] = []
    batch = producer.batch(finished.append)
    for number in range(1000):
        batch.send(made, b"%d" % number, b"%d" % number)
    batch.seal()
    assert eventually(lambda: producer.poll(0.1) >= 0 and bool(finished))
    assert finished == [batch]
    assert (batch.sent, batch.pending, batch.failures) == (1000, 0, [])
    producer.close()


def test_a_batch_names_the_messages_that_failed(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1, max_message_bytes="1000")
    producer = Producer(settings, linger_ms=0)
    assert producer.send(made, b"small").offset == 0
    failures = producer.send_many([(made, b"x" * 5000, b"big", None)])
    assert [(failure.key, type(failure.error), failure.unknown) for failure in failures] == [
        (b"big", errors.RecordTooLarge, False)
    ]
    producer.close()


async def test_outcomes_arrive_on_the_event_loop(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1)
    producer = Producer(settings)
    producer.attach(asyncio.get_running_loop())
    done: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
    batch = producer.batch(done.set_result)
    for _ in range(10):
        batch.send(made, b"x")
    batch.seal()
    async with asyncio.timeout(60):
        assert (await done).failures == []
    assert (await producer.deliver(made, b"y")).offset == 10
    producer.close()


def test_keys_go_to_the_partitions_that_java_puts_them_in(settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(7)
    producer = Producer(settings)
    keys = (b"device-1", b"device-2", b"", "größe".encode())
    places = {key: producer.send(made, b"x", key).partition for key in keys}
    producer.close()
    assert places == {key: (murmur2(key) & 0x7FFFFFFF) % 7 for key in keys}


def test_topics_are_created_described_grown_and_deleted(admin: Admin, name: Callable[[str], str]) -> None:
    made = name("life")
    admin.create_topic(made, 2, 1, {"retention.ms": "60000", "cleanup.policy": "compact"}, validate_only=True)
    assert made not in admin.topics()
    admin.create_topic(made, 2, 1, {"retention.ms": "60000", "cleanup.policy": "compact"})
    found = admin.topics([made])[made]
    assert [(part.index, part.leader >= 0) for part in found.partitions] == [(0, True), (1, True)]
    assert found.id != "0" * 32
    with pytest.raises(errors.TopicExists):
        admin.create_topic(made, 1)
    with pytest.raises(errors.InvalidTopic):
        admin.create_topic("no spaces here", 1)
    with pytest.raises(errors.ClientError):
        admin.create_topic(name("bad"), 1, 1, {"retention.ms": "soon"})
    admin.add_partitions(made, 5)
    assert eventually(lambda: len(admin.topics([made])[made].partitions) == 5)
    with pytest.raises(errors.InvalidRequest):
        admin.add_partitions(made, 3)
    admin.delete_topic(made)
    assert eventually(lambda: made not in admin.topics())
    with pytest.raises(errors.UnknownTopic):
        admin.delete_topic(made)


def test_a_topic_created_again_has_another_id_and_no_records(
    admin: Admin, settings: Settings, name: Callable[[str], str]
) -> None:
    made = name("again")
    admin.create_topic(made, 1)
    assert eventually(lambda: made in admin.topics([made]))  # Apache Kafka tells of it a moment later
    first = admin.topics([made])[made].id
    producer = Producer(settings)
    producer.send(made, b"x")
    producer.close()
    admin.delete_topic(made)
    assert eventually(lambda: made not in admin.topics())
    admin.create_topic(made, 1)
    assert eventually(lambda: made in admin.topics([made]))
    assert admin.topics([made])[made].id != first
    assert admin.offsets([TopicPartition(made, 0)])[TopicPartition(made, 0)].offset == 0


def test_configurations_change_one_by_one(admin: Admin, topic: Callable[..., str]) -> None:
    made = topic(1, retention_ms="60000")
    resource = types.ConfigResource(types.ConfigKind.TOPIC, made)

    def values() -> dict[str, tuple[str | None, types.ConfigSource]]:
        return {entry.name: (entry.value, entry.source) for entry in admin.configs([resource])[resource]}

    before = values()
    assert before["retention.ms"] == ("60000", types.ConfigSource.TOPIC)
    assert before["segment.bytes"][1] is not types.ConfigSource.TOPIC
    admin.alter_configs(resource, set={"max.message.bytes": "5000"}, append={"cleanup.policy": "compact"})
    assert eventually(lambda: values()["max.message.bytes"][0] == "5000")
    assert set((values()["cleanup.policy"][0] or "").split(",")) == {"delete", "compact"}
    assert values()["retention.ms"][0] == "60000"
    admin.alter_configs(resource, delete=["retention.ms"], subtract={"cleanup.policy": "compact"})
    assert eventually(lambda: values()["retention.ms"][1] is not types.ConfigSource.TOPIC)
    assert values()["cleanup.policy"][0] == "delete"
    with pytest.raises(errors.InvalidConfig):
        admin.alter_configs(resource, set={"retention.ms": "soon"})
    with pytest.raises(errors.InvalidConfig):
        admin.alter_configs(resource, set={"no.such.thing": "1"})
    admin.alter_configs(resource, set={"retention.ms": "1"}, validate_only=True)
    assert values()["retention.ms"][1] is not types.ConfigSource.TOPIC
    missing = types.ConfigResource(types.ConfigKind.TOPIC, "nowhere")
    assert admin.configs([missing, resource]).keys() == {resource}


def test_offsets_are_found_by_place_and_by_time(admin: Admin, settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(3, retention_ms="-1")  # the records are years old
    zero, one, two = (TopicPartition(made, index) for index in range(3))
    producer = Producer(settings, linger_ms=20)
    batch = producer.batch(lambda _: None)
    for number in range(10):
        batch.send(made, b"x", partition=0, timestamp=1_700_000_000_000 + number * 1000)
    producer.flush(60)
    # the greatest timestamp needn't be the last record's
    for stamp in (1_700_000_000_000, 1_700_000_900_000, 1_700_000_500_000):
        producer.send(made, b"y", partition=1, timestamp=stamp)
    producer.close()
    ends = admin.offsets([zero, one, two])
    assert [ends[each].offset for each in (zero, one, two)] == [10, 3, 0]
    assert [place.offset for place in admin.offsets([zero, one], types.At.EARLIEST).values()] == [0, 0]
    middle = admin.offsets([zero, one, two], 1_700_000_003_500)
    assert (middle[zero].offset, middle[zero].timestamp) == (4, 1_700_000_004_000)
    assert (middle[one].offset, middle[two].offset) == (1, -1)
    assert admin.offsets([zero], 1_700_000_009_001)[zero].offset == -1
    newest = admin.offsets([zero, one], types.At.MAX_TIMESTAMP)
    assert (newest[zero].offset, newest[one].offset) == (9, 1)
    assert newest[one].timestamp == 1_700_000_900_000
    nowhere = TopicPartition(made, 9)
    assert admin.offsets([nowhere])[nowhere].error == "UNKNOWN_TOPIC_OR_PARTITION"


def test_records_are_deleted_from_the_front(admin: Admin, settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1)
    place = TopicPartition(made, 0)
    producer = Producer(settings)
    producer.send_many([(made, b"%d" % n, None, None) for n in range(10)])
    producer.close()
    assert admin.delete_records({place: 4})[place].offset == 4
    assert admin.offsets([place], types.At.EARLIEST)[place].offset == 4
    assert admin.delete_records({place: 99})[place].error == "OFFSET_OUT_OF_RANGE"
    consumer = Consumer(settings, reset="earliest")
    consumer.assign({place: 0})
    assert [record.offset for record in read(consumer, 6)] == [4, 5, 6, 7, 8, 9]
    consumer.close()
    assert admin.delete_records({place: -1})[place].offset == 10
    assert admin.offsets([place], types.At.EARLIEST)[place].offset == 10


def test_a_groups_offsets_are_told_set_and_forgotten(
    admin: Admin, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(3), name("group")
    places = [TopicPartition(made, index) for index in range(3)]
    admin.alter_group_offsets(group, {places[0]: 5, places[1]: types.Committed(6, "note")})
    found = admin.group_offsets([group, name("nobody")])
    assert {place: each.offset for place, each in found[group].items()} == {places[0]: 5, places[1]: 6}
    assert found[group][places[1]].metadata == "note"
    consumer = Consumer(settings, group)
    assert consumer.committed(places) == {places[0]: 5, places[1]: 6}
    consumer.close()
    admin.delete_group_offsets(group, [places[0]])
    assert set(admin.group_offsets([group])[group]) == {places[1]}
    assert group in {each.name for each in admin.groups()}
    assert admin.delete_groups([group]) == {group: None}
    assert group not in {each.name for each in admin.groups()}
    assert isinstance(admin.delete_groups([group])[group], errors.UnknownGroup)


def test_a_group_with_members_is_described_and_defends_its_offsets(
    admin: Admin, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(2), name("group")
    consumer = Consumer(settings, group)
    consumer.subscribe([made])
    assert eventually(lambda: not consumer.poll(1, 0.1) and len(consumer.assignment()) == 2)
    found = admin.describe_groups([group])[group]
    assert (found.state, found.kind) == ("Stable", types.GroupKind.CLASSIC)
    (member,) = found.members
    assert sorted(member.assignment) == [TopicPartition(made, 0), TopicPartition(made, 1)]
    assert (member.client_id, member.host, member.subscribed) == ("sluice", "127.0.0.1", (made,))
    with pytest.raises(errors.GroupNotEmpty):
        admin.alter_group_offsets(group, {TopicPartition(made, 0): 0})
    assert isinstance(admin.delete_groups([group])[group], errors.GroupNotEmpty)
    consumer.close()
    assert eventually(
        lambda: not (each := admin.describe_groups([group]).get(group)) or each.state in ("Empty", "Dead")
    )


def test_disks_tell_the_size_of_every_partition(admin: Admin, settings: Settings, topic: Callable[..., str]) -> None:
    made = topic(1)
    producer = Producer(settings)
    producer.send(made, b"x" * 100_000)
    producer.close()
    (folder,) = admin.log_dirs()
    assert folder.total > folder.usable > 0
    assert [size.size > 100_000 for size in folder.logs if size.origin == TopicPartition(made, 0)] == [True]


def test_a_well_disk_is_said_to_be_well(admin: Admin) -> None:
    (storage,) = admin.storage()
    assert storage.state is types.StorageState.OK
    assert (storage.reason, storage.since) == ("", 0)
    assert len(storage.paths) == 1


def test_quotas_are_set_and_removed(admin: Admin, name: Callable[[str], str]) -> None:
    entity = types.QuotaEntity(user=name("user"), client_id="")

    def limits() -> dict[str, float]:
        return {key: value for each in admin.quotas() if each.entity == entity for key, value in each.limits.items()}

    admin.alter_quota(entity, set={"producer_byte_rate": 1000, "consumer_byte_rate": 2000})
    assert eventually(lambda: limits() == {"producer_byte_rate": 1000.0, "consumer_byte_rate": 2000.0})
    admin.alter_quota(entity, remove=["producer_byte_rate", "consumer_byte_rate"])
    assert eventually(lambda: limits() == {})


def test_what_the_cluster_can_do_is_found_out(cluster: Node, settings: Settings) -> None:
    found = capabilities(settings)
    assert found.cluster_id
    assert found.brokers == 1
    assert found.consumer_groups
    assert found.share_groups
    assert found.acls
    assert found.quotas
    assert found.log_dirs
    assert found.transactions
    assert not found.broker_rates
    assert set(found.missing()) <= {"broker_rates", "authorization_summary", "share_dead_letters", "group_configs"}


def test_an_address_where_nobody_listens_is_named() -> None:
    with Admin(Settings(bootstrap="127.0.0.1:1"), timeout=0.5) as admin, pytest.raises(errors.Unreachable):
        admin.cluster()


CALLBACKS = """
import sys, time
from broker.client import Consumer, Producer, Settings, TopicPartition
settings, topic = Settings(bootstrap=sys.argv[1]), sys.argv[2]
told = []
often = {"statistics.interval.ms": 1, "stats_cb": lambda _: told.append(1)}
producer, finished = Producer(settings, overrides=often), []

def done(batch):
    time.sleep(0.05)  # more callbacks wait behind this one
    producer.flush(1.0)
    producer.poll()
    finished.append(batch)

for _ in range(2):
    batch = producer.batch(done)
    batch.send(topic, b"value")
    batch.seal()
while len(finished) < 2:
    producer.poll(0.1)
for _ in range(5):
    producer.poll(0.1)
consumer, given = Consumer(settings, topic + "-group", overrides=often), []

def assigned(partitions):
    consumer.add(dict.fromkeys(partitions, 0))
    consumer.pause(partitions)
    time.sleep(0.05)
    consumer.resume(partitions)
    given.extend(partitions)

consumer.subscribe([topic], assigned=assigned)
found, before = [], len(told)
while len(found) < 2:
    found += consumer.poll(10, 0.2)
assert given and len(told) > before
consumer.close()
producer.close()
print("survived")
"""


def test_callbacks_that_use_their_own_producer_or_consumer_do_not_end_the_process(
    cluster: Node, topic: Callable[..., str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLBACKS, cluster.bootstrap, topic(1)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "survived", done.stderr[-2000:]
