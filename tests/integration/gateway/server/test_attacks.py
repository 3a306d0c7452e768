"""Hostile peers on real ports: they lose their connection, and nothing else happens."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import time
from pathlib import Path

import pytest

from gateway.mqtt.surroundings import Settings
from gateway.ports import Limits
from gateway.server.descriptors import raise_limit
from gateway.server.server import ServerSettings
from tests.fakes.gateway_engine import Rules
from tests.fakes.mqtt_device import PINGREQ, connect, packet, publish, subscribe
from tests.integration.gateway.server.conftest import Client, Gateway, Serve, until
from tests.unit.gateway.mqtt.test_hostile_bytes import mutated, samples

IMPATIENT = ServerSettings(mqtt=Settings(connect_timeout=1.0), closing=0.5)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Kilobytes of memory in use."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


async def honest(gateway: Gateway, name: str = "honest") -> Client:
    client = await gateway.client()
    await client.send(connect(name))
    assert await client.packet() == (0x20, b"\x00\x00")
    return client


async def crowd(gateway: Gateway, count: int, first: bytes) -> list[Client]:
    """So many connections, each having said `first`."""
    found = []
    for start in range(0, count, 100):
        found += await asyncio.gather(*(gateway.client() for _ in range(start, min(start + 100, count))))
    for client in found:
        if first:
            client.writer.write(first)
    return found


@pytest.fixture(autouse=True)
def _descriptors() -> None:
    raise_limit()


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\x10\xff\xff\xff\x7f",  # a CONNECT of 256 MB
        b"\x10\x40\x00\x04MQTT",  # a CONNECT that never goes on
    ],
    ids=["silent", "claiming-256-MB", "never-finishing"],
)
async def test_a_thousand_useless_connections_go_away_and_nobody_notices(serve: Serve, first: bytes) -> None:
    gateway = await serve(settings=IMPATIENT)
    device = await honest(gateway)
    before, open_before = resident(), descriptors()
    useless = await crowd(gateway, 1000, first)
    await device.send(publish("a", b"x", qos=1))
    assert await device.packet() == (0x40, b"\x00\x01")
    await until(lambda: len(gateway.server.connections) == 1)
    assert all([await client.closed() == b"" for client in useless])
    for client in useless:
        client.abort()
    del useless
    await until(lambda: descriptors() <= open_before + 2)
    assert resident() < before + 40_000
    device.abort()


async def test_a_connect_that_drips_is_cut_off_in_time(serve: Serve) -> None:
    gateway = await serve(settings=IMPATIENT)
    client = await gateway.client()

    async def drip() -> None:
        for byte in connect("d" * 60):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    await until(lambda: gateway.server.accepted)
    await until(lambda: not gateway.server.connections)
    dripping.cancel()
    assert not gateway.engine.live


async def test_a_connect_flood_is_let_in_at_the_rate_that_was_set(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(connects_rate=20))
    begun = time.monotonic()
    clients = await crowd(gateway, 100, connect(""))
    await until(lambda: gateway.server.accepted + gateway.server.turned_away == 100)
    assert 20 <= gateway.server.accepted <= 21 + 20 * (time.monotonic() - begun)
    for client in clients:
        client.abort()


async def test_connections_have_an_upper_bound(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(max_connections=5))
    clients = await crowd(gateway, 8, connect(""))
    await until(lambda: gateway.server.turned_away == 3)
    assert len(gateway.server.connections) == 5
    clients[0].abort()
    for client in clients:
        client.abort()
    await until(lambda: not gateway.server.connections)
    assert await honest(gateway)


async def test_a_publish_claiming_256_mb_costs_nothing(serve: Serve) -> None:
    gateway = await serve()
    before = resident()
    for number in range(50):
        client = await honest(gateway, f"liar-{number}")
        await client.send(b"\x30\xff\xff\xff\x7f" + b"x" * 1000)
        await client.closed()
    assert resident() < before + 20_000
    assert not gateway.engine.published


async def test_a_subscriber_that_never_reads_costs_a_bounded_buffer_and_nobody_else(serve: Serve) -> None:
    settings = ServerSettings(write_buffer=256 * 1024, mqtt=Settings(stalled=0.5))
    gateway = await serve(rules=Rules(limits=Limits(queue=20, window=500)), settings=settings)
    deaf = await honest(gateway, "deaf")
    await deaf.send(subscribe(("a", 1)))
    await deaf.packet()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's own transport has it
    hearing = await honest(gateway, "hearing")
    await hearing.send(subscribe(("a", 0)))
    await hearing.packet()
    before = resident()
    sender = await honest(gateway, "sender")
    for number in range(300):
        await sender.send(publish("a", b"x" * 100_000, qos=1, packet_id=number + 1))
        assert (await sender.packet())[0] == 0x40
        assert (await hearing.packet())[0] == 0x30
    assert resident() < before + 40_000, "30 MB were published, a few MB may be waiting"
    assert ("deaf", "no room") in gateway.engine.drops
    await until(lambda: "deaf" not in gateway.engine.live)
    for client in (deaf, hearing, sender):
        client.abort()


async def test_a_pipelining_flood_is_read_at_the_pace_of_the_engine(serve: Serve) -> None:
    gateway = await serve(rules=Rules(limits=Limits(in_flight=10)))
    gateway.engine.manual = True
    client = await gateway.client()
    await client.send(connect("flood"))
    await until(lambda: gateway.engine.open_receipts)
    gateway.engine.settle_all()
    assert (await client.packet())[0] == 0x20
    flood = b"".join(publish("a", b"x" * 1000, qos=1, packet_id=number % 65_000 + 1) for number in range(20_000))
    client.writer.write(flood)
    await until(lambda: gateway.engine.published)
    await asyncio.sleep(0.2)
    taken = len(gateway.engine.published)
    assert taken < 3000, "20 MB are on their way, one or two reads were taken"

    async def settle() -> None:
        while len(gateway.engine.published) < 20_000:
            gateway.engine.settle_all()
            await asyncio.sleep(0)
        gateway.engine.settle_all()

    async with asyncio.timeout(120):
        settling = asyncio.create_task(settle())
        for number in range(20_000):
            assert await client.packet() == (0x40, (number % 65_000 + 1).to_bytes(2, "big"))
        await settling
    client.abort()


async def test_fuzzed_connections_lose_themselves_and_nothing_else(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await serve(
        "mqtt://127.0.0.1:0,ws://127.0.0.1:0/mqtt", rules=Rules(limits=Limits(packet_size=65_536)), settings=IMPATIENT
    )
    gateway.engine.keep_published = False
    device = await honest(gateway)
    chance = random.Random(7)

    async def one(number: int) -> None:
        version = 3 + number % 3
        client = await gateway.client("ws" if number % 7 == 0 else "mqtt")
        frames = [mutated(chance, chance.choice(samples(version))) for _ in range(5)]
        if number % 3:
            frames.insert(0, connect(f"f{number}", version=version))
        if number % 5 == 0:
            frames = [chance.randbytes(chance.randrange(1, 400))]
        try:
            await client.send(*frames)
            if number % 2:  # what it said is read before it goes
                client.writer.write_eof()
                await client.closed()
            else:
                await asyncio.wait_for(client.reader.read(1000), 0.05)
        except (OSError, TimeoutError):
            pass
        client.abort()

    with caplog.at_level(logging.WARNING, "sluice.gateway"):
        await asyncio.gather(*(one(number) for number in range(50)))
        open_before, before = descriptors(), resident()
        for start in range(50, 1500, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        await until(lambda: len(gateway.server.connections) == 1)
    await device.send(PINGREQ)
    assert await device.packet() == (0xD0, b"")
    await until(lambda: descriptors() <= open_before + 5)
    assert resident() < before + 20_000
    assert gateway.server.refusals.total > 300
    assert 0 < len(caplog.records) < gateway.server.refusals.total / 2, "refusals are logged, but not one by one"
    assert not [record for record in caplog.records if record.levelno > logging.WARNING], "and none was our bug"
    device.abort()


async def test_a_log_line_never_carries_what_a_peer_would_like_it_to(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await serve()
    client = await gateway.client()
    with caplog.at_level(logging.WARNING, "sluice.gateway"):
        await client.send(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x0a\x00\x08\nforged\n"))
        await client.closed()
        await until(lambda: caplog.records)
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_every_descriptor_of_the_machine_is_used() -> None:
    assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def test_who_sends_as_fast_as_it_can_takes_one_buffer_of_work_a_turn(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(read_buffer=4096))
    greedy = await honest(gateway, "greedy")
    [connection] = gateway.server.connections
    turns: list[int] = []
    rested, before = connection.rested, connection.received_bytes

    def noted() -> None:
        turns.append(connection.received_bytes)
        rested()

    type(connection).rested, original = (lambda self: noted()), type(connection).rested  # type: ignore[method-assign]
    try:
        await greedy.send(PINGREQ * 50_000)
        for _ in range(50_000):
            assert await greedy.packet() == (0xD0, b"")
    finally:
        type(connection).rested = original  # type: ignore[method-assign]
    steps = [later - earlier for earlier, later in zip([before, *turns], turns, strict=False)]
    assert len(turns) > 5 and max(steps) <= 2 * 4096
    greedy.abort()


async def test_connects_of_one_address_wait_for_their_turn_and_nobody_else_does(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(pace=5.0))
    clients = [await gateway.client() for _ in range(12)]
    for number, client in enumerate(clients):
        await client.send(connect(f"c{number}"))
    await until(lambda: len(gateway.engine.live) == 11)
    assert all([await client.packet() == (0x20, b"\x00\x00") for client in clients])
    for client in clients:
        client.abort()


async def test_with_too_many_connects_from_one_address_the_last_ones_are_turned_away(serve: Serve) -> None:
    gateway = await serve(settings=ServerSettings(pace=10.0, patience=0.5))
    clients = [await gateway.client() for _ in range(40)]
    for number, client in enumerate(clients):
        await client.send(connect(f"c{number}"))
    await until(lambda: gateway.server.turned_away)
    served = len(clients) - gateway.server.turned_away
    await until(lambda: len(gateway.engine.live) == served)
    assert gateway.server.refusals.by_reason["address-rate"] == gateway.server.turned_away
    for client in clients:
        client.abort()
