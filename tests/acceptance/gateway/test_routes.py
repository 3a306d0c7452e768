"""What routes do on the way in and out, on real ports: content rules, samples, and what a downlink keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.routes import Downlink, Uplink
from tests.acceptance.gateway.people import Operator, until
from tests.acceptance.gateway.stack import Neighbour, Stack
from tests.acceptance.mqtt.raw import Raw
from tests.fakes.mqtt_device import publish


@pytest.fixture
def other(running: Stack) -> Iterator[Neighbour]:
    neighbour = Neighbour(running, "neighbour")
    try:
        neighbour.gateway.start()
        yield neighbour
    finally:
        neighbour.gateway.kill()


def test_a_schema_and_a_share_are_kept_to_and_everything_is_acknowledged(running: Stack, operator: Operator) -> None:
    schema = {"type": "object", "required": ["t"], "properties": {"t": {"type": "number"}}}
    operator.route(
        Uplink(name="typed", filter="typed/+", topic="typed", schema=schema, headers={"from": "{client_id}"})
    )
    operator.route(Uplink(name="some", filter="some/#", topic="some", sample=0.5))
    device = Raw(running.port, "device")

    def in_force() -> bool:
        device.publish("typed/x", b"no JSON")
        return bool(operator.records("dlq.gateway"))

    assert until(in_force)
    device.publish("typed/x", b'{"t": 1.5}')
    device.publish("typed/x", b'{"t": "warm"}', qos=2)
    (typed,) = operator.records("typed")
    assert typed.value == b'{"t": 1.5}' and typed.text("from") == "device"
    dead = operator.records("dlq.gateway")
    assert {each.text("sluice.error.reason") for each in dead} == {"schema"}
    assert {each.value for each in dead} == {b"no JSON", b'{"t": "warm"}'}
    for start in range(1, 401, 50):
        device.send(*(publish("some/x", b"x", qos=1, packet_id=start + n, properties=b"") for n in range(50)))
        assert [device.next()[0] for _ in range(50)] == [0x40] * 50
    assert 100 < len(operator.records("some")) < 300, "about half of 400"
    device.vanish()


def test_what_a_downlink_retains_is_found_at_every_gateway_and_after_kill_9(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    operator.send("settings", b"0", b"k")  # the topic is made
    operator.route(Downlink(name="kept", topic="settings", mqtt_topic="set/{key}", client_id="", retain=True))

    def found(port: int, topic: str) -> list[bytes]:
        with Raw(port, f"reader-{port}") as reader:
            reader.subscribe((topic, 0))
            return [body[2 + len(topic) + 1 :] for first, body in reader.packets() if first == 0x31]

    assert until(lambda: not operator.send("settings", b"1", b"k") and found(running.port, "set/k") == [b"1"])
    for number in range(2, 40):
        operator.send("settings", b"%d" % number, b"k")
        operator.send("settings", b"%d" % number, b"other")
    for port in (running.port, other.port):
        assert until(lambda port=port: found(port, "set/k") == found(port, "set/other") == [b"39"])  # type: ignore[misc]  # per turn
    running.gateway.kill()
    operator.send("settings", b"40", b"k")  # whoever is left looks after it
    operator.send("settings", b"", b"other")
    assert until(lambda: found(other.port, "set/k") == [b"40"] and found(other.port, "set/other") == [])
    running.gateway.start()
    assert until(lambda: found(running.port, "set/k") == [b"40"] and found(running.port, "set/other") == [])
