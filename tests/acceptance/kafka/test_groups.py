"""Groups of the Python clients: sharing, rebalancing, resuming; static members; KIP-848."""

import asyncio
import threading
import time
from collections.abc import Callable

import aiokafka
import confluent_kafka
import kafka
import pytest

from broker.client import Admin, Consumer, Producer, Settings, TopicPartition, types
from tests.acceptance.kafka.conftest import Node

COUNT = 60


def fill(settings: Settings, topic: str, partitions: int, first: int = 0) -> None:
    producer = Producer(settings)
    batch = producer.batch(lambda _: None)
    for number in range(first, first + COUNT):
        batch.send(topic, b"%d" % number, partition=number % partitions)
    assert producer.flush(60) == 0
    assert batch.failures == []
    producer.close()


class Member(threading.Thread):
    """A confluent-kafka consumer in a thread: what it read and what it was assigned."""

    def __init__(self, bootstrap: str, group: str, *topics: str, **config: object) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self.held: set[tuple[str, int]] = set()
        self.error: Exception | None = None
        self._halt = threading.Event()
        self._topics = list(topics)
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                **config,
            }
        )

    def run(self) -> None:
        try:
            self._consumer.subscribe(self._topics)
            while not self._halt.is_set():
                for message in self._consumer.consume(100, 0.05):
                    if message.error() is not None:
                        raise confluent_kafka.KafkaException(message.error())
                    self.seen.append(int(message.value() or b""))
                    self._consumer.commit(message=message, asynchronous=False)
                self.held = {(each.topic, each.partition) for each in self._consumer.assignment()}
        except Exception as error:
            self.error = error
        finally:
            self._consumer.close()

    @property
    def assigned(self) -> set[int]:
        return {partition for _, partition in self.held}

    def leave(self) -> None:
        self._halt.set()
        self.join(60)
        assert self.error is None, self.error


