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
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
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


made: Synchronized[int] = multiprocessing.get_context("fork").Value("q", 0)  # connections, by the attacker


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
    return CONNECT + packet(
        0x82, b"\x00\x01" + b"".join(text(f"w{number}/{each}/+") + b"\x01" for each in range(1_000))
    )


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


ATTACKS: Sequence[tuple[str, Attack]] = (
    ("nothing, for comparison", lambda doors, stop: None),
    ("work that leaves the gateway alone, for comparison", lambda doors, stop: spin(stop)),
    ("1,000 silent sockets", held(b"")),
    ("1,000 sockets claiming a CONNECT of 256 MB", held(b"\x10\xff\xff\xff\x7f")),
    ("1,000 sockets with a remaining length of 5 bytes", held(b"\x10\xff\xff\xff\xff\xff")),
    ("1,000 WebSockets that never finish their upgrade", lambda doors, stop: hold(doors.ws, b"GET /mqtt HT", stop)),
    ("CONNECT dripping byte by byte, 100 at a time", lambda doors, stop: drip(doors.mqtt, stop)),
    ("a flood of CONNECT", flooded(lambda _: CONNECT)),
    ("a flood of TLS hellos", lambda doors, stop: flood(doors.mqtts, lambda _: HELLO, stop)),
    ("a flood of wrong passwords", flooded(guess)),
    ("a flood of rubbish", flooded(lambda _: os.urandom(600), answers=False)),
    ("subscribe bombs", flooded(bomb)),
    ("subscribe bombs of 1,000 filters", flooded(wide)),
    ("topics of 30,000 levels", flooded(deep)),
    ("wildcard and $ publishes", flooded(lambda _: CONNECT + packet(0x30, text("a/#") + b"x"))),
)


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
        mqtts, ws = free_port(), free_port()
        listeners = f"mqtts://127.0.0.1:{mqtts}", f"ws://127.0.0.1:{ws}/mqtt"
        with sluice(*listeners, SLUICE_TLS_CERTIFICATE=certificate, SLUICE_TLS_KEY=key) as server:
            yield server, Doors(server.port, mqtts, ws)


def section(scale: float, words: Sequence[str] = ()) -> None:
    """Print the table; of attacks whose names contain one of the words, if there are any."""
    seconds = max(3.0, 10 * scale)
    rows: list[list[object]] = []
    try:
        with load_generator() as program, gateway() as (server, doors):
            run(program, server, "publish", **HONEST, seconds=seconds)
            for name, attack in ATTACKS:
                if not words or any(word in name for word in words):
                    rows.append(attacked_row(program, server, doors, name, attack, seconds / 2))
    except Exception as error:
        print(f"not measured: {error}\n")
    head = ["attack", "connections /s", "CPU of gateway and broker", "p99 ms without", "p99 ms meanwhile", "ratio"]
    head += ["MiB more after", "descriptors more after"]
    print(table("Honest devices (40, 400 QoS 1 msg/s) while the gateway is attacked", head, rows))


if __name__ == "__main__":
    section(1.0, sys.argv[1:])
