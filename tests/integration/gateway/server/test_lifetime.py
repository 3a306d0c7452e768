from __future__ import annotations

import asyncio

import pytest

from gateway.ports import Limits
from gateway.server.server import ServerSettings
from tests.fakes.gateway_engine import Rules
from tests.fakes.mqtt_device import connect, publish, subscribe
from tests.integration.gateway.server.conftest import Serve, until


async def test_stopping_tells_everybody_and_waits_for_them(serve: Serve) -> None:
    gateway = await serve()
    five, four = await gateway.client(), await gateway.client()
    await five.send(connect("five", version=5))
    await four.send(connect("four"))
    await five.packet()
    await four.packet()
    listening = gateway.address()
    stopping = asyncio.create_task(gateway.server.stop(closing=2))
    assert (await five.packet())[1][0] == 0x8B
    assert await four.closed() == b""
    five.abort()
    four.abort()
    await stopping
    assert {client for client, _ in gateway.engine.endings} == {"five", "four"}
    with pytest.raises(OSError):
        await asyncio.open_connection(*listening)


async def test_a_taken_over_device_reads_why_although_it_was_writing(serve: Serve) -> None:
    gateway = await serve()
    older = await gateway.client()
    await older.send(connect("same", version=5))
    await older.packet()
    newer = await gateway.client()
    await newer.send(connect("same", version=5))
    assert (await newer.packet())[1][1] == 0
    older.writer.write(publish("a", b"x", properties=b"") * 100)
    first, body = await older.packet()
    assert (first, body[0]) == (0xE0, 0x8E)
    assert not gateway.engine.published
    older.abort()
    newer.abort()
    await until(lambda: not gateway.server.connections)


async def test_a_connection_that_ignores_its_end_is_cut(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(closing=0.2))
    client = await gateway.client()
    await client.send(connect("c", version=5))
    await client.packet()
    gateway.engine.live["c"].close(0x98, "closed by an operator")
    assert (await client.packet())[1][0] == 0x98
    await until(lambda: not gateway.server.connections)
    client.abort()


async def test_acknowledgements_of_one_turn_leave_in_one_piece(serve: Serve) -> None:
    gateway = await serve()
    client = await gateway.client()
    await client.send(connect("c"))
    await client.packet()
    [connection] = gateway.server.connections
    pieces: list[int] = []
    write = connection._transport.write  # type: ignore[union-attr]  # connected, so it has one

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(transport, name)

        def write(self, data: bytes) -> None:
            pieces.append(len(data))
            write(data)

    transport = connection._transport
    connection._transport = Counting()  # type: ignore[assignment]  # stands in for the transport
    await client.send(*(publish("a", b"x", qos=1, packet_id=number) for number in range(1, 201)))
    for _ in range(200):
        await client.packet()
    assert len(pieces) <= 3
    connection._transport = transport
    client.abort()


async def test_a_device_held_for_its_rate_goes_on_by_itself(serve: Serve) -> None:
    gateway = await serve(rules=Rules(limits=Limits(messages_rate=100)))
    client = await gateway.client()
    await client.send(connect("c"))
    await client.packet()
    for _ in range(2):
        await client.send(*(publish("a", b"x") for _ in range(60)))
        await until(lambda: not gateway.server._waiting)
    await client.send(publish("a", b"last", qos=1))
    assert (await client.packet())[0] == 0x40
    assert len(gateway.engine.published) == 121
    client.abort()


async def test_resume_lets_everybody_read_on(serve: Serve) -> None:
    gateway = await serve()
    client = await gateway.client()
    await client.send(connect("c"), subscribe(("a", 0)))
    await client.packet()
    await client.packet()
    gateway.engine.congested = True
    await client.send(publish("a", b"1"))
    await client.send(publish("a", b"2"))
    with pytest.raises(TimeoutError):
        await client.packet(timeout=0.2)
    gateway.engine.congested = False
    gateway.server.resume()
    assert [(await client.packet())[0] for _ in range(2)] == [0x30, 0x30]
    client.abort()
