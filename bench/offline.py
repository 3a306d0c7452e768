"""Sessions that are away while messages pass by: what those cost, and what coming back costs.

10,000 persistent sessions subscribe to a topic each and leave; then messages flow of which one in ten is for one of
them.
"""

from __future__ import annotations

import contextlib
import random
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.gateway import Server, packet, sluice, text
from bench.machine import usage
from bench.tables import count, table

SESSIONS = 10_000
SAMPLE = 200  # of them come back
BOUND = 1_000  # messages that are kept for one, by default
RATE = 10_000
MATCHES = 0.1
TOGETHER = 500  # sessions made in one go
WRITERS = 20
WINDOW = 50  # messages a writer may have without an acknowledgement
PAYLOAD = b"x" * 100


@contextlib.contextmanager
def connected(server: Server, client_id: str, *, clean: bool) -> Iterator[socket.socket]:
    with dialled(server, client_id, clean=clean) as wire:
        read(wire, 4)
        yield wire
        wire.sendall(b"\xe0\x00")


def dialled(server: Server, client_id: str, *, clean: bool) -> socket.socket:
    """A connection that has said CONNECT."""
    wire = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    flags = b"\x02" if clean else b"\x00"
    wire.sendall(packet(0x10, text("MQTT") + b"\x04" + flags + b"\x00\x00" + text(client_id)))
    return wire


def read(wire: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = wire.recv(size - len(found))
        if not more:
            raise RuntimeError("the gateway closed the connection")
        found += more
    return found


def take(wire: socket.socket, wanted: int) -> int:
    """Acknowledge so many QoS 1 messages; their bytes."""
    buffer, got, size = b"", 0, 0
    while got < wanted:
        buffer += wire.recv(1 << 16)
        answers = b""
        while len(buffer) >= 2:
            length, at = buffer[1], 2
            if length & 0x80:
                if len(buffer) < 3:
                    break
                length, at = length & 0x7F | buffer[2] << 7, 3
            if len(buffer) < at + length:
                break
            body = buffer[at : at + length]
            topic = int.from_bytes(body[:2], "big")
            answers += b"\x40\x02" + body[2 + topic : 4 + topic]
            size += at + length
            got += 1
            buffer = buffer[at + length :]
        if answers:
            wire.sendall(answers)
    return size


def leave_behind(server: Server, sessions: Sequence[int]) -> None:
    """Persistent sessions, each with a subscription of its own, and away."""
    for first in range(0, len(sessions), TOGETHER):
        numbers = sessions[first : first + TOGETHER]
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(dialled(server, f"away-{number}", clean=False)) for number in numbers]
            for number, wire in zip(numbers, wires, strict=True):
                read(wire, 4)
                wire.sendall(packet(0x82, b"\x00\x01" + text(f"to/{number}") + b"\x01"))
            for wire in wires:
                read(wire, 5)
                wire.sendall(b"\xe0\x00")


def flow(server: Server, seconds: float, matches: float, waiting: dict[int, int]) -> float:
    """Messages of QoS 1 at RATE or as fast as they are acknowledged; how many a second."""
    dice = random.Random(1)
    sent = 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(connected(server, f"writer-{n}", clean=True)) for n in range(WRITERS)]
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            if sent > passed * RATE:
                time.sleep(0.001)
                continue
            for wire in writers:
                frames = b""
                for number in range(WINDOW):
                    if dice.random() < matches:
                        target = dice.randrange(SESSIONS)
                        waiting[target] = waiting.get(target, 0) + 1
                        topic = f"to/{target}"
                    else:
                        topic = "to/nobody"
                    frames += packet(0x32, text(topic) + (number + 1).to_bytes(2, "big") + PAYLOAD)
                wire.sendall(frames)
            for wire in writers:
                read(wire, 4 * WINDOW)
            sent += WINDOW * WRITERS
        return sent / (time.monotonic() - started)


def return_of_the_idle(server: Server, numbers: Iterable[int]) -> str:
    """Sessions for which nothing waits come back: until the CONNACK, and the CPU of gateway and broker."""
    times, before = [], server.cpu()
    for number in numbers:
        started = time.monotonic()
        with connected(server, f"away-{number}", clean=False):
            times.append((time.monotonic() - started) * 1e3)
    return f"{statistics.median(times):.1f} ms, {(server.cpu() - before) / len(times) * 1e3:.1f} ms of CPU"


