"""What was acknowledged is in the log, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import Consumer, Producer, TopicPartition
from broker.client.administration.types import At
from gateway.contract import SESSIONS, mark_key
from tests.acceptance.gateway.device import Keeper, Publisher, Wire, connect, packet, text
from tests.acceptance.gateway.doors import Doors
from tests.acceptance.gateway.stack import Neighbour, Process, Stack
from tests.fakes.authority import Authority
from tests.ports import free_port

PARTITIONS = 64
DEVICES = 24
KEEPERS = 6
TOPIC = "mqtt.messages"
STOPS = 0.4  # of the faults: processes that stand still and go on, the others are killed
PAUSES = (0.5, 2.0, 4.0, 9.0, 16.0)  # seconds: a gateway that stands still for 3 gives its lease up, for 6 it is dead


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    yield from started(Stack(tmp_path))


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Stack]:
    """With room for all messages of a test in each inbox."""
    yield from started(Stack(tmp_path, SLUICE_MQTT_QUEUE="1000000", SLUICE_MQTT_QUEUE_BYTES=str(1 << 30)))


def started(made: Stack) -> Iterator[Stack]:
    try:
        made.broker.start()
        with made.admin() as admin:
            admin.create_topic(TOPIC, PARTITIONS)
        made.gateway.start()
        yield made
    finally:
        made.stop()


def read_all(stack: Stack) -> dict[tuple[int, int], bytes]:
    """(partition, offset) → value of everything in the topic, read committed."""
    partitions = [TopicPartition(TOPIC, index) for index in range(PARTITIONS)]
    with stack.admin() as admin:
        ends = {key: found.offset for key, found in admin.offsets(partitions, At.LATEST, committed_only=True).items()}
    consumer = Consumer(stack.cluster, overrides={"enable.partition.eof": True})
    consumer.assign(dict.fromkeys(partitions, 0))
    found: dict[tuple[int, int], bytes] = {}
    reached = {key: 0 for key, end in ends.items() if end}
    deadline = time.monotonic() + 60
    while any(reached[key] < ends[key] for key in reached):
        assert time.monotonic() < deadline, "the log could not be read to its end"
        for record in consumer.poll(2000, 0.2):
            found[record.partition, record.offset] = record.value or b""
            reached[record.origin] = record.offset + 1
        for key, end in consumer.ends.items():
            if key in reached:
                reached[key] = max(reached[key], end)
    consumer.close()
    return found


def acknowledged(publishers: list[Publisher]) -> list[bytes]:
    return [payload for each in publishers for payload in each.acknowledged]


async def publish_while(
    stack: Stack, publishers: list[Publisher], disturb: list[str], seconds: float, enough: int = 0
) -> None:
    """Let the devices publish, and kill and restart these processes meanwhile, evenly spread; go on until each device
    is back and enough was acknowledged."""
    tasks = [asyncio.create_task(each.run()) for each in publishers]
    for name in disturb:
        await asyncio.sleep(seconds / (len(disturb) + 1))
        process = stack.broker if name == "broker" else stack.gateway
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)
    await asyncio.sleep(seconds / (len(disturb) + 1))
    async with asyncio.timeout(120):
        while len(acknowledged(publishers)) <= enough or min(each.connections for each in publishers) < 2:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.05)
    for each in publishers:
        each.stopping = True
    await asyncio.wait_for(asyncio.gather(*tasks), 120)


async def flood(port: int, client_id: str) -> None:
    """QoS 0 messages of 1 kB, as fast as the gateway takes them."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(connect(client_id))
    number = 0
    while True:
        number += 1
        writer.write(packet(0x30, text("flood") + f"{client_id}/{number}/".encode() + b"x" * 1000))
        await writer.drain()


