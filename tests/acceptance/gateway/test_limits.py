"""What one device may use, as its record says: told to it where MQTT 5 can tell, and enforced."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gateway.contract import DeviceLimits
from tests.acceptance.gateway.people import Operator, until
from tests.acceptance.gateway.stack import Neighbour, Stack
from tests.acceptance.mqtt.raw import Raw
from tests.fakes.mqtt_device import publish

EXPIRY = b"\x11\x00\x00\x03\x84"
NEVER = b"\x11\xff\xff\xff\xff"


@pytest.fixture
def other(running: Stack) -> Iterator[Neighbour]:
    neighbour = Neighbour(running, "neighbour", SLUICE_MQTT_SESSION_EXPIRY="3600")
    try:
        neighbour.gateway.start()
        yield neighbour
    finally:
        neighbour.gateway.kill()


def test_a_device_has_what_its_record_allows_and_no_more(running: Stack, other: Neighbour, operator: Operator) -> None:
    limits = DeviceLimits(connections=2, packet_size=2048, in_flight=5, queue=3, subscriptions=2, messages_rate=20.0)
    secret = operator.device("pump", limits=limits)

    def pump(port: int, client_id: str, *, clean: bool = True, properties: bytes = b"") -> Raw:
        return Raw(port, client_id, username="pump", password=secret.encode(), clean=clean, properties=properties)

    known: list[Raw] = []

    def signs_in(port: int) -> bool:
        known.append(pump(port, f"probe-{port}"))
        return known[-1].connack[1] == 0

    assert until(lambda: signs_in(running.port)) and until(lambda: signs_in(other.port))
    here, there = known[-2:] if known[-2].connack[1] == 0 else (known[0], known[-1])
    assert b"\x21\x00\x05" in here.connack and b"\x27\x00\x00\x08\x00" in here.connack, "what it may send is told"

    # connections: at both gateways together; who comes again with a client id of its own takes its own place
    assert until(lambda: pump(running.port, "third").connack[1] == 0x97)
    again = pump(running.port, f"probe-{other.port}")
    assert again.connack[1] == 0
    ended = there.ended()
    assert ended is not None and ended[:1] == b"\x8e"
    here.disconnect()
    assert until(lambda: (third := pump(other.port, "third")).connack[1] == 0 and not third.disconnect())

    # the size of a packet and the number of subscriptions
    assert again.subscribe(("a", 1), ("b", 1), ("c", 1)) == b"\x01\x01\x97"
    again.send(publish("a", b"x" * 3000, properties=b""))
    ended = again.ended()
    assert ended is not None and ended[:1] == b"\x95"

    # messages a second: a burst of one second's, and then it is read at that pace
    device = pump(running.port, "pump-1", properties=EXPIRY)
    assert device.subscribe(("to/pump", 1)) == b"\x01"
    began = time.monotonic()
    for _ in range(12):
        device.send(*(publish("up", b"x", qos=1, packet_id=number, properties=b"") for number in range(1, 6)))
        assert [device.next()[0] for _ in range(5)] == [0x40] * 5
    assert time.monotonic() - began > 1.5, "60 messages at 20 a second"

    # what is kept for it while it is away
    device.disconnect()
    with Raw(running.port, "sender") as sender:
        for number in range(8):
            sender.publish("to/pump", b"%d" % number)
    device = pump(running.port, "pump-1", clean=False, properties=EXPIRY)
    kept = [each for first, body in device.packets() if first >> 4 == 3 for each in [body[-1:]]]
    assert kept == [b"5", b"6", b"7"]


def test_a_credential_leaves_no_more_sessions_behind_than_it_may_over_all_gateways(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    secret = operator.device("fleet", limits=DeviceLimits(sessions=2))

    def fleet(port: int, client_id: str, properties: bytes = EXPIRY, version: int = 5) -> Raw:
        password = secret.encode()
        return Raw(
            port, client_id, username="fleet", password=password, clean=False, properties=properties, version=version
        )

    assert until(lambda: fleet(running.port, "one").connack[1] == 0)
    assert until(
        lambda: (two := fleet(other.port, "two", NEVER)).connack[1] == 0 and b"\x11\0\0\x0e\x10" in two.connack
    )
    assert until(lambda: fleet(running.port, "three").connack[1] == 0x97)
    assert fleet(other.port, "three").connack[1] == 0x97
    assert fleet(other.port, "three", version=4).connack[1] == 3
    assert fleet(other.port, "three", b"").connack[1] == 0, "what ends with its connection is not kept"
    running.gateway.kill()
    assert until(lambda: fleet(other.port, "three").connack[1] == 0x97)
    running.gateway.start()
    assert fleet(running.port, "two").present and fleet(other.port, "one").present
    assert fleet(running.port, "four").connack[1] == 0x97

    # one of them ends, by an operator or by itself
    operator.order("clear", "one")
    assert until(lambda: fleet(running.port, "four").connack[1] == 0)
    brief = fleet(other.port, "two")
    brief.disconnect(properties=b"\x11\0\0\0\1")
    assert until(lambda: fleet(running.port, "five").connack[1] == 0)
