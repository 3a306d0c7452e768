"""What waits for devices that are away: in the store, through kills, within its bounds, and accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.client import TopicPartition
from gateway.contract import GATEWAY_KEY, GatewayStatus, Presence, decode
from gateway.routes import DISCARD, Downlink, Uplink
from tests.acceptance.gateway.people import Device5, Device311, Operator, operating, until
from tests.acceptance.gateway.stack import Stack
from tests.acceptance.gateway.test_sessions import restart, states

LARGE = b"x" * 3_000  # is referred to


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Stack]:
    """With room for few messages, and dead letters for those that expire."""
    stack = Stack(tmp_path, SLUICE_MQTT_EXPIRED="dead-letter", SLUICE_MQTT_QUEUE="5", SLUICE_MQTT_OVERFLOW="newest")
    try:
        yield stack.start()
    finally:
        stack.stop()


def counters(operator: Operator) -> dict[str, int]:
    """The newest that the gateway said of itself."""
    found: dict[str, int] = {}
    for record in operator.records("__sluice_presence"):
        if (record.key or b"").startswith(GATEWAY_KEY.encode()) and record.value:
            found = decode(GatewayStatus, record.value).counters
    return found


def away(operator: Operator, client_id: str) -> bool:
    """Whether the gateway has noticed that the device left."""
    told = [each.value for each in operator.records("__sluice_presence") if each.key == client_id.encode()]
    return bool(told) and not decode(Presence, told[-1] or b"{}").online


def publish_all(writer: Device311, topic: str, payloads: list[bytes]) -> None:
    infos = [writer.client.publish(topic, payload, qos=1) for payload in payloads]
    for info in infos:
        info.wait_for_publish(60)


def test_small_and_large_messages_wait_in_order_through_kill_9(running: Stack, operator: Operator) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k")
    keeper.close()
    wanted = [b"%d " % number + (LARGE if number % 7 == 0 else b"") for number in range(700)]
    publish_all(Device311(running, "writer"), "k", wanted[:400])
    time.sleep(2.5)  # a checkpoint, and the local copy: as it would be
    restart(running)
    publish_all(Device311(running, "writer"), "k", wanted[400:])
    keeper = Device311(running, "keeper", clean=False)
    assert until(lambda: len(keeper.received) >= 700)
    time.sleep(0.2)
    assert [payload for _, payload in keeper.received] == wanted
    keeper.close()

    def nothing_comes_again() -> bool:
        time.sleep(1.5)  # a checkpoint; what was finished after the last one comes once more
        restart(running)
        again = Device311(running, "keeper", clean=False)
        again.subscribe("done")
        assert again.session_present
        again.close()
        return again.received == []

    assert until(nothing_comes_again)


def test_a_payload_that_retention_took_is_counted_and_the_rest_arrives(running: Stack, operator: Operator) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k")
    keeper.close()
    publish_all(Device311(running, "writer"), "k", [b"before " + LARGE, b"small"])
    time.sleep(4.0)  # a checkpoint, and the local copy
    restart(running)  # what was read lately is forgotten
    with running.admin() as admin:
        partitions = admin.topics(["mqtt.messages"])["mqtt.messages"].partitions
        admin.delete_records({TopicPartition("mqtt.messages", each.index): -1 for each in partitions})
    publish_all(Device311(running, "writer"), "k", [b"after " + LARGE])
    keeper = Device311(running, "keeper", clean=False)
    assert until(lambda: len(keeper.received) >= 2)
    assert [payload for _, payload in keeper.received] == [b"small", b"after " + LARGE]
    assert until(lambda: counters(operator).get("undeliverable") == 1)
    assert b"are not in the log any more" in running.gateway.since_start()


def test_what_expires_or_finds_no_room_is_accounted_for(careful: Stack) -> None:
    with operating(careful) as operator:
        operator.send("commands", b"first", b"nobody")  # the topic is made
        operator.route(Downlink(name="down", topic="commands", mqtt_topic="cmd/{key}", qos=1, expiry=4))
        operator.route(Uplink(name="unimportant", filter="u/#", expired=DISCARD))
        late = Device5(careful, "late", clean=False, expiry=1000)
        late.subscribe("t", "u/#")
        assert until(lambda: not operator.send("commands", b"first", b"nobody") and states(operator)), "no route"
        late.close()
        assert until(lambda: away(operator, "late"))
        operator.send("commands", b"too late", b"late")
        soon: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        soon.MessageExpiryInterval = 4
        long: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        long.MessageExpiryInterval = 1000
        writer = Device5(careful, "writer", clean=True)
        writer.client.publish("u/1", b"expires quietly", qos=1, properties=soon).wait_for_publish(60)
        writer.client.publish("t", b"expires", qos=1, properties=soon).wait_for_publish(60)
        for number in range(4):
            writer.client.publish("t", b"%d" % number, qos=1, properties=long).wait_for_publish(60)
        time.sleep(5.5)
        late = Device5(careful, "late", clean=False, expiry=1000)
        assert until(lambda: len(late.received) >= 2)
        time.sleep(0.3)
        taken = [message for message in late.messages if message.topic == "t"]
        assert [message.payload for message in taken] == [b"0", b"1"]  # five had room
        assert all(message.properties.MessageExpiryInterval <= 998 for message in taken)  # type: ignore[union-attr]  # 5
        assert late.received == [("t", b"0"), ("t", b"1")]
        assert until(lambda: {b"expires", b"too late"} <= {each.value for each in operator.records("dlq.gateway")})
        letters = {each.value: each for each in operator.records("dlq.gateway")}
        assert letters[b"expires"].text("sluice.error.reason") == "expired"
        assert letters[b"expires"].text("sluice.origin.topic") == "mqtt.messages"
        assert "late" in str(letters[b"expires"].text("sluice.error.detail"))
        assert until(lambda: "expired" in states(operator).values())
        assert b"expires quietly" not in letters, "its route says so"

        def counted() -> bool:
            found = counters(operator)
            return (found.get("expired"), found.get("expired_kept"), found.get("dropped_full")) == (3, 2, 2)

        assert until(counted), counters(operator)


def test_a_gateway_stops_by_itself_while_the_broker_is_away(running: Stack, operator: Operator) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k", qos=2)
    writer = Device311(running, "writer", clean=False)
    writer.publish("k", b"acknowledged")
    running.broker.kill()
    pending = [writer.client.publish("k", b"%d" % number, qos=1 + number % 2) for number in range(20)]
    time.sleep(1.5)
    assert not any(each.is_published() for each in pending)
    assert running.gateway.stop(timeout=60) == 0
    assert not any(each.is_published() for each in pending)
    assert b"Traceback" not in running.gateway.since_start()
    running.start()
    assert b"acknowledged" in {each.value for each in operator.records("mqtt.messages")}