def check(stack: Stack, publishers: list[Publisher]) -> dict[tuple[int, int], bytes]:
    first, second = read_all(stack), read_all(stack)
    deadline = time.monotonic() + 60
    while first.items() < second.items() and time.monotonic() < deadline:  # what a flood had sent still comes
        first, second = second, read_all(stack)
    assert first == second
    stored = set(first.values())
    missing = [payload for each in publishers for payload in each.acknowledged if payload not in stored]
    assert missing == []
    assert [each.disorder for each in publishers] == [0] * len(publishers)
    return first


async def test_every_acknowledged_message_survives_kill_9_of_broker_and_gateway(stack: Stack) -> None:
    publishers = [Publisher(stack.port, f"device-{number}") for number in range(24)]
    await publish_while(stack, publishers, ["broker", "gateway"], 6.0, enough=1000)
    assert all(each.connections >= 2 for each in publishers), "the gateway's end was not noticed"
    check(stack, publishers)


@pytest.mark.parametrize("away", [4.0, pytest.param(60.0, marks=pytest.mark.torture)])
async def test_while_the_broker_is_away_nothing_is_acknowledged_and_afterwards_everything_is(
    stack: Stack, away: float
) -> None:
    publishers = [Publisher(stack.port, f"device-{number}") for number in range(8)]
    tasks = [asyncio.create_task(each.run()) for each in publishers]
    await asyncio.sleep(1)
    await asyncio.to_thread(stack.broker.kill)
    before = -1
    while len(acknowledged(publishers)) > before:  # what the gateway had said is still on its way to the devices
        before = len(acknowledged(publishers))
        await asyncio.sleep(1.0)
    memory = stack.gateway.memory()
    flooding = [asyncio.create_task(flood(stack.port, f"flood-{number}")) for number in range(4)]
    await asyncio.sleep(away)
    assert stack.gateway.memory() < memory + (96 << 20)
    for task in flooding:
        task.cancel()
    assert sum(len(each.acknowledged) for each in publishers) == before
    connections = [each.connections for each in publishers]
    await asyncio.to_thread(stack.broker.start)
    async with asyncio.timeout(90):
        while sum(len(each.acknowledged) for each in publishers) < before + 1000:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.05)
    for each in publishers:
        each.stopping = True
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert sum(len(each.acknowledged) for each in publishers) >= before + 1000
    assert [each.connections for each in publishers] == connections, "devices were disconnected"
    found = check(stack, publishers)
    payloads = list(found.values())
    assert len(payloads) == len(set(payloads)), "a message was stored twice though no device sent it twice"


@pytest.mark.torture
@pytest.mark.parametrize("qos", [1, 2])
async def test_of_100_000_acknowledged_messages_none_is_absent_however_often_processes_die(
    roomy: Stack, qos: int
) -> None:
    """TORTURE_MESSAGES says how many instead, TORTURE_SEED which choices are made."""
    total, seed = int(os.environ.get("TORTURE_MESSAGES", "100000")), int(os.environ.get("TORTURE_SEED", "7"))
    authority = Authority(roomy.folder)
    pair = authority.issue("localhost", "server")
    here, there = Doors(authority, pair, plain=roomy.port), Doors(authority, pair, plain=free_port())
    roomy.gateway.stop()
    roomy.environ.update(here.environ)
    other = Neighbour(roomy, "neighbour", **there.environ)
    for gateway in (roomy.gateway, other.gateway):
        await asyncio.to_thread(gateway.start)
    try:
        await endure(roomy, other, (here, there), qos, total, random.Random(seed))
    finally:
        other.gateway.kill()


