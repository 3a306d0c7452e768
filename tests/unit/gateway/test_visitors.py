"""Publishing without a session: by which name, under which rights, with which outcome."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from broker.client.errors import ClusterError, TimedOut
from gateway import contract, passwords
from gateway.config import Settings
from gateway.contract import BANS, DEVICES, POLICIES, ROUTES, Ban, Device, DeviceLimits
from gateway.counters import Counters
from gateway.http.port import Publication, Visitor
from gateway.identity.authentication import Authenticator
from gateway.policy import Policy
from gateway.ports import ConnectRequest, Fate, Identity, NotAcknowledged, PublishProperties, Receipt, Refused
from gateway.publishing.uplinks import Uplinks
from gateway.receipts import wait
from gateway.registry import Registry
from gateway.routes import Uplink
from gateway.storage.ticks import STALLED, Ticks
from gateway.visiting.allowances import Allowances
from gateway.visiting.visitors import Visitors
from tests.unit.gateway.parts import FakeLoop, FakeProducer, request


class Somebody:
    """A verifier that believes whatever name a token holds."""

    async def verify(self, asked: ConnectRequest) -> Identity | None:
        token = (asked.password or b"").decode()
        return Identity(name=token.split(".")[1]) if token.count(".") == 2 else None


class Bench:
    plugins = None

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoch = 0
        self.registry = Registry()
        self.counters = Counters()
        self.loop = FakeLoop()
        self.producer = FakeProducer()
        self.lease = True
        self.ticks = Ticks(
            lambda: self.producer,  # type: ignore[arg-type, return-value]  # fake
            lambda tick, failure: self.uplinks.refused(tick, failure),
            loop=self.loop,  # type: ignore[arg-type]  # fake
            congestion=lambda congested: None,
            clock=lambda: self.loop.time(),
        )
        self.uplinks = Uplinks(
            lambda: self.ticks,
            lambda: None,  # type: ignore[arg-type, return-value]  # no QoS 2 here
            self.registry,
            self.counters,
            clock=lambda: self.now,
            wrote=lambda topic: None,
        )
        settings = Settings.from_env({"SLUICE_MQTT_LISTENERS": "mqtt://127.0.0.1:1883"})
        self.executor = ThreadPoolExecutor(1)
        authenticator = Authenticator(
            settings,
            self.registry,
            self.counters,
            clock=lambda: self.now,
            executor=self.executor,
            verifiers=[Somebody()],
        )
        self.authenticate = authenticator.authenticate
        self.visitors = Visitors(self, ticks=lambda: self.ticks, held=lambda: self.lease, clock=lambda: self.now)

    def put(self, topic: str, key: str, record: Any) -> None:
        self.registry.apply(topic, key.encode(), contract.encode(record))
        self.epoch += 1

    def device(self, name: str, **options: Any) -> bytes:
        secret, credential = passwords.generate()
        self.put(DEVICES, name, Device(name=name, credentials=(credential,), **options))
        return secret.encode()

    async def visit(self, username: str | None = None, password: bytes | None = None, **more: Any) -> Visitor:
        found = await wait(self.visitors.visit(request("", username, password, **more)))
        assert found is not None
        return found

    async def refused(self, *arguments: Any, **more: Any) -> int:
        with pytest.raises(Refused) as caught:
            await self.visit(*arguments, **more)
        return caught.value.code

    def publish(self, visitor: Visitor, topic: str, payload: bytes = b"x", **more: Any) -> Receipt[Fate]:
        return self.visitors.publish(visitor, Publication(topic=topic, **more), payload)

    def stored(self, *failures: Any) -> None:
        """The turn ends, the log answers; then whatever that led to."""
        for told in (failures, ()):
            self.loop.turn()
            for batch in list(self.producer.batches):
                if batch.sealed and not batch.finished:
                    batch.finish(*told)

    def records(self) -> list[tuple[str, bytes | None, bytes | None, dict[str, Any]]]:
        found = [record for batch in self.producer.batches for record in batch.records]
        return [(topic, value, key, dict(headers or ())) for topic, value, key, headers in found]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_visitor_is_named_as_the_device_would_be(bench: Bench) -> None:
    secret, bound = bench.device("d1"), bench.device("d2", client_id="meter-2")
    bench.put(DEVICES, "d3", Device(name="d3", subject="meter-3.example", client_id="meter-3"))
    assert (await bench.visit("d1", secret)).client_id == "d1"
    assert (await bench.visit("d2", bound)).client_id == "meter-2"
    assert (await bench.visit(subject="meter-3.example")).client_id == "meter-3"
    assert (await bench.visit()).client_id == "$http"
    token = await bench.visit(None, b"a.app.c")
    assert (token.client_id, token.identity.name) == ("app", "app")


async def test_a_name_that_is_not_known_or_not_welcome_is_refused(bench: Bench) -> None:
    secret = bench.device("d1")
    bench.device("d2", client_id="app")
    disabled = bench.device("off", enabled=False)
    assert await bench.refused("d1", b"wrong") == 0x86
    assert await bench.refused("nobody", secret) == 0x86
    assert await bench.refused("off", disabled) == 0x87
    assert await bench.refused(None, b"a.off.c") == 0x87, "disabled is disabled, whoever vouches"
    assert await bench.refused(None, b"a.app.c") == 0x85, "its name is the client id of another device"
    assert await bench.refused("app", b"a.app.c") == 0x85


@pytest.mark.parametrize(
    "ban", [Ban(kind="user", value="app"), Ban(kind="client", value="app")], ids=lambda ban: ban.kind
)
async def test_who_is_banned_is_so_under_the_name_that_a_token_says(bench: Bench, ban: Ban) -> None:
    await bench.visit(None, b"a.app.c")
    bench.put(BANS, ban.key, ban)
    assert await bench.refused(None, b"a.app.c") == 0x8A
    assert (await bench.visit(None, b"a.other.c")).client_id == "other"


async def test_others_wrong_guesses_from_the_same_address_keep_no_token_out(bench: Bench) -> None:
    for _ in range(20):
        assert await bench.refused(None, b"guess") in (0x86, 0x9F)
    assert await bench.refused(None, b"guess") == 0x9F
    assert (await bench.visit(None, b"a.app.c")).client_id == "app"


async def test_a_change_of_anything_ends_a_visit(bench: Bench) -> None:
    secret = bench.device("d1")
    visitor = await bench.visit("d1", secret)
    assert bench.visitors.still_holds(visitor)
    bench.put(POLICIES, "p", Policy(name="p"))
    assert not bench.visitors.still_holds(visitor)
    visitor = await bench.visit("d1", secret)
    visitor.identity = replace(visitor.identity, expires_at=bench.now + 1)
    assert bench.visitors.still_holds(visitor)
    bench.now += 2
    assert not bench.visitors.still_holds(visitor)


async def test_a_message_is_the_record_that_a_publish_makes(bench: Bench) -> None:
    visitor = await bench.visit("d1", bench.device("d1"))
    receipt = bench.publish(
        visitor, "a/b", b"21.5", retain=True, properties=PublishProperties(content_type="text/plain")
    )
    bench.loop.turn()
    assert not receipt.settled
    bench.stored()
    assert receipt.value == Fate()
    (topic, value, key, headers), retained = bench.records()
    assert (topic, value, key) == ("mqtt.messages", b"21.5", b"d1")
    assert headers == {
        "mqtt.topic": b"a/b",
        "mqtt.client.id": b"d1",
        "mqtt.username": b"d1",
        "mqtt.qos": b"1",
        "mqtt.retain": b"1",
        "mqtt.content.type": "text/plain",
    }
    assert (retained[0], retained[2]) == ("__sluice_retained", b"a/b")


async def test_what_a_policy_does_not_allow_is_refused_and_counted(bench: Bench) -> None:
    secret = bench.device("d1", policies=("up",))
    bench.put(POLICIES, "up", Policy(name="up", publish=("up/%c/#",)))
    visitor = await bench.visit("d1", secret)
    for topic, code in (("down", 0x87), ("up/d2/x", 0x87), ("$delayed/5/down", 0x87), ("$delayed/x/up/d1/x", 0x90)):
        failure = bench.publish(visitor, topic).failure
        assert isinstance(failure, Refused) and failure.code == code, topic
    bench.publish(visitor, "up/d1/x")
    bench.publish(visitor, "$delayed/5/up/d1/y")
    bench.stored()
    assert [(topic, value) for topic, value, _, _ in bench.records()] == [
        ("mqtt.messages", b"x"),
        ("sluice.delay", b"x"),
    ]
    assert bench.counters.denied == 4


async def test_a_repetition_waits_for_the_first_and_says_so(bench: Bench) -> None:
    bench.put(ROUTES, "r", Uplink(name="r", filter="orders/#", topic="orders", deduplicate=60.0))
    visitor, twin = await bench.visit(), await bench.visit()
    own = {"message_id": "7", "properties": PublishProperties(user=(("sluice.message.id", "7"),))}
    first = bench.publish(visitor, "orders/1", **own)
    bench.loop.turn()
    second = bench.publish(twin, "orders/1", b"again", **own)
    bench.loop.turn()
    assert not second.settled, "the first is not durable yet"
    bench.stored()
    assert first.value == Fate(window=60.0) and second.value == Fate(duplicate=True, window=60.0)
    assert [value for _, value, _, _ in bench.records()] == [b"x"]


async def test_what_a_route_refuses_is_a_dead_letter_and_said_to_be_one(bench: Bench) -> None:
    bench.put(ROUTES, "r", Uplink(name="r", filter="json/#", json_only=True))
    bench.put(ROUTES, "s", Uplink(name="s", filter="some/#", sample=0.0))
    visitor = await bench.visit()
    refused, sampled = bench.publish(visitor, "json/1", b"{"), bench.publish(visitor, "some/1")
    bench.stored()
    assert refused.value is not None and (refused.value.outcome, refused.value.reason) == ("dead-letter", "schema")
    assert sampled.value is not None and sampled.value.outcome == "sampled-out"
    assert [topic for topic, *_ in bench.records()] == ["dlq.gateway"]


async def test_what_the_log_refuses_is_a_dead_letter_too(bench: Bench) -> None:
    receipt = bench.publish(await bench.visit(), "a", b"too large for the log")
    bench.stored((0, ClusterError(10, "MESSAGE_TOO_LARGE")))
    assert receipt.value is not None and (receipt.value.outcome, receipt.value.reason) == ("dead-letter", "rejected")
    assert bench.records()[-1][0] == "dlq.gateway"


async def test_an_outcome_that_nobody_knows_is_no_success_for_the_one_it_concerns(bench: Bench) -> None:
    one, two = await bench.visit(), await bench.visit()
    mine, other = bench.publish(one, "a", b"mine"), bench.publish(two, "a", b"other")
    bench.stored((0, TimedOut("no answer")))
    assert isinstance(mine.failure, NotAcknowledged)
    assert other.value == Fate()


async def test_nothing_is_taken_while_it_could_not_be_stored(bench: Bench) -> None:
    visitor = await bench.visit()
    assert bench.visitors.available
    bench.lease = False
    failure = bench.publish(visitor, "a").failure
    assert isinstance(failure, Refused) and failure.code == 0x88 and not bench.visitors.available
    bench.lease = True
    waiting = bench.publish(visitor, "a", b"waits")
    bench.loop.turn()
    bench.loop.time = lambda: STALLED + 1  # type: ignore[method-assign]  # the broker says nothing
    for qos in (0, 1):
        failure = bench.publish(visitor, "a", b"late", qos=qos).failure
        assert isinstance(failure, Refused) and failure.code == 0x88
    bench.stored()
    assert waiting.value == Fate() and [value for _, value, _, _ in bench.records()] == [b"waits"]


async def test_quality_0_waits_for_nothing(bench: Bench) -> None:
    assert bench.publish(await bench.visit(), "a", qos=0).value == Fate(outcome="accepted")


async def test_a_devices_rate_holds_over_all_its_connections(bench: Bench) -> None:
    secret = bench.device("d1", limits=DeviceLimits(messages_rate=2.0, in_flight=3))
    outcomes = [bench.publish(await bench.visit("d1", secret), "a") for _ in range(3)]
    assert [each.failure is None for each in outcomes] == [True, True, False]
    failure = outcomes[2].failure
    assert isinstance(failure, Refused) and failure.code == 0x96 and failure.after == pytest.approx(0.5)
    bench.now += 0.5
    assert bench.publish(await bench.visit("d1", secret), "a").failure is None
    bench.now += 1
    failure = bench.publish(await bench.visit("d1", secret), "a").failure
    assert isinstance(failure, Refused) and failure.code == 0x97, "three are under way"
    bench.stored()
    assert bench.publish(await bench.visit("d1", secret), "a").failure is None


def test_a_large_message_may_overdraw_the_bytes_once() -> None:
    limits = replace(Identity(name="").limits, bytes_rate=100.0)
    allowances = Allowances(most=3)
    allowances.take("d", limits, 300, 0.0)
    with pytest.raises(Refused) as caught:
        allowances.take("d", limits, 1, 1.0)
    assert caught.value.after == pytest.approx(1.0)
    allowances.take("d", limits, 1, 2.0)
    for number in range(10):
        allowances.take(f"n{number}", limits, 1, 2.0)
    assert len(allowances) == 3
