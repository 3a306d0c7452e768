"""Two gateways on one broker: a client id has one place, whichever gateway it connects to, and dies with none."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from gateway.contract import Presence, decode
from tests.acceptance.gateway.device import Wire, connect, packet, text
from tests.acceptance.gateway.people import Device5, Device311, Operator, until
from tests.acceptance.gateway.stack import Neighbour, Stack


@pytest.fixture
def other(running: Stack) -> Iterator[Neighbour]:
    neighbour = Neighbour(running, "neighbour", SLUICE_LOG_LEVEL="DEBUG")
    try:
        neighbour.gateway.start()
        yield neighbour
    finally:
        neighbour.gateway.kill()


def presence(operator: Operator, client_id: str) -> Presence:
    records = [each for each in operator.records("__sluice_presence") if each.key == client_id.encode()]
    return decode(Presence, records[-1].value or b"")


def test_a_connection_at_another_gateway_takes_the_place_of_the_first(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    first = Device311(running, "same")
    second = Device311(other, "same")
    assert first.gone.wait(60)
    third = Device5(running, "same", clean=True)
    assert second.gone.wait(60) and not third.gone.is_set()
    assert until(lambda: presence(operator, "same").gateway == "gateway-under-test")
    third.close()
    assert until(lambda: not presence(operator, "same").online)


def test_a_persistent_session_moves_with_all_it_has(running: Stack, other: Neighbour, operator: Operator) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k/#", qos=2)
    keeper.close()
    writer = Device311(running, "writer")
    for number in range(20):
        writer.publish("k/x", b"%d" % number, qos=1 + number % 2)
    writer.publish("kept", b"at the one", retain=True)
    moved = Device311(other, "keeper", clean=False)
    assert moved.session_present
    reader = Device311(other, "reader")
    reader.subscribe("kept")
    assert until(lambda: reader.retained == [("kept", b"at the one")]), "what is retained at one is so at the other"
    for number in range(20, 40):
        writer.publish("k/x", b"%d" % number, qos=1 + number % 2)
    assert until(lambda: len(moved.received) >= 40)
    for qos in (1, 2):
        assert [int(each.payload) for each in moved.messages if each.qos == qos] == list(range(qos - 1, 40, 2))
    back = Device311(running, "keeper", clean=False)
    assert back.session_present and moved.gone.wait(60)
    writer.publish("k/x", b"last", qos=2)
    assert until(lambda: [payload for _, payload in back.received if payload == b"last"])
    time.sleep(0.3)
    assert [payload for _, payload in back.received] == [b"last"]


def test_a_dead_gateways_sessions_and_wills_are_looked_after(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k/#")
    Device311(running, "mortal", will=("will/mortal", b"gateway died"))
    Device311(running, "silent")
    writer = Device311(other, "writer")
    writer.publish("k/x", b"before")
    assert until(lambda: keeper.received)
    running.gateway.kill()
    writer.publish("k/x", b"while nobody looked")
    assert until(lambda: b"gateway died" in [each.value for each in operator.records("mqtt.messages")])
    assert until(lambda: not presence(operator, "silent").online)
    moved = Device311(other, "keeper", clean=False)
    assert moved.session_present
    assert until(lambda: b"while nobody looked" in [payload for _, payload in moved.received])
    running.gateway.start()
    back = Device311(running, "keeper", clean=False)
    assert back.session_present
    writer.publish("k/x", b"after")
    assert until(lambda: b"after" in [payload for _, payload in back.received])
    wills = [each for each in operator.records("mqtt.messages") if each.value == b"gateway died"]
    assert len(wills) == 1


def test_a_gateway_that_stood_still_finds_that_it_was_replaced(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    keeper = Device311(running, "keeper", clean=False)
    keeper.subscribe("k/#", qos=2)
    mortal = Device311(running, "mortal", will=("will/mortal", b"taken for dead"))
    writer = Device311(other, "writer")
    running.gateway.signal(signal.SIGSTOP)
    writer.publish("k/x", b"one", qos=2)
    moved = Device311(other, "keeper", clean=False)
    assert moved.session_present
    assert until(lambda: [payload for _, payload in moved.received] == [b"one"])
    assert until(lambda: b"taken for dead" in [each.value for each in operator.records("mqtt.messages")])
    running.gateway.signal(signal.SIGCONT)
    assert keeper.gone.wait(60) and mortal.gone.wait(60)
    writer.publish("k/x", b"two", qos=2)
    assert until(lambda: [payload for _, payload in moved.received] == [b"one", b"two"])
    time.sleep(1.0)
    assert not moved.gone.is_set() and keeper.received in ([], [("k/x", b"one")])
    assert len([each for each in operator.records("mqtt.messages") if each.value == b"taken for dead"]) == 1
    assert presence(operator, "keeper").gateway == "neighbour"


def test_a_shared_subscription_gets_each_message_once_whichever_gateways_its_members_are_at(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    here, there = Device311(running, "here"), Device311(other, "there")
    here.subscribe("$share/crew/job/#")
    writers = [Device311(running if number % 2 else other, f"writer-{number}") for number in range(8)]

    def work(name: str) -> None:
        for number in range(10):
            for writer in writers:
                writer.publish("job/x", f"{name}-{number}-{id(writer)}".encode())

    def done() -> list[bytes]:
        return [payload for each in (here, there) for _, payload in each.received]

    work("alone")
    assert until(lambda: len(done()) == 80) and not there.received
    there.subscribe("$share/crew/job/#")
    work("together")
    assert until(lambda: len(done()) >= 160)
    assert until(lambda: presence(operator, "$gateway/share/0/$share/crew/job/#") and there.received)
    work("both")
    assert until(lambda: len(done()) >= 240)
    time.sleep(0.5)
    assert len(done()) == len(set(done())) == 240
    assert here.received and there.received
    running.gateway.kill()
    writers = [Device311(other, f"writer-{number}") for number in range(8)]
    before = len(there.received)
    work("survivor")
    assert until(lambda: len({p for _, p in there.received[before:] if p.startswith(b"survivor")}) == 80)


async def test_a_qos_2_message_sent_again_at_another_gateway_is_one_record(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    release = packet(0x62, b"\x00\x07")
    for round_number, kill in enumerate((False, True)):
        payload = b"once-%d" % round_number
        device = f"device-{round_number}"
        wire = await Wire.open(running.port)
        wire.write(connect(device, clean=False))
        assert await wire.read() == (0x20, b"\x00\x00")
        wire.write(packet(0x34, text("t/x") + b"\x00\x07" + payload))
        assert await wire.read() == (0x50, b"\x00\x07")
        if kill:
            await asyncio.to_thread(running.gateway.kill)
        wire = await Wire.open(other.port)
        wire.write(connect(device, clean=False))
        assert await asyncio.wait_for(wire.read(), 60) == (0x20, b"\x01\x00")
        wire.write(packet(0x3C, text("t/x") + b"\x00\x07" + payload))
        assert await wire.read() == (0x50, b"\x00\x07")
        wire.write(release)
        assert await wire.read() == (0x70, b"\x00\x07")
        wire.write(packet(0x34, text("t/x") + b"\x00\x07" + payload + b"-next"))
        assert await wire.read() == (0x50, b"\x00\x07")
        found = [each.value for each in operator.records("mqtt.messages") if (each.value or b"").startswith(payload)]
        assert sorted(str(each) for each in found) == sorted(str(each) for each in (payload, payload + b"-next"))
        wire.close()
