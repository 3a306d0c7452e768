"""Devices are sent to another server (MQTT 5, 4.11): one by an operator, all when a gateway stops or has moved; and
those that ask are told where answers may be sent (3.1.2.11.6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.contract import CONTROL, Control
from tests.acceptance.gateway.people import Operator
from tests.acceptance.gateway.stack import Stack
from tests.acceptance.mqtt.raw import Raw
from tests.fakes.mqtt_device import text

ELSEWHERE = b"\x1c" + text("elsewhere.example:1883")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(
        tmp_path,
        SLUICE_MQTT_SERVER_REFERENCE="elsewhere.example:1883",
        SLUICE_MQTT_RESPONSE_INFORMATION="answers/{client_id}",
    )
    try:
        yield stack.start()
    finally:
        stack.stop()


def test_devices_are_sent_to_another_server(running: Stack, operator: Operator) -> None:
    asks = Raw(running.port, "asks", properties=b"\x19\x01")
    assert b"\x1a" + text("answers/asks") in asks.connack
    stays = Raw(running.port, "stays")
    assert b"\x1a" not in stays.connack, "it has not asked"
    old = Raw(running.port, "old", version=4)

    operator.put(CONTROL, "asks", Control(verb="kick", client_id="asks", reference="other.example:8883"))
    ended = asks.ended()
    assert ended is not None and ended[:1] == b"\x9c" and b"\x1c" + text("other.example:8883") in ended

    running.gateway.stop()
    ended = stays.ended()
    assert ended is not None and ended[:1] == b"\x9c" and ELSEWHERE in ended
    assert old.ended() == b"", "MQTT 3 has no such packet"

    running.environ["SLUICE_MQTT_MOVED"] = "1"
    running.gateway.start()
    moved = Raw(running.port, "moved")
    assert moved.connack[1] == 0x9D and ELSEWHERE in moved.connack
    assert Raw(running.port, "old", version=4).connack == b"\x00\x03"
