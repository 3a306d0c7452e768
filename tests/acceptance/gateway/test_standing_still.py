"""A gateway that stands still for a while and was not replaced: its devices notice nothing but the wait."""

from __future__ import annotations

import asyncio
import signal

from tests.acceptance.gateway.device import Wire, packet, text
from tests.acceptance.gateway.stack import Stack

STILL = 4.5  # seconds: longer than the lease, and than one and a half keep-alives
PUBACK, PUBREC = 0x40, 0x50


def connect(client_id: str) -> bytes:
    return packet(0x10, text("MQTT") + bytes([4, 2, 0, 1]) + text(client_id))  # keep alive: a second


def publish(qos: int) -> bytes:
    return packet(0x30 | qos << 1, text("still/x") + b"\x00\x01hello")


async def test_devices_that_spoke_while_their_gateway_stood_still_are_answered_when_it_wakes(running: Stack) -> None:
    async with asyncio.timeout(120):
        wires = [await Wire.open(running.port) for _ in range(8)]
        for number, wire in enumerate(wires):
            wire.write(connect(f"device-{number}"))
            assert (await wire.read())[1] == b"\x00\x00"
        running.gateway.signal(signal.SIGSTOP)
        try:
            for number, wire in enumerate(wires):
                wire.write(publish(1 + number % 2))
            await asyncio.sleep(STILL)
        finally:
            running.gateway.signal(signal.SIGCONT)
        for number, wire in enumerate(wires):
            assert await wire.read() == (PUBREC if number % 2 else PUBACK, b"\x00\x01")
        for wire in wires:
            wire.close()
