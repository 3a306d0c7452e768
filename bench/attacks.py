"""What honest devices notice of attacks on the gateway: their p99 without and with, in turns, and what stays behind.

An attacker is a process of its own at the lowest priority: on a small machine its own work would else take the CPU away
from those it attacks, which says nothing of the gateway. It does as much as it can with what is left, and the table
says how much that was. All of it comes from one address; honest devices come from others.

`python -m bench.attacks [WORDS …]` measures the attacks whose names contain one of the words, alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import selectors
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from bench.clusters import free_port
from bench.gateway import Server, load_generator, packet, run, sluice, text
from bench.machine import usage
from bench.tables import table

HONEST = {"connections": 40, "window": 1, "qos": 1, "rate": 400, "prefix": "honest", "topic": "honest"}
SOCKETS = 1_000
ROUNDS = 3  # of quiet and attacked
CONNECT = packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text(""))


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports of a gateway."""

    mqtt: int
    mqtts: int
    ws: int
    http: int


Attack = Callable[[Doors, threading.Event], None]


def hold(port: int, first: bytes, stop: threading.Event, *, count: int = SOCKETS) -> None:
    """So many connections that say `first` and then nothing; those that are closed are opened again."""
    held: list[socket.socket] = []
    while not stop.is_set():
        while len(held) < count and not stop.is_set():
            with contextlib.suppress(OSError):
                held.append(opened(port, first))
        stop.wait(0.2)
        held = [wire for wire in held if alive(wire)]
    for wire in held:
        wire.close()


made: Synchronized[int] = multiprocessing.get_context("fork").Value(
    "q", 0
)  # connections by the attacker, and what they ask again


def opened(port: int, first: bytes) -> socket.socket:
    made.value += 1
    wire = socket.create_connection(("127.0.0.1", port), timeout=5)
    if first:
        wire.sendall(first)
    wire.setblocking(False)
    return wire


def alive(wire: socket.socket) -> bool:
    """Whether the other side has kept it open; what it says is read and forgotten."""
    try:
        while True:
            if not wire.recv(65536):
                break
    except BlockingIOError:
        return True
    except OSError:
        pass
    wire.close()
    return False


def flood(port: int, each: Callable[[int], bytes], stop: threading.Event, *, answers: bool = True) -> None:
    """Connection after connection that says `each(n)`, as fast as one thread can, waiting for the first answer."""
    number = 0
    while not stop.is_set():
        number += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as wire:
            made.value += 1
            wire.sendall(each(number))
            if answers:
                wire.recv(4)


def drip(port: int, stop: threading.Event) -> None:
    """A hundred connections that send a CONNECT byte by byte."""
    said = packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("d" * 60))
    wires = [opened(port, b"") for _ in range(100)]
    for byte in said:
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.send(bytes([byte]))
        if stop.wait(0.2):
            break
    for wire in wires:
        wire.close()


