"""`$delayed/<seconds>/<topic>`: acknowledged when stored, asked about as the inner topic is, received at its time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from broker.client.delaying import DELAY_TOPIC
from broker.client.delays import Delays
from gateway.routes import Uplink
from tests.acceptance.gateway.people import Device5, Operator, until
from tests.acceptance.gateway.stack import Process, Stack


@pytest.fixture
def delay(running: Stack) -> Iterator[Process]:
    process = Process("broker.delay", running.folder, running.environ)
    process.start()
    try:
        yield process
    finally:
        process.kill()


def codes_of(device: Device5) -> list[int]:
    codes: list[int] = []
    device.client.on_publish = lambda _, __, ___, reason, ____: codes.append(reason.value)
    return codes


def test_a_delayed_message_is_received_at_its_time_and_not_before_even_if_all_is_killed_meanwhile(
    running: Stack, operator: Operator, delay: Process
) -> None:
    listener, device = Device5(running, "listener"), Device5(running, "five")
    listener.subscribe("plant/#")
    codes = codes_of(device)
    began = time.time()
    device.publish("$delayed/3/plant/later", b"later", qos=1)
    device.publish("$delayed/3/plant/twice", b"twice", qos=2)
    device.publish("$delayed/0/plant/now", b"now", qos=1)
    assert until(lambda: len(codes) == 3) and max(codes) < 0x80, codes
    assert until(lambda: listener.received == [("plant/now", b"now")]), listener.received
    for process in (delay, running.gateway, running.broker):
        process.kill()
    running.broker.start()
    running.gateway.start()
    delay.start()
    again = Device5(running, "again")
    again.subscribe("plant/#")
    assert until(lambda: len(again.received) == 2), again.received
    assert time.time() - began >= 3
    assert sorted(again.received) == [("plant/later", b"later"), ("plant/twice", b"twice")]
    time.sleep(0.3)  # a second copy would follow
    records = {record.value: record for record in operator.records("mqtt.messages")}
    assert len(operator.records("mqtt.messages")) == 3
    later = records[b"later"]
    assert (later.key, later.text("mqtt.topic"), later.text("mqtt.client.id")) == (b"five", "plant/later", "five")
    assert later.text("sluice.origin.topic") == DELAY_TOPIC
    assert not any(name.startswith("sluice.deliver.") for name, _ in later.headers)


def test_the_inner_topics_policy_and_route_decide(running: Stack, operator: Operator, delay: Process) -> None:
    operator.policy("all", publish=("open/#",), subscribe=("#",), everyone=True)
    operator.route(Uplink(name="r", filter="open/+/x", topic="routed.{1}", key="{payload.id}"))
    device = Device5(running, "five")
    codes = codes_of(device)

    def published(topic: str) -> int:
        before = len(codes)
        device.publish(topic, b'{"id": "7"}', qos=1)
        assert until(lambda: len(codes) > before)
        return codes[-1]

    assert until(lambda: published("$delayed/1/closed/x") == 0x87)  # once the policy is in force
    assert published("$delayed/1/$SYS/x") == 0x87
    for bad in ("$delayed/soon/open/x", "$delayed/-1/open/x", "$delayed/2592001/open/x", "$delayed/1", "$delayed/1/"):
        assert published(bad) == 0x90, bad
    assert published("$delayed/2592000/open/far/y") < 0x80
    assert published("$other/1/open/x") == 0x87
    assert published("$delayed/1/open/near/x") < 0x80
    assert until(lambda: [record.key for record in operator.records("routed.near")] == [b"7"])
    with Delays(running.cluster) as delays:
        (far,) = delays.page().rows
    assert (far.target, far.key) == ("mqtt.messages", b"five")
    asked = operator.records(DELAY_TOPIC)
    assert sorted(record.text("mqtt.topic") or "" for record in asked) == ["open/far/y", "open/near/x"]
