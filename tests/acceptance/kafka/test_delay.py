"""The delay service on both clusters: on time, once, visible, through kills of either side."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from broker.client import Admin, ClientError, Consumer, Producer, Settings, TopicPartition
from broker.client.administration.types import Acl, AclFilter, At, Operation, Pattern, Permission, ResourceType
from broker.client.delaying import DELAY_DEAD_LETTERS, DELAY_TOPIC, PRINCIPAL
from broker.client.delays import Delays
from broker.client.records import Record
from tests.acceptance.kafka.conftest import Node
from tests.acceptance.kafka.delay_service import DelayService

Topic = Callable[..., str]


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, DelayService]]:
    """One per cluster, started by the first test that wants it; a test may kill it."""
    running: dict[str, DelayService] = {}
    yield running
    for service in running.values():
        service.stop()
        shutil.rmtree(service.folder, ignore_errors=True)


@pytest.fixture
def service(cluster: Node, services: dict[str, DelayService]) -> DelayService:
    found = services.get(cluster.bootstrap)
    if found is None:
        found = services[cluster.bootstrap] = DelayService(cluster.bootstrap)
    if not found.running:
        found.start()
    return found.wait_ready()


@pytest.fixture
def delays(settings: Settings) -> Iterator[Delays]:
    with Delays(settings, timeout=60.0) as opened:
        yield opened


class Watcher:
    """Reads topics from here on, committed records only, and notes when each was seen (epoch milliseconds)."""

    def __init__(self, settings: Settings, admin: Admin, *topics: str) -> None:
        found = admin.topics(topics)
        places = [TopicPartition(name, each.index) for name, topic in found.items() for each in topic.partitions]
        ends = admin.offsets(places, At.LATEST)
        self._consumer = Consumer(settings, fetch_wait=0.05)
        self._consumer.assign({place: end.offset for place, end in ends.items()})
        self.seen: list[tuple[Record, float]] = []

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def until(self, count: int, timeout: float = 120.0) -> list[Record]:
        """What was seen once there are so many; fewer at the deadline."""
        deadline = time.monotonic() + timeout
        while len(self.seen) < count and time.monotonic() < deadline:
            self.read(0.05)
        return [record for record, _ in self.seen]

    def read(self, timeout: float) -> None:
        try:
            records = self._consumer.poll(1, timeout)
            records += self._consumer.poll(1000, 0.0)
        except ClientError:  # the cluster is down: that is what some tests are about
            return
        now = time.time() * 1000
        self.seen += [(record, now) for record in records]


def pending(delays: Delays, count: int) -> None:
    """So many deliveries are pending, once the service has counted what it has just written."""
    deadline = time.monotonic() + 60
    while delays.counts().pending != count:
        assert time.monotonic() < deadline, delays.counts()
        time.sleep(0.02)


def origin(record: Record) -> tuple[str | None, ...]:
    return tuple(record.text(f"sluice.origin.{name}") for name in ("topic", "partition", "offset"))


def test_a_record_reaches_its_topic_at_its_time_as_it_was_sent(
    service: DelayService, delays: Delays, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic(2)
    with Watcher(settings, admin, target) as watcher:
        due = int(time.time() * 1000) + 700
        sent = delays.deliver(target, b"later", at=due, key=b"k", id="one", headers=[("x", b"1"), ("x", None)])
        delays.deliver(target, None, after="0s", key=b"null")
        delays.deliver(target, b"past", at=1)
        first, second, third = sorted(watcher.until(3), key=lambda record: record.value == b"later")
    assert {(first.key, first.value), (second.key, second.value)} == {(b"null", None), (None, b"past")}
    assert (third.key, third.value) == (b"k", b"later")
    assert third.headers[:3] == (("x", b"1"), ("x", None), ("sluice.message.id", b"one"))
    assert origin(third) == (DELAY_TOPIC, str(sent.partition), str(sent.offset))
    assert not any(name.startswith("sluice.deliver.") for name, _ in third.headers)
    assert next(at for record, at in watcher.seen if record is third) >= due


def test_it_tells_whether_it_serves_and_lets_no_other_use_its_folder(service: DelayService, delays: Delays) -> None:
    def got(path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://{service.http}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()

    assert got("/healthz") == (200, '{"status": "ok", "reasons": {}}\n')
    assert 'sluice_delay_pending{partition="0",horizon="hour"} 0' in got("/metrics")[1]
    twin = DelayService(service.bootstrap)
    shutil.rmtree(twin.folder)
    twin.folder, twin.log = service.folder, service.folder / "twin.log"
    assert twin.start().wait() == 1
    assert "is in use by another delay service" in twin.log.read_text()


def test_what_makes_no_sense_is_a_dead_letter_that_says_why(
    service: DelayService, delays: Delays, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic()
    small = topic(max_message_bytes="600")
    with Watcher(settings, admin, DELAY_DEAD_LETTERS, small) as watcher:
        wishes: list[tuple[dict[str, str], str]] = [
            ({"topic": target, "after": "-3s"}, "time"),
            ({"topic": target, "after": "31d"}, "time"),
            ({"topic": target, "after": "soon"}, "time"),
            ({"topic": target, "at": "-1"}, "time"),
            ({"topic": target, "at": "NaN"}, "time"),
            ({"topic": target, "at": "99999999999999999999"}, "time"),
            ({"topic": target}, "time"),
            ({"topic": target, "at": "1", "after": "1s"}, "time"),
            ({"after": "1s"}, "target"),
            ({"topic": "__consumer_offsets", "after": "1s"}, "target"),
            ({"topic": DELAY_TOPIC, "after": "1s"}, "target"),
            ({"topic": "no/topic", "after": "1s"}, "target"),
            ({"topic": "nobody-made-this", "after": "10ms"}, "target"),
            ({"topic": small, "after": "10ms"}, "size"),
            ({"cancel": ""}, "cancel"),
            ({"cancel.row": "-1"}, "cancel"),
            ({"cancel.row": "first"}, "cancel"),
            ({"topic": "", "after": "1s"}, "target"),
            ({"topic": target, "after": ""}, "time"),
            ({"topic": target, "at": "\udcff"}, "time"),
        ]
        producer = Producer(settings)
        for number, (headers, _) in enumerate(wishes):
            value = b"%d" % number + b"." * 800
            producer.send(
                DELAY_TOPIC,
                value,
                None,
                [(f"sluice.deliver.{n}", v.encode("utf-8", "surrogateescape")) for n, v in headers.items()],
            )
        delays.deliver(small, b"small enough", after="10ms")
        found = watcher.until(len(wishes) + 1)
    said = [(record.topic, (record.value or b"")[:20], record.text("sluice.error.detail")) for record in found]
    assert [record.value for record in found if record.topic == small] == [b"small enough"], said
    letters = {int((record.value or b"").split(b".")[0]): record for record in found if record.topic != small}
    reasons = {number: record.text("sluice.error.reason") for number, record in letters.items()}
    assert reasons == {number: reason for number, (_, reason) in enumerate(wishes)}
    assert all(record.text("sluice.error.detail") and origin(record)[0] == DELAY_TOPIC for record in letters.values())
    assert letters[13].text("sluice.deliver.topic") == small  # so that it can be sent again
    pending(delays, 0)
    assert delays.counts().since["refused"] >= len(wishes)


def test_a_pending_delivery_is_listed_and_taken_back_and_a_late_cancellation_is_seen(
    service: DelayService, delays: Delays, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target, other = topic(), topic()
    with Watcher(settings, admin, target, DELAY_DEAD_LETTERS) as watcher:
        for number in range(20):
            delays.deliver(target, b"%d" % number, after="20d", key=b"key", id=f"id-{number}")
        delays.deliver(other, b"other", after="2h", key=b"other")
        pending(delays, 21)
        assert delays.counts().horizons["day"] == 1 and delays.counts().horizons["month"] == 20
        page = delays.page(target=target, limit=15)
        rest = delays.page(target=target, limit=15, after=page.rows[-1].place)
        assert [each.id for each in (*page.rows, *rest.rows)] == [f"id-{number}" for number in range(20)]
        assert page.more and not rest.more and not page.unknown
        assert [each.id for each in delays.page(key=b"key", id="id-7").rows] == ["id-7"]
        (lone,) = delays.page(target=other).rows
        assert delays.cancel_row(lone.partition, lone.row).count == 1
        assert delays.cancel(b"key", "id-7").count == 1
        assert delays.cancel(b"key", "id-7").count == 0
        assert delays.cancel(b"else", "id-8").count == 0
        letters = watcher.until(2)
        assert [record.text("sluice.error.reason") for record in letters] == ["cancel", "cancel"]
        for number in range(20):
            if number != 7:
                assert delays.cancel(b"key", f"id-{number}").count == 1
        pending(delays, 0)
        assert len(watcher.seen) == 2


def test_once_there_are_acls_only_topics_opened_to_the_service_are_delivered_to(
    service: DelayService, delays: Delays, settings: Settings, admin: Admin, topic: Topic
) -> None:
    opened, closed = topic(), topic()
    rule = Acl(
        resource=ResourceType.TOPIC,
        name=opened,
        pattern=Pattern.LITERAL,
        principal=PRINCIPAL,
        host="*",
        operation=Operation.WRITE,
        permission=Permission.ALLOW,
    )
    try:
        admin.create_acls([rule])
    except ClientError as error:
        pytest.skip(f"this cluster has no ACLs: {error}")
    try:
        with Watcher(settings, admin, opened, closed, DELAY_DEAD_LETTERS) as watcher:
            deadline, before = time.monotonic() + 120, 0
            while not any(record.topic == DELAY_DEAD_LETTERS for record, _ in watcher.seen):
                assert time.monotonic() < deadline, "the rule was not heeded"
                delays.deliver(closed, b"no", after="0s")  # until the service has heard of the rule
                before += 1
                watcher.until(before)
            delays.deliver(opened, b"yes", after="0s")
            delays.deliver(closed, b"no", after="0s")
            found = watcher.until(before + 2)[before:]
            by_topic = {record.topic: record for record in found}
            assert by_topic[opened].value == b"yes"
            assert by_topic[DELAY_DEAD_LETTERS].text("sluice.error.reason") == "denied"
    finally:
        admin.delete_acls([AclFilter(resource=ResourceType.TOPIC, name=opened, principal=PRINCIPAL)])
    with Watcher(settings, admin, closed, DELAY_DEAD_LETTERS) as watcher:  # without a rule everything is open again
        deadline, asked = time.monotonic() + 120, 0
        while not any(record.topic == closed for record, _ in watcher.seen):
            assert time.monotonic() < deadline, "the rule's end was not heeded"
            delays.deliver(closed, b"yes", after="0s")
            asked += 1
            watcher.until(asked)  # nothing of it is left for who comes after


def fill(settings: Settings, target: str, count: int, seconds: float) -> dict[bytes, int]:
    """Ask for `count` deliveries over the next seconds; id → when it is due."""
    start = int(time.time() * 1000) + 500
    wanted = {b"%d" % number: start + int(number * seconds * 1000 / count) for number in range(count)}
    producer = Producer(settings, linger_ms=5, delivery_timeout=60)
    failed = producer.send_many(
        (DELAY_TOPIC, value, value, [("sluice.deliver.topic", target.encode()), ("sluice.deliver.at", b"%d" % due)])
        for value, due in wanted.items()
    )
    assert not failed
    return wanted


def each_once(watcher: Watcher, wanted: dict[bytes, int]) -> None:
    watcher.until(len(wanted), timeout=180)
    for _ in range(5):
        watcher.read(0.1)  # a second copy would follow
    found = Counter(record.value for record, _ in watcher.seen)
    assert {value: count for value, count in found.items() if count > 1} == {}
    assert wanted.keys() - found.keys() == set()
    assert [record.value for record, at in watcher.seen if at < wanted[record.value or b""]] == []


def test_a_service_killed_in_mid_firing_delivers_each_once_even_if_its_files_are_lost(
    service: DelayService, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic(3)
    with Watcher(settings, admin, target) as watcher:
        wanted = fill(settings, target, 2000, 2.5)
        for number in range(4):
            watcher.until(400 * (number + 1))
            service.kill()
            if number == 2:
                for file in (service.folder / "delay").glob("pending-*"):
                    file.unlink()
            service.start()
        each_once(watcher, wanted)


def test_a_broker_killed_in_mid_firing_has_each_delivered_once(
    cluster: Node, service: DelayService, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic(3)
    with Watcher(settings, admin, target) as watcher:
        wanted = fill(settings, target, 1500, 2.0)
        watcher.until(500)
        cluster.kill()
        starting = threading.Thread(target=cluster.start)
        starting.start()
        starting.join()
        each_once(watcher, wanted)


def test_a_second_service_takes_over_from_one_that_stops(
    cluster: Node, service: DelayService, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic()
    second = DelayService(cluster.bootstrap).start()
    try:
        with Watcher(settings, admin, target) as watcher:
            wanted = fill(settings, target, 1500, 2.5)
            watcher.until(400)
            service.stop()
            each_once(watcher, wanted)
    finally:
        second.stop()
        shutil.rmtree(second.folder, ignore_errors=True)


@pytest.mark.torture
def test_the_partitions_of_a_service_that_never_comes_back_are_taken_over(
    cluster: Node, service: DelayService, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic()
    second = DelayService(cluster.bootstrap).start()
    try:
        with Watcher(settings, admin, target) as watcher:
            wanted = fill(settings, target, 3000, 6.0)
            watcher.until(800)
            service.kill()
            each_once(watcher, wanted)
    finally:
        second.stop()
        shutil.rmtree(second.folder, ignore_errors=True)


@pytest.mark.torture
def test_an_owner_that_was_only_stopped_writes_nothing_when_it_wakes(
    cluster: Node, service: DelayService, settings: Settings, admin: Admin, topic: Topic
) -> None:
    target = topic()
    second = DelayService(cluster.bootstrap).start()
    try:
        with Watcher(settings, admin, target) as watcher:
            wanted = fill(settings, target, 3000, 6.0)
            watcher.until(800)
            service.signal(signal.SIGSTOP)
            watcher.until(3000)  # the other one has them all
            service.signal(signal.SIGCONT)
            for _ in range(100):
                watcher.read(0.1)
            each_once(watcher, wanted)
    finally:
        second.stop()
        shutil.rmtree(second.folder, ignore_errors=True)