class Pressing:
    """One connection that says `first`, and then one of `again` after the other, each as soon as anything was answered.
    "NAME" in `first` is its own."""

    def __init__(self, port: int, name: str, first: bytes, again: Sequence[bytes]) -> None:
        self.wire = opened(port, first.replace(b"NAME", name.encode()))
        self._again = again
        self._turn = 0
        self._left = b""  # of what is being said

    def go_on(self) -> int:
        """What it waits for next; 0: it was closed."""
        if not self._left:
            if not alive(self.wire):
                return 0
            self._left = self._again[self._turn % len(self._again)]
            self._turn += 1
            made.value += 1
        try:
            self._left = self._left[self.wire.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            self.wire.close()
            return 0
        return selectors.EVENT_WRITE if self._left else selectors.EVENT_READ


def press(port: int, first: bytes, again: Sequence[bytes], stop: threading.Event, *, count: int = 20) -> None:
    """So many connections that are `Pressing`; those that are closed are opened again."""
    selector = selectors.DefaultSelector()
    missing = {f"{number:04d}" for number in range(count)}
    while not stop.is_set():
        if missing:
            with contextlib.suppress(OSError):
                name = min(missing)
                pressing = Pressing(port, name, first, again)
                missing.discard(name)
                selector.register(pressing.wire, selectors.EVENT_READ, (name, pressing))
        for key, _ in selector.select(0.0 if missing else 0.2):
            name, pressing = key.data
            selector.unregister(pressing.wire)
            waits_for = pressing.go_on()
            if waits_for:
                selector.register(pressing.wire, waits_for, key.data)
            else:
                missing.add(name)


def spin(stop: threading.Event) -> None:
    """As busy as any attacker: what a neighbour of the lowest priority costs on a machine of two cores."""
    while not stop.is_set():
        pass


def guess(number: int) -> bytes:
    return packet(0x10, text("MQTT") + b"\x04\xc2\x00\x00" + text("honest") + text("honest") + text(f"guess-{number}"))


def bomb(number: int) -> bytes:
    """A session that subscribes to 2,000 deep filters."""
    deep = "/".join("+" * 60)
    filters = [text(f"{number}/{each}/{deep}") + b"\x01" for each in range(400)]
    return CONNECT + b"".join(packet(0x82, b"\x00\x01" + b"".join(filters[at : at + 100])) for at in range(0, 400, 100))


def wide(number: int) -> bytes:
    """A session that subscribes to 1,000 filters at once."""
    return CONNECT + filters(0x82, f"w{number}")


def filters(kind: int, name: str) -> bytes:
    """SUBSCRIBE or UNSUBSCRIBE of 1,000 filters."""
    option = b"\x01" if kind == 0x82 else b""
    return packet(kind, b"\x00\x01" + b"".join(text(f"{name}/{each}/+") + option for each in range(1_000)))


def lasting(name: str) -> bytes:
    """CONNECT of a session that stays."""
    return packet(0x10, text("MQTT") + b"\x04\x00\x00\x00" + text(name))


ALTERNATELY = [packet(0x82, b"\x00\x01" + text("w/1/+") + bytes((qos,))) for qos in (0, 1)]


def bloated(number: int) -> bytes:
    """A message with 200,000 properties."""
    properties = b"\x26\x00\x00\x00\x00" * 200_000
    connect = packet(0x10, text("MQTT") + b"\x05\x02\x00\x00\x00" + text(""))
    return connect + packet(0x30, text("x") + varint(len(properties)) + properties)


def varint(number: int) -> bytes:
    return packet(0, bytes(number))[1:-number]


def dying(number: int) -> bytes:
    """A session whose will is to be retained."""
    return packet(0x10, text("MQTT") + b"\x04\x2e\x00\x00" + text("") + text(f"will/{number}") + text("gone"))


def unreleased(number: int) -> bytes:
    """A thousand messages of QoS 2, none of which is ever released."""
    return CONNECT + b"".join(packet(0x34, text("q") + each.to_bytes(2, "big") + b"x") for each in range(1, 1_001))


def request(body: bytes, *, user: str = "", length: int | None = None, path: str = "h") -> bytes:
    """One message by HTTP."""
    credential = f"Authorization: Basic {b64encode(user.encode()).decode()}\r\n" if user else ""
    size = len(body) if length is None else length
    return f"POST /topics/{path} HTTP/1.1\r\nHost: x\r\n{credential}Content-Length: {size}\r\n\r\n".encode() + body


UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
RETAINED = 20_000


def keep(doors: Doors) -> None:
    """Have many messages retained, from an address of its own."""
    with socket.create_connection(("127.0.0.1", doors.mqtt), timeout=60, source_address=("127.0.9.9", 0)) as wire:
        wire.sendall(CONNECT)
        for begin in range(0, RETAINED, 500):
            numbers = range(begin, begin + 500)
            wire.sendall(b"".join(packet(0x33, text(f"kept/{each}") + b"\x00\x01" + b"x") for each in numbers))
        acknowledged = -4  # the CONNACK
        while acknowledged < 4 * RETAINED:
            acknowledged += len(wire.recv(65536))


def hello() -> bytes:
    """How a TLS client begins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = hello()


def deep(number: int) -> bytes:
    """Publishes to a topic of 30,000 levels."""
    return CONNECT + packet(0x30, text("/" * 30_000) + b"x") * 20


def held(first: bytes) -> Attack:
    return lambda doors, stop: hold(doors.mqtt, first, stop)


def flooded(each: Callable[[int], bytes], *, answers: bool = True) -> Attack:
    return lambda doors, stop: flood(doors.mqtt, each, stop, answers=answers)


def pressed(first: bytes, *again: bytes, count: int = 20) -> Attack:
    return lambda doors, stop: press(doors.mqtt, first, again, stop, count=count)


def asked(*again: bytes, count: int = 20) -> Attack:
    """By HTTP, over kept connections."""
    return lambda doors, stop: press(doors.http, again[0], again, stop, count=count)


def returning(doors: Doors, stop: threading.Event) -> None:
    """Sessions of 1,000 filters are left and come back to."""
    names = [f"wide-{number:04d}" for number in range(20)]
    for name in names:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", doors.mqtt), timeout=5) as wire:
            wire.sendall(lasting(name) + filters(0x82, "w"))
            while len(wire.recv(65536)) < 500:  # the SUBACK
                pass
    flood(doors.mqtt, lambda number: lasting(names[number % 20]), stop)


ATTACKS: Sequence[tuple[str, Attack]] = (
    ("nothing, for comparison", lambda doors, stop: None),
    ("work that leaves the gateway alone, for comparison", lambda doors, stop: spin(stop)),
    ("1,000 silent sockets", held(b"")),
    ("1,000 sockets claiming a CONNECT of 256 MB", held(b"\x10\xff\xff\xff\x7f")),
    ("1,000 sockets with a remaining length of 5 bytes", held(b"\x10\xff\xff\xff\xff\xff")),
    ("1,000 WebSockets that never finish their upgrade", lambda doors, stop: hold(doors.ws, b"GET /mqtt HT", stop)),
    ("1,000 WebSockets without a CONNECT", lambda doors, stop: hold(doors.ws, UPGRADE, stop)),
    ("CONNECT dripping byte by byte, 100 at a time", lambda doors, stop: drip(doors.mqtt, stop)),
    ("a flood of CONNECT", flooded(lambda _: CONNECT)),
    ("a flood of CONNECT, each of a session that stays", flooded(lambda number: lasting(f"stays-{number}"))),
    ("a flood of wills to be retained", flooded(dying)),
    ("a flood of TLS hellos", lambda doors, stop: flood(doors.mqtts, lambda _: HELLO, stop)),
    ("a flood of wrong passwords", flooded(guess)),
    ("a flood of rubbish", flooded(lambda _: os.urandom(600), answers=False)),
    ("a flood of CONNECT to lasting sessions of 1,000", returning),
    ("subscribe bombs", flooded(bomb)),
    ("subscribe bombs of 1,000 filters", flooded(wide)),
    ("SUBSCRIBE and UNSUBSCRIBE of 1,000 filters in turns", pressed(CONNECT, filters(0x82, "t"), filters(0xA2, "t"))),
    (
        "one filter again and again, in 20 lasting sessions of 1,000",
        pressed(lasting("wide-NAME") + filters(0x82, "w"), *ALTERNATELY),
    ),
    (
        f"SUBSCRIBE and UNSUBSCRIBE in turns, {RETAINED:,} messages retained",
        pressed(
            CONNECT, packet(0x82, b"\x00\x01" + text("kept/+") + b"\x00"), packet(0xA2, b"\x00\x01" + text("kept/+"))
        ),
    ),
    ("topics of 30,000 levels", flooded(deep)),
    ("wildcard and $ publishes", flooded(lambda _: CONNECT + packet(0x30, text("a/#") + b"x"))),
    ("messages of 200,000 properties", flooded(bloated)),
    ("QoS 2 never released", flooded(unreleased)),
    ("PINGREQ as fast as it goes", pressed(CONNECT, b"\xc0\x00" * 20_000)),
    ("HTTP, a connection each", lambda doors, stop: flood(doors.http, lambda _: request(b"x"), stop)),
    ("HTTP over 20 connections", asked(request(b"x") * 50)),
    ("HTTP with wrong passwords", asked(request(b"x", user="honest:guess"))),
    ("HTTP with bodies of 1 MB", asked(request(b"x" * 1_000_000), count=4)),
    ("1,000 HTTP bodies that never end", lambda doors, stop: hold(doors.http, request(b"", length=1000), stop)),
)
PREPARED: dict[str, Callable[[Doors], None]] = {name: keep for name, _ in ATTACKS if name.endswith("messages retained")}


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.contextmanager
def under(attack: Attack, doors: Doors) -> Iterator[None]:
    attacker = multiprocessing.get_context("fork").Process(target=attacking, args=(attack, doors), daemon=True)
    attacker.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        attacker.terminate()
        attacker.join(30)
        attacker.kill()


def attacking(attack: Attack, doors: Doors) -> None:
    """The attacker's process."""
    os.nice(19)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    attack(doors, stop)


def settled_descriptors(server: Server, before: int) -> int:
    deadline = time.monotonic() + 15
    while descriptors(server.pids[0]) > before and time.monotonic() < deadline:
        time.sleep(0.2)
    return descriptors(server.pids[0]) - before


def attacked_row(
    program: Path, server: Server, doors: Doors, name: str, attack: Attack, seconds: float
) -> list[object]:
    memory, open_before = usage(server.pids[0]).rss, descriptors(server.pids[0])
    quiet, attacked = [], []
    connections = cpu = 0.0
    for _ in range(ROUNDS):
        quiet.append(run(program, server, "publish", **HONEST, seconds=seconds)["p99_ms"])
        before, spent = made.value, server.cpu()
        with under(attack, doors):
            attacked.append(run(program, server, "publish", **HONEST, seconds=seconds)["p99_ms"])
        connections += made.value - before
        cpu += server.cpu() - spent
        left = settled_descriptors(server, open_before)
    took = ROUNDS * (seconds + 0.5)
    calm, meanwhile = statistics.median(quiet), statistics.median(attacked)
    return [
        name,
        f"{connections / took:.0f}",
        f"{cpu / took:.0%}",
        f"{calm:.2f}",
        f"{meanwhile:.2f}",
        f"{meanwhile / calm:.1f}",
        f"{(usage(server.pids[0]).rss - memory) / 2**20:+.1f}",
        f"{left:+d}",
    ]


@contextlib.contextmanager
def gateway() -> Iterator[tuple[Server, Doors]]:
    """A gateway that listens with TLS and for WebSockets too."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
                *("-days", "1", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        mqtts, ws, http = free_port(), free_port(), free_port()
        listeners = f"mqtts://127.0.0.1:{mqtts}", f"ws://127.0.0.1:{ws}/mqtt", f"http://127.0.0.1:{http}"
        with sluice(*listeners, SLUICE_TLS_CERTIFICATE=certificate, SLUICE_TLS_KEY=key) as server:
            yield server, Doors(server.port, mqtts, ws, http)


def section(scale: float, words: Sequence[str] = ()) -> None:
    """Print the table; of attacks whose names contain one of the words, if there are any."""
    seconds = max(3.0, 8 * scale)
    rows: list[list[object]] = []
    try:
        with load_generator() as program, gateway() as (server, doors):
            run(program, server, "publish", **HONEST, seconds=seconds)
            for name, attack in ATTACKS:
                if not words or any(word in name for word in words):
                    if name in PREPARED:
                        PREPARED[name](doors)
                    rows.append(attacked_row(program, server, doors, name, attack, seconds / 2))
    except Exception as error:
        print(f"not measured: {error}\n")
    head = [
        "attack",
        "connections or questions /s",
        "CPU of gateway and broker",
        "p99 ms without",
        "p99 ms meanwhile",
        "ratio",
    ]
    head += ["MiB more after", "descriptors more after"]
    print(table("Honest devices (40, 400 QoS 1 msg/s) while the gateway is attacked", head, rows))


if __name__ == "__main__":
    section(1.0, sys.argv[1:])
