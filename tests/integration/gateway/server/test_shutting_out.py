"""Floods from one address, through real ports and a real event loop's sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

import pytest

from gateway.server.gate import Gate
from gateway.server.server import ServerSettings
from tests.fakes.mqtt_device import connect, publish
from tests.integration.gateway.server.conftest import Client, Gateway, Serve, until
from tests.integration.gateway.server.test_attacks import descriptors, honest

RUDE = "127.0.0.66"
PACED = ServerSettings(pace=5_000.0)


async def knock(gateway: Gateway, said: bytes, *, seconds: float) -> bool:
    """A connection from the rude address that says so much and goes; whether it was let in within the time."""
    loop = asyncio.get_running_loop()
    with socket.socket() as wire:
        wire.setblocking(False)
        wire.bind((RUDE, 0))
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_connect(wire, gateway.address())
                await loop.sock_sendall(wire, said)
        except (TimeoutError, OSError):
            return False
        return True


async def as_rude(gateway: Gateway, said: bytes) -> Client:
    host, port = gateway.address()
    reader, writer = await asyncio.open_connection(host, port, local_addr=(RUDE, 0))
    client = Client(reader, writer)
    await client.send(said)
    return client


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops connection attempts for a process")
async def test_a_shut_out_address_cannot_connect_and_what_is_connected_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await serve(settings=PACED)
    there = await as_rude(gateway, connect("there"))
    assert await there.packet() == (0x20, b"\x00\x00")
    gate = gateway.server.gate
    reopen: list[Callable[[], None]] = []
    with monkeypatch.context() as patch:
        patch.setattr(gate, "_later", lambda _, call: reopen.append(call))
        async with asyncio.timeout(60):
            while not reopen:
                crowd(gate)
                await knock(gateway, b"", seconds=10)  # the one that is turned away
                if not gate._shutters._sockets:
                    pytest.skip("not run: this system takes no filter on a listening socket")
                await asyncio.sleep(0)
        assert not await knock(gateway, b"", seconds=0.5)
        for name in ("a", "b"):
            await there.send(publish("a", b"x", qos=1))
            assert await there.packet() == (0x40, b"\x00\x01")
            device = await honest(gateway, name)
            device.abort()
    for each in reopen:
        each()
    for _ in range(3):  # its system tries again by itself, should its turn be too far away yet
        assert await knock(gateway, b"", seconds=30)
    there.abort()


def crowd(gate: Gate) -> None:
    """As if the rude address had more waiting than it may."""
    address, now = f"{RUDE}:1", asyncio.get_running_loop().time()
    for _ in range(200):
        gate.spoiled(address, now)
    while gate.wait(address, now) is not None:
        pass


@pytest.mark.parametrize(
    "said", [b"\xff" * 600, connect("w") + publish("a/#", b"x")], ids=["rubbish", "wildcard-publishes"]
)
async def test_a_flood_is_let_in_as_fast_as_others_can_bear(serve: Serve, said: bytes) -> None:
    gateway = await serve(settings=PACED)
    server = gateway.server
    device = await honest(gateway)
    before = descriptors()
    flooding = True
    attempts = 0

    async def flood() -> None:
        nonlocal attempts
        while flooding:
            attempts += 1
            await knock(gateway, said, seconds=0.5)

    most = 0
    floods = [asyncio.create_task(flood()) for _ in range(20)]
    begun = server.moment.monotonic
    while attempts < 6_000 and server.moment.monotonic - begun < 4.0:
        await device.send(publish("a", b"x", qos=1))
        assert await device.packet() == (0x40, b"\x00\x01")
        most = max(most, len(server.connections))
    took = server.moment.monotonic - begun
    flooding = False
    await asyncio.gather(*floods)
    # a hundred at once, a hundred a second, and what was on its way when that was known
    assert server.refusals.total - server.turned_away < 300 + 150 * took
    assert most < 1_000
    other = await honest(gateway, "other")
    for client in (device, other):
        client.abort()
    await until(lambda: len(server.connections) == 0)
    await until(lambda: descriptors() <= before + 2)


async def test_five_thousand_devices_of_one_address_are_all_in_within_seconds(serve: Serve) -> None:
    """After a restart of the gateway, say, behind one router."""
    gateway = await serve(settings=PACED)
    said = connect("")
    wires: list[socket.socket] = []
    loop = asyncio.get_running_loop()

    async def come() -> None:
        wire = socket.socket()
        wires.append(wire)
        wire.setblocking(False)
        await loop.sock_connect(wire, gateway.address())
        await loop.sock_sendall(wire, said)
        assert await loop.sock_recv(wire, 4) == b"\x20\x02\x00\x00"

    try:
        for _ in range(50):  # as fast as one process can
            await asyncio.gather(*(come() for _ in range(100)))
        assert len(gateway.engine.live) == 5_000 and not gateway.server.turned_away
    finally:
        for wire in wires:
            wire.close()
