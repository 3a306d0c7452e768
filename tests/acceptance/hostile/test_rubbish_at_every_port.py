"""Random, truncated and oversized bytes at every port of the running product end their own connection, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tests.running_product import Product, running_product

PIECES = 400  # connections per port and kind of rubbish
HUGE = (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 2**30, 100_000_001)
Rubbish = Callable[[random.Random], bytes]


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with running_product() as started:
        yield started


def noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 2_000))


def kafka_frame(body: bytes, *, declared: int | None = None) -> bytes:
    return struct.pack(">I", (len(body) if declared is None else declared) & 0xFFFFFFFF) + body


def kafka_lengths(rng: random.Random) -> bytes:
    return kafka_frame(rng.randbytes(rng.randint(0, 60)), declared=rng.choice(HUGE))


def kafka_counts(rng: random.Random) -> bytes:
    """A well-formed header, then arrays that claim up to 2^31 elements."""
    key, version = rng.choice([(0, 9), (1, 12), (3, 12), (3, 1), (19, 4), (18, 3), (11, 5), (9, 8), (22, 4), (36, 1)])
    header = struct.pack(">hhih", key, version, rng.randint(0, 2**31 - 1), 4) + b"evil"
    if rng.random() < 0.7:
        header += b"\0"
    huge = rng.choice([b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
    return kafka_frame(header + rng.randbytes(rng.randint(0, 8)) + huge + rng.randbytes(rng.randint(0, 40)))


def kafka_truncated(rng: random.Random) -> bytes:
    whole = kafka_counts(rng)
    return whole[: rng.randint(1, len(whole) - 1)]


def mqtt_connect(client: bytes = b"honest") -> bytes:
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack(">H", len(client)) + client
    return bytes([0x10, len(body)]) + body


def mqtt_lengths(rng: random.Random) -> bytes:
    first = rng.randrange(256)
    length = rng.choice(
        [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\xff"]
    )
    return bytes([first]) + length + rng.randbytes(rng.randint(0, 50))


def mqtt_after_connect(rng: random.Random) -> bytes:
    client = f"rubbish-{rng.randrange(10_000)}".encode()
    body = rng.randbytes(rng.randint(0, 60))
    return mqtt_connect(client) + bytes([rng.randrange(256), len(body)]) + body + rng.randbytes(rng.randint(0, 40))


def mqtt_truncated(rng: random.Random) -> bytes:
    whole = mqtt_connect(rng.randbytes(20))
    return whole[: rng.randint(1, len(whole) - 1)]


def http_noise(rng: random.Random) -> bytes:
    head = rng.choice([b"GET /mqtt HTTP/1.1\r\n", b"GET /live/ HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"\x16\x03\x01"])
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: " + rng.randbytes(16) + b"\r\n"
    return head + b"Host: \xff\xfe" + rng.randbytes(6) + b"\r\n" + upgrade + key + b"\r\n" + rng.randbytes(80)


def door_heads(rng: random.Random) -> bytes:
    """A request to publish, with rubbish in its topic, its query and its headers."""
    target = bytes(rng.choice(b"%+#?&=/$.abc0123456789\xff") for _ in range(rng.randint(0, 60)))
    name = rng.choice([b"Authorization: Basic ", b"Content-Length: ", b"Transfer-Encoding: ", b"Expect: ", b"\x00: "])
    head = b"POST /topics/" + target + b" HTTP/1.1\r\nHost: x\r\n" + name + rng.randbytes(rng.randint(0, 40))
    return head + b"\r\n\r\n" + rng.randbytes(rng.randint(0, 40))


def door_bodies(rng: random.Random) -> bytes:
    """A good head, then chunks that claim anything."""
    head = b"POST /topics/rubbish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [
        b"%x\r\n" % rng.choice([1, 5, *HUGE]) + rng.randbytes(rng.randint(0, 9)) for _ in range(rng.randint(1, 9))
    ]
    return head + b"\r\n".join(chunks)


KINDS: dict[str, tuple[Rubbish, ...]] = {
    "kafka": (noise, kafka_lengths, kafka_counts, kafka_truncated),
    "internal": (noise, kafka_lengths, kafka_counts, kafka_truncated),
    "mqtt": (noise, mqtt_lengths, mqtt_after_connect, mqtt_truncated),
    "ws": (noise, http_noise, mqtt_after_connect),
    "door": (noise, http_noise, door_heads, door_bodies),
    "http": (noise, http_noise),
}


def ports(product: Product) -> dict[str, int]:
    internal = json.loads((product.data / "internal.json").read_text())["bootstrap"]
    return {
        "kafka": int(product.kafka.rpartition(":")[2]),
        "internal": int(internal.rpartition(":")[2]),
        "mqtt": product.mqtt_port,
        "ws": product.ws_port,
        "door": product.door_port,
        "http": int(product.http.rpartition(":")[2]),
    }


def throw(port: int, rubbish: bytes) -> None:
    """Send it, read for a moment what comes back, and go; a peer that closes early is what we hope for."""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(rubbish)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(60)
        while connection.recv(65536):
            pass


def descriptors(pid: int) -> Counter[str]:
    """Its descriptors, by what they are of: a log's files come with its topics, and are no leak of connections."""
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(descriptor)
            kinds["file" if target.startswith("/") else target.partition(":")[0]] += 1
    return kinds


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_rubbish_ends_its_own_connection_and_nothing_else(product: Product) -> None:
    seed = 20261121
    names = ("broker", "gateway", "web")
    pids = {name: product.pid_of(name) for name in names}
    acknowledged: list[int] = []
    broken: list[object] = []
    honest = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="honest-device")
    honest.on_publish = lambda *arguments: acknowledged.append(arguments[2])
    honest.on_disconnect = lambda *arguments: broken.append(arguments)
    honest.connect("127.0.0.1", product.mqtt_port)
    honest.loop_start()

    # warm up first: caches and pools that fill once are no leak
    throw_all(product, random.Random(seed ^ 1), PIECES // 8)
    settle(product, pids)
    before = {name: (descriptors(pid), resident(pid)) for name, pid in pids.items()}
    sent = 0
    for _ in range(4):
        throw_all(product, random.Random(seed + sent), PIECES // 4)
        for _ in range(25):
            honest.publish("honest/beside", b"still here", qos=1)
            sent += 1
    deadline = time.monotonic() + 120
    while len(acknowledged) < sent and time.monotonic() < deadline:
        time.sleep(0.05)
    settle(product, pids)
    honest.on_disconnect = None
    honest.disconnect()
    honest.loop_stop()

    assert len(acknowledged) == sent, "an honest device's messages were not all acknowledged"
    assert not broken, "an honest device was disconnected"
    assert {name: product.pid_of(name) for name in names} == pids, "a process died"
    assert product.health()[0] == 200
    for name, pid in pids.items():
        deadline = time.monotonic() + 60  # a closing connection says its last word for a while
        while (now := descriptors(pid))["socket"] > before[name][0]["socket"] + 12:
            assert time.monotonic() < deadline, f"{name} keeps connections: {before[name][0]} before, {now} now"
            time.sleep(0.2)
        assert now["file"] <= before[name][0]["file"] + 100, f"{name} keeps files open"
        assert resident(pid) <= before[name][1] + 48 * 2**20, f"{name} keeps memory"


def throw_all(product: Product, rng: random.Random, pieces: int) -> None:
    with ThreadPoolExecutor(16) as pool:
        for name, port in ports(product).items():
            for kind in KINDS[name]:
                list(pool.map(lambda rubbish, port=port: throw(port, rubbish), [kind(rng) for _ in range(pieces)]))


def settle(product: Product, pids: dict[str, int]) -> None:
    """Wait until the connections thrown at the product are gone from its processes."""
    deadline = time.monotonic() + 60
    last: dict[str, Counter[str]] = {}
    while time.monotonic() < deadline:
        now = {name: descriptors(pid) for name, pid in pids.items()}
        if now == last:
            return
        last = now
        time.sleep(1.0)


def test_a_silent_connection_is_closed_within_the_deadline(product: Product) -> None:
    """A device that never says CONNECT is sent away after 5 s."""
    with socket.create_connection(("127.0.0.1", product.mqtt_port)) as silent:
        readable, _, _ = select.select([silent], [], [], 60)
        assert readable
        assert silent.recv(10) == b""