async def endure(
    stack: Stack, other: Neighbour, doors: tuple[Doors, Doors], qos: int, total: int, dice: random.Random
) -> None:
    """Devices publish at two gateways, by plain MQTT, TLS, WebSocket and behind a proxy, and take themselves over now
    and then, persistent sessions come and go, and broker and gateways are killed or stand still, until so many
    messages are acknowledged. All must be in the log, and with each session that subscribed, in the order of each
    device: of QoS 2 exactly once, of QoS 1 perhaps again."""
    here, there = doors

    def own() -> random.Random:
        return random.Random(dice.random())

    publishers = [
        Publisher(here.of(n), f"device-{n}", qos=qos, clean=qos == 1, elsewhere=[there.of(n)], restless=own())
        for n in range(DEVICES)
    ]
    keepers = [
        Keeper([here.of(n), there.of(n)], f"keeper-{n}", topics_of(n), qos=qos, dice=own()) for n in range(KEEPERS)
    ]
    keeping = [asyncio.create_task(each.run()) for each in keepers]
    async with asyncio.timeout(60):
        for each in keepers:
            await each.subscribed.wait()
    tasks = [asyncio.create_task(each.run(total // DEVICES + 1)) for each in publishers]
    processes = {"broker": stack.broker, "gateway": stack.gateway, "neighbour": other.gateway}
    killed, stopped = dict.fromkeys(processes, 0), dict.fromkeys(processes, 0)
    pauses: dict[str, asyncio.Task[None]] = {}
    while not all(task.done() for task in tasks):
        await asyncio.sleep(dice.uniform(0.1, 0.8))
        name = dice.choice(sorted(processes))
        if dice.random() < STOPS:
            if name not in pauses or pauses[name].done():
                stopped[name] += 1
                pauses[name] = asyncio.create_task(pause(processes[name], dice.choice(PAUSES)))
            continue
        killed[name] += 1
        if name in pauses:
            pauses[name].cancel()  # what starts again runs
        await asyncio.to_thread(processes[name].kill)
        await asyncio.to_thread(processes[name].start)
    await asyncio.gather(*pauses.values(), return_exceptions=True)
    await asyncio.gather(*tasks)
    found = check(stack, publishers)
    for keeper in keepers:
        keeper.settling = True
    wanted = [wanted_by(number, publishers) for number in range(KEEPERS)]

    def missing() -> list[int]:
        return [len(each - set(keeper.received)) for each, keeper in zip(wanted, keepers, strict=True)]

    deadline = time.monotonic() + 120
    while any(missing()) and time.monotonic() < deadline:  # noqa: ASYNC110  # polled
        await asyncio.sleep(0.2)
    for task in keeping:
        task.cancel()
    print(
        f"QoS {qos}: {sum(len(each.acknowledged) for each in publishers)} acknowledged, killed {killed}, stopped "
        f"{stopped}; devices: {sum(each.connections for each in publishers)} connections, "
        f"{sum(each.takeovers for each in publishers)} take-overs; sessions: "
        f"{sum(each.connections for each in keepers)} connections, {sum(each.takeovers for each in keepers)} "
        f"take-overs, {sum(len(each.received) for each in keepers)} received, "
        f"{sum(len(out_of_order(each.received)) for each in keepers)} out of order; {len(found)} records"
    )
    for payloads, keeper in zip(wanted, keepers, strict=True):
        lost = sorted(payloads - set(keeper.received))
        assert not lost, f"{keeper.client_id} was not given {len(lost)}: {lost[:50]}; {keeper.log}"
    for keeper in keepers:
        late = out_of_order(keeper.received)
        assert not late, f"{keeper.client_id} was given {len(late)} after later ones: {late[:50]}; {keeper.log}"
    assert [each.forgotten for each in publishers] + [each.forgotten for each in keepers] == [0] * (DEVICES + KEEPERS)
    if qos == 2:
        stored = list(found.values())
        assert len(stored) == len(set(stored)), "stored twice"
        for keeper in keepers:
            assert len(keeper.received) == len(set(keeper.received)), "given twice"


async def pause(process: Process, seconds: float) -> None:
    process.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        process.signal(signal.SIGCONT)


def topics_of(keeper: int) -> list[str]:
    return [f"t/device-{number}" for number in range(keeper, DEVICES, KEEPERS)]


def wanted_by(keeper: int, publishers: list[Publisher]) -> set[bytes]:
    topics = topics_of(keeper)
    return {payload for each in publishers if f"t/{each.client_id}" in topics for payload in each.acknowledged}


def out_of_order(payloads: list[bytes]) -> list[tuple[int, bytes]]:
    """What came first after a later one of the same device (MQTT-4.6.0-6), and as which of all."""
    newest: dict[bytes, int] = {}
    found = []
    for at, payload in enumerate(dict.fromkeys(payloads)):
        device, _, number = payload.partition(b"/")
        if int(number) < newest.get(device, -1):
            found.append((at, payload))
        newest[device] = max(int(number), newest.get(device, -1))
    return found


async def test_a_qos_2_message_sent_again_after_kill_9_is_one_record(stack: Stack) -> None:
    first_try = packet(0x34, text("t/x") + b"\x00\x07" + b"once")
    again = packet(0x3C, text("t/x") + b"\x00\x07" + b"once")
    release = packet(0x62, b"\x00\x07")
    wire = await Wire.open(stack.port)
    wire.write(connect("device", clean=False))
    assert await wire.read() == (0x20, b"\x00\x00")
    wire.write(first_try)
    assert await wire.read() == (0x50, b"\x00\x07")  # the device never hears of it
    await asyncio.to_thread(stack.gateway.kill)
    await asyncio.to_thread(stack.gateway.start)
    wire = await Wire.open(stack.port)
    wire.write(connect("device", clean=False))
    assert await wire.read() == (0x20, b"\x01\x00")
    wire.write(again)
    assert await wire.read() == (0x50, b"\x00\x07")
    wire.write(release)
    assert await wire.read() == (0x70, b"\x00\x07")
    assert list(read_all(stack).values()) == [b"once"]
    # the packet id is free again, for good
    await asyncio.to_thread(stack.gateway.kill)
    await asyncio.to_thread(stack.gateway.start)
    wire = await Wire.open(stack.port)
    wire.write(connect("device", clean=False))
    assert await wire.read() == (0x20, b"\x01\x00")
    wire.write(packet(0x34, text("t/x") + b"\x00\x07" + b"another"))
    assert await wire.read() == (0x50, b"\x00\x07")
    wire.write(release)
    assert await wire.read() == (0x70, b"\x00\x07")
    assert sorted(read_all(stack).values()) == [b"another", b"once"]
    wire.close()


async def test_a_qos_2_message_sent_again_is_one_record_though_another_gateway_stands_still(stack: Stack) -> None:
    """It had begun a transaction: behind that nobody reads which packet ids are marked."""
    other = Producer(stack.cluster, transactional_id="sluice-gateway-another-0", transaction_timeout=60.0)

    def begin() -> None:
        other.init_transactions(30.0)
        other.begin()
        batch = other.batch(lambda _: None)
        for number in range(100):  # in each partition
            batch.send(SESSIONS, b"{}", mark_key("somebody", number), None)
        batch.seal()
        other.flush(30.0)

    await asyncio.to_thread(begin)
    publish = packet(0x34, text("t/x") + b"\x00\x07" + b"once")
    wire = await Wire.open(stack.port)
    wire.write(connect("device", clean=False))
    assert await wire.read() == (0x20, b"\x00\x00")
    wire.write(publish)
    assert await wire.read() == (0x50, b"\x00\x07")  # the device never hears of it
    await asyncio.to_thread(stack.gateway.kill)
    await asyncio.to_thread(stack.gateway.start, ready=False)
    deadline = time.monotonic() + 3
    while b"ready" not in stack.gateway.since_start() and time.monotonic() < deadline:  # noqa: ASYNC110  # polled
        await asyncio.sleep(0.05)
    await asyncio.to_thread(other.abort, 30.0)
    await asyncio.to_thread(stack.gateway.wait_ready)
    other.close(0.0)
    wire = await Wire.open(stack.port)
    wire.write(connect("device", clean=False))
    assert await wire.read() == (0x20, b"\x01\x00")
    wire.write(publish)
    assert await wire.read() == (0x50, b"\x00\x07")
    assert list(read_all(stack).values()) == [b"once"]
    wire.close()