def eventually(check: Callable[[], bool], what: Callable[[], object], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, what()
        time.sleep(0.03)


QUICK = {"heartbeat.interval.ms": 300, "session.timeout.ms": 10_000}
VARIANTS: dict[str, dict[str, object]] = {
    "range": {"partition.assignment.strategy": "range", **QUICK},
    "roundrobin": {"partition.assignment.strategy": "roundrobin", **QUICK},
    "cooperative-sticky": {"partition.assignment.strategy": "cooperative-sticky", **QUICK},
    "consumer": {"group.protocol": "consumer"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_members_share_the_partitions_and_one_takes_over_when_the_other_leaves(
    cluster: Node, settings: Settings, topic: Callable[..., str], name: Callable[[str], str], variant: str
) -> None:
    made, group = topic(4), name("group")
    fill(settings, made, 4)
    first, second = (Member(cluster.bootstrap, group, made, **VARIANTS[variant]) for _ in range(2))
    first.start()
    eventually(lambda: len(first.seen) == COUNT, lambda: first.seen)
    second.start()
    eventually(
        lambda: len(first.assigned) == 2 and len(second.assigned) == 2 and not first.assigned & second.assigned,
        lambda: (first.assigned, second.assigned, first.error, second.error),
    )
    fill(settings, made, 4, first=COUNT)
    eventually(lambda: len(first.seen) + len(second.seen) == 2 * COUNT, lambda: (first.seen, second.seen))
    first.leave()
    eventually(lambda: second.assigned == {0, 1, 2, 3}, lambda: second.assigned)
    fill(settings, made, 4, first=2 * COUNT)
    eventually(lambda: len(first.seen) + len(second.seen) == 3 * COUNT, lambda: second.seen)
    second.leave()
    assert sorted(first.seen + second.seen) == list(range(3 * COUNT))


@pytest.fixture
def quick_group(admin: Admin, name: Callable[[str], str]) -> str:
    """A group whose members ask twice a second what they are to read."""
    group = name("group")
    admin.alter_configs(
        types.ConfigResource(types.ConfigKind.GROUP, group), set={"consumer.heartbeat.interval.ms": "500"}
    )
    return group


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_the_server_assigns_as_its_members_ask(
    cluster: Node, admin: Admin, topic: Callable[..., str], quick_group: str, assignor: str
) -> None:
    """KIP-848: `range` gives each member the same partitions of every topic; the description names what is in use."""
    made, group = sorted((topic(4), topic(4))), quick_group
    members = [
        Member(cluster.bootstrap, group, *made, **{"group.protocol": "consumer", "group.remote.assignor": assignor})
        for _ in range(2)
    ]
    for member in members:
        member.start()
    eventually(
        lambda: all(len(member.held) == 4 for member in members) and len(members[0].held | members[1].held) == 8,
        lambda: [(member.held, member.error) for member in members],
    )
    if assignor == "range":
        for member in members:
            assert {index for each, index in member.held if each == made[0]} == member.assigned
    described = admin.describe_groups([group])[group]
    assert (described.state.lower(), described.assignor) == ("stable", assignor)
    told = [{(each.topic, each.partition) for each in member.assignment} for member in described.members]
    assert sorted(map(sorted, told)) == sorted(sorted(member.held) for member in members)
    for member in members:
        member.leave()


def test_a_group_goes_over_to_the_new_protocol_and_back_while_it_reads(
    cluster: Node, admin: Admin, settings: Settings, topic: Callable[..., str], quick_group: str
) -> None:
    """KIP-848: classic members and new ones share a group until the last of either kind has left."""
    made, group = topic(4), quick_group
    members: list[Member] = []

    def read(count: int) -> None:
        """Wait until so many records were read."""
        eventually(lambda: sum(len(each.seen) for each in members) == count, lambda: [each.seen for each in members])

    def joined(variant: str) -> Member:
        """A new member, once every member has its part."""
        member = Member(cluster.bootstrap, group, made, **VARIANTS[variant])
        staying = [*members[-1:], member]
        members.append(member)
        member.start()
        eventually(
            lambda: all(len(each.assigned) == 4 // len(staying) for each in staying),
            lambda: [(variant, each.assigned, each.error) for each in staying],
        )
        return member

    def alone(member: Member) -> None:
        eventually(lambda: member.assigned == {0, 1, 2, 3}, lambda: (member.assigned, member.error))

    for turn, variant in enumerate(("range", "consumer", "range")):
        member = joined(variant)
        fill(settings, made, 4, first=turn * COUNT)
        read((turn + 1) * COUNT)
        if turn:
            members[-2].leave()
            alone(member)
        kind = admin.describe_groups([group])[group].kind
        assert kind == (types.GroupKind.CONSUMER if variant == "consumer" else types.GroupKind.CLASSIC)
    members[-1].leave()
    assert sorted(number for each in members for number in each.seen) == list(range(3 * COUNT))


def test_a_static_member_keeps_its_partitions_over_a_restart(
    admin: Admin, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(2), name("group")
    member = Consumer(settings, group, instance="one", session_timeout=30)
    member.subscribe([made])
    eventually(lambda: not member.poll(1, 0.1) and len(member.assignment()) == 2, lambda: member.last_error)
    (before,) = admin.describe_groups([group])[group].members
    assert before.instance == "one"
    # a static member doesn't leave when it closes
    member.close()
    assert len(admin.describe_groups([group])[group].members) == 1
    again = Consumer(settings, group, instance="one", session_timeout=30)
    again.subscribe([made])
    eventually(lambda: not again.poll(1, 0.1) and len(again.assignment()) == 2, lambda: again.last_error)
    (after,) = admin.describe_groups([group])[group].members
    assert (after.instance, after.id != before.id) == ("one", True)
    again.close()
    admin.remove_members(group, [after.id])
    eventually(lambda: admin.describe_groups([group])[group].state == "Empty", lambda: admin.describe_groups([group]))


async def test_aiokafka_members_share_and_resume(
    cluster: Node, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(2), name("group")
    await asyncio.to_thread(fill, settings, made, 2)

    def member() -> aiokafka.AIOKafkaConsumer:
        return aiokafka.AIOKafkaConsumer(
            made,
            bootstrap_servers=cluster.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=300,
            metadata_max_age_ms=2000,
        )

    async def drain(consumer: aiokafka.AIOKafkaConsumer, into: list[int]) -> None:
        for batch in (await consumer.getmany(timeout_ms=100)).values():
            into += [int(record.value) for record in batch]
        await consumer.commit()

    first, second = member(), member()
    seen: list[int] = []
    await first.start()
    try:
        async with asyncio.timeout(120):
            while len(seen) < COUNT:
                await drain(first, seen)
        await second.start()
        try:
            async with asyncio.timeout(120):
                while len(first.assignment()) != 1 or len(second.assignment()) != 1:
                    await asyncio.gather(drain(first, seen), drain(second, seen))
        finally:
            await second.stop()
        assert sorted(seen) == list(range(COUNT))
    finally:
        await first.stop()
    await asyncio.to_thread(fill, settings, made, 2, COUNT)
    resumed = member()
    await resumed.start()
    try:
        async with asyncio.timeout(120):
            while len(seen) < 2 * COUNT:
                await drain(resumed, seen)
    finally:
        await resumed.stop()
    assert sorted(seen) == list(range(2 * COUNT))


def test_kafka_python_members_share_and_resume(
    cluster: Node, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(2), name("group")
    fill(settings, made, 2)

    def member() -> kafka.KafkaConsumer:
        return kafka.KafkaConsumer(
            made,
            bootstrap_servers=cluster.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=300,
            max_poll_records=20,
        )

    seen: list[int] = []

    def drain(consumer: kafka.KafkaConsumer, commit: bool = True) -> None:
        found = consumer.poll(timeout_ms=100)
        for batch in found.values():
            seen.extend(int(record.value) for record in batch)
        if found and commit:
            consumer.commit()

    first = member()
    eventually(lambda: drain(first) is None and len(seen) == COUNT, lambda: seen)
    halt = threading.Event()
    assigned: list[set[kafka.TopicPartition]] = [set()]

    def other() -> None:
        second = member()
        while not halt.is_set():
            drain(second)
            assigned[0] = set(second.assignment())
        second.close()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    eventually(
        lambda: drain(first) is None and len(first.assignment()) == 1 and len(assigned[0]) == 1,
        lambda: (first.assignment(), assigned),
    )
    halt.set()
    thread.join(60)
    first.close()
    fill(settings, made, 2, COUNT)
    resumed = member()
    eventually(lambda: drain(resumed) is None and len(seen) == 2 * COUNT, lambda: seen)
    resumed.close()
    assert sorted(seen) == list(range(2 * COUNT))


# Apache Kafka alone on one node leaves acknowledged data to the page cache, and takes long to return
@pytest.mark.parametrize("cluster", ["embedded"], indirect=True)
def test_offsets_and_records_are_there_after_the_broker_was_killed(
    cluster: Node, admin: Admin, settings: Settings, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    if cluster.name == "apache":
        pytest.skip(
            "Apache Kafka alone on one node leaves acknowledged data to the page cache and takes long to return"
        )
    made, group = topic(2), name("group")
    fill(settings, made, 2)
    # a member whose goodbye was lost in the crash is waited for no longer than its session
    first = Consumer(settings, group, session_timeout=6.0)
    first.subscribe([made])
    seen: list[bytes | None] = []
    eventually(lambda: len(seen) >= 40 or bool(seen.extend(r.value for r in first.poll(10, 0.1))), lambda: len(seen))
    first.commit(first.position(first.assignment()))
    committed = {place: each.offset for place, each in admin.group_offsets([group])[group].items()}
    cluster.kill()
    cluster.start()
    assert {place: each.offset for place, each in admin.group_offsets([group])[group].items()} == committed
    ends = admin.offsets([TopicPartition(made, 0), TopicPartition(made, 1)], types.At.LATEST)
    assert [ends[place].offset for place in sorted(ends)] == [COUNT // 2, COUNT // 2]
    first.close()
    again = Consumer(settings, group, session_timeout=6.0)
    again.subscribe([made])
    eventually(lambda: len(seen) >= COUNT or bool(seen.extend(r.value for r in again.poll(10, 0.1))), lambda: len(seen))
    again.close()
    assert sorted(int(value or b"") for value in seen) == list(range(COUNT))