def beyond_the_bound(server: Server, number: int) -> str:
    """One gets half as many again as are kept for it: how many it finds."""
    with connected(server, "writer-of-many", clean=True) as wire:
        for first in range(0, BOUND * 3 // 2, WINDOW):
            frames = (
                packet(0x32, text(f"to/{number}") + (each + 1).to_bytes(2, "big") + PAYLOAD)
                for each in range(first, first + WINDOW)
            )
            wire.sendall(b"".join(frames))
            read(wire, 4 * WINDOW)
    time.sleep(3)
    with connected(server, f"away-{number}", clean=False) as wire:
        take(wire, BOUND)
        wire.sendall(b"\xc0\x00")
        return f"{BOUND:,}" if read(wire, 2) == b"\xd0\x00" else f"more than {BOUND:,}"


def come_back(server: Server, waiting: dict[int, int], sample: int) -> tuple[list[float], int]:
    """Milliseconds until each of some sessions has all that waited for it; how many messages that were."""
    times, messages = [], 0
    for number in sorted(waiting, key=lambda each: -waiting[each])[:sample]:
        wanted = min(waiting[number], 1_000)
        started = time.monotonic()
        with connected(server, f"away-{number}", clean=False) as wire:
            take(wire, wanted)
            times.append((time.monotonic() - started) * 1e3)
        messages += wanted
    return times, messages


def section(scale: float) -> None:
    """Print the table."""
    seconds = max(5.0, 30.0 * scale)
    rows: list[list[object]] = []
    with sluice() as server:
        before = usage(server.pids[0]).rss
        leave_behind(server, range(SESSIONS))
        each = (usage(server.pids[0]).rss - before) / SESSIONS / 1024
        rows.append([f"{SESSIONS:,} sessions that are away: memory each", f"{each:.1f} KiB"])
        idle = range(SESSIONS, SESSIONS + 2 * SAMPLE)
        leave_behind(server, idle)
        time.sleep(3)
        rows.append([f"{SAMPLE} come back to nothing, p50", return_of_the_idle(server, idle[:SAMPLE])])
        for matches in (0.0, MATCHES):
            waiting: dict[int, int] = {}
            cpu, memory = server.cpu(), usage(server.pids[0]).rss
            rate = flow(server, seconds, matches, waiting)
            time.sleep(3)  # the last checkpoint, and the local copy
            used = (server.cpu() - cpu) / (rate * seconds) * 1e6
            more = (usage(server.pids[0]).rss - memory) / 2**20
            name = f"messages past them, {matches:.0%} for one of them"
            rows.append([f"{name}: acknowledged", f"{count(rate)}/s"])
            rows.append([f"{name}: CPU of gateway and broker", f"{used:.1f} µs each"])
            rows.append([f"{name}: memory more afterwards", f"{more:.0f} MiB"])
        rows.append([f"{SAMPLE} come back to nothing after all that, p50", return_of_the_idle(server, idle[SAMPLE:])])
        cpu = server.cpu()
        times, messages = come_back(server, waiting, SAMPLE)
        cpu = (server.cpu() - cpu) / len(times) * 1e3
        rows.append(
            [
                f"{SAMPLE} come back for {messages / len(times):.0f} messages each, p50",
                f"{statistics.median(times):.1f} ms, {cpu:.1f} ms of CPU",
            ]
        )
        nobody = next(number for number in range(SESSIONS) if not waiting.get(number))
        name = f"of {BOUND * 3 // 2:,} messages for one of them, {BOUND:,} being kept: found"
        rows.append([name, beyond_the_bound(server, nobody)])
        rows.append(["the gateway's local copy", f"{local_copy(server) / 2**20:.1f} MiB"])
    print(table("Sessions that are away", ["what", "figure"], rows))


def local_copy(server: Server) -> int:
    """Bytes of the gateway's SQLite file."""
    folder = Path(f"/proc/{server.pids[0]}/environ").read_bytes().split(b"SLUICE_DATA=", 1)[1].split(b"\x00", 1)[0]
    return sum(path.stat().st_size for path in Path(folder.decode()).glob("gateway*.sqlite3"))
