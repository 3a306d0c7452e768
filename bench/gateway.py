"""MQTT through one cheap load generator (mqtt_load.c): the gateway, which acknowledges what is durable, and peers."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho

from bench import peers
from bench.clusters import data_folder, embedded, free_port, wait_ready
from bench.machine import usage
from bench.peers import Peer
from bench.tables import count, table

SOURCE = Path(__file__).with_name("mqtt_load.c")
IDLE_CONNECTIONS = 2_000
SUBSCRIBERS = 1_000
DEVICES = 10_000
SUBSCRIPTIONS, PER_CONNECTION = 100_000, 1_000


class NoCompiler(RuntimeError):
    """The load generator is C, and there is no compiler on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running MQTT server and the processes whose CPU a message costs."""

    name: str
    port: int
    pids: Sequence[int]

    def cpu(self) -> float:
        return sum(usage(pid).cpu for pid in self.pids)


@contextlib.contextmanager
def load_generator() -> Iterator[Path]:
    """The compiled load generator, in a temporary folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise NoCompiler("no C compiler: the MQTT figures are left out")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "mqtt_load"
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True)
        yield program


@contextlib.contextmanager
def sluice(*listeners: str, **environment: str) -> Iterator[Server]:
    """Broker and gateway, one process each: PUBACK after the broker's fdatasync. `listeners`: beside the usual one."""
    with embedded() as broker:
        port = free_port()
        environ = {
            **os.environ,
            "SLUICE_DATA": str(broker.folder),
            "SLUICE_MQTT_LISTENERS": ",".join([f"mqtt://127.0.0.1:{port}", *listeners]),
            **environment,
        }
        with (broker.folder / "gateway.out").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], env=environ, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_ready(f"127.0.0.1:{port}", process)
            yield Server(name="Sluice", port=port, pids=(process.pid, broker.pid))
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def peer(start: Callable[[], contextlib.AbstractContextManager[Peer]]) -> Iterator[Server]:
    with start() as found:
        yield Server(name=found.name, port=found.ports["mqtt"], pids=found.pids)


SERVERS: Sequence[Callable[[], contextlib.AbstractContextManager[Server]]] = (
    # ten thousand devices at one address, which a gateway makes wait otherwise
    functools.partial(sluice, SLUICE_MQTT_CONNECTS_PER_ADDRESS="0"),
    *(functools.partial(peer, start) for start in peers.MQTT),
)


def run(program: Path, server: Server, mode: str, **options: object) -> dict[str, float]:
    """One run of the load generator; its figures."""
    words = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [str(program), "127.0.0.1", str(server.port), mode, *words], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"{server.name}: {mode} {words}: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def publish_rows(program: Path, server: Server, seconds: float) -> list[list[object]]:
    rows = []
    for qos, connections, window in ((1, 50, 20), (1, 50, 1), (1, 1, 1), (0, 50, 20)):
        rows.append(publish_row(program, server, seconds, f"QoS {qos}", qos, connections, window))
    with subscriber_that_is_away(server):
        rows.append(publish_row(program, server, seconds, "QoS 1, kept for one who is away", 1, 50, 20))
    return rows


def publish_row(
    program: Path, server: Server, seconds: float, what: str, qos: int, connections: int, window: int
) -> list[object]:
    try:
        run(program, server, "publish", qos=qos, connections=connections, window=window, seconds=1)
        before = server.cpu()
        got = run(program, server, "publish", qos=qos, connections=connections, window=window, seconds=seconds)
    except RuntimeError as error:
        return [server.name, what, connections, window, f"failed: {str(error)[-80:]}", "–", "–", "–"]
    cpu = (server.cpu() - before) / max(1.0, got["per_second"] * seconds) * 1e6
    times = [f"{got[name]:.2f}" if got.get(name) else "–" for name in ("p50_ms", "p99_ms")]
    return [server.name, what, connections, window, count(got["per_second"]), f"{cpu:.1f}", *times]


@contextlib.contextmanager
def subscriber_that_is_away(server: Server) -> Iterator[None]:
    """A persistent session with `bench/#` at QoS 1 that has gone offline: what is published has to be kept for it."""
    options = {"client_id": "away", "clean_session": False, "protocol": paho.MQTTv311}
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, **options)  # type: ignore[arg-type]  # as documented
    granted = threading.Event()
    client.on_connect = lambda *_: client.subscribe("bench/#", qos=1)
    client.on_subscribe = lambda *_: granted.set()
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    if not granted.wait(20):
        raise RuntimeError(f"{server.name}: no SUBACK")
    client.disconnect()
    client.loop_stop()
    yield


def connection_row(program: Path, server: Server, seconds: float) -> list[object]:
    """Connects per second, and what an idle connection costs in memory (of the process that holds it)."""
    run(program, server, "publish", connections=50, window=1, seconds=1)
    before = usage(server.pids[0]).rss
    holder = subprocess.Popen(
        [str(program), "127.0.0.1", str(server.port), "idle", f"connections={IDLE_CONNECTIONS}", "seconds=8"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    holder.stdout.readline()
    each = (usage(server.pids[0]).rss - before) / IDLE_CONNECTIONS
    holder.wait(60)
    connects = run(program, server, "connect", connections=50, seconds=seconds)
    return [server.name, count(connects["per_second"]), f"{each / 1024:.1f}"]


def fan_out_rows(program: Path, server: Server, seconds: float) -> list[list[object]]:
    """One publisher, 1,000 subscribers; every message reaches each of them, or the row says how many didn't."""
    rows: list[list[object]] = []
    for qos in (0, 1):
        got = run(program, server, "fanout", connections=SUBSCRIBERS, window=20, qos=qos, seconds=seconds)
        times = [f"{got[name]:.1f}" for name in ("p50_ms", "p99_ms")]
        rows.append([server.name, f"QoS {qos}", count(got["per_second"]), f"{got['lost']:.0f}", *times])
    return rows


def crowd_row(program: Path, server: Server, seconds: float) -> list[object]:
    """10,000 devices with one QoS 1 message a second each: the share of one core that they take, once all of them are
    connected and until they leave."""
    words = [f"connections={DEVICES}", "window=2", "qos=1", f"rate={DEVICES}", f"seconds={seconds + 3}"]
    with subprocess.Popen(
        [str(program), "127.0.0.1", str(server.port), "publish", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as load:
        assert load.stdout
        try:
            load.stdout.readline()
            time.sleep(2)  # what is told of them at the start is told
            before, began = server.cpu(), time.monotonic()
            time.sleep(seconds)
            share = (server.cpu() - before) / (time.monotonic() - began)
            figures, complaint = load.communicate(timeout=120)
        finally:
            load.kill()
    if load.returncode:
        raise RuntimeError(f"{server.name}: publish {words}: {complaint.strip()}")
    got = json.loads(figures)
    return [server.name, count(got["per_second"]), f"{share:.0%}", f"{got['p50_ms']:.2f}", f"{got['p99_ms']:.2f}"]


def subscriptions_row(program: Path, server: Server, seconds: float) -> list[object]:
    """The rate of QoS 1 publishes that three subscriptions match, without and with 100,000 others."""
    options = {"connections": 10, "window": 20, "qos": 1, "seconds": seconds, "topic": "crowd"}
    with contextlib.ExitStack() as stack:
        for number in range(3):
            subscribe_many(stack, server, f"match-{number}", [f"crowd/{number}"])
        run(program, server, "publish", **options)
        alone = run(program, server, "publish", **options)["per_second"]
        for number in range(SUBSCRIPTIONS // PER_CONNECTION):
            filters = [f"elsewhere/{number}/{each}/+" for each in range(PER_CONNECTION)]
            subscribe_many(stack, server, f"many-{number}", filters)
        crowded = run(program, server, "publish", **options)["per_second"]
    return [server.name, count(alone), count(crowded), f"{crowded / alone:.2f}"]


def subscribe_many(stack: contextlib.ExitStack, server: Server, client_id: str, filters: Sequence[str]) -> None:
    """A connection with these subscriptions."""
    wire = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
    wire.sendall(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(client_id)))
    answers = wire.makefile("rb")
    answers.read(4)
    for at in range(0, len(filters), 100):
        some = filters[at : at + 100]
        wire.sendall(packet(0x82, (at + 1).to_bytes(2, "big") + b"".join(text(each) + b"\x00" for each in some)))
        answers.read(4 + len(some))
    # what is delivered is read, so that no peer has to keep it
    threading.Thread(target=drain, args=(wire,), daemon=True).start()


def drain(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        wire.settimeout(None)
        while wire.recv(1 << 16):
            pass


def packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray([first])
    while True:
        length, seven = length >> 7, length & 127
        encoded.append(seven | (128 if length else 0))
        if not length:
            return bytes(encoded) + body


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


def section(scale: float) -> None:
    """Print the MQTT tables."""
    seconds = max(3.0, 10.0 * scale)
    tables: dict[str, tuple[list[str], list[list[object]]]] = {
        "MQTT publish, 100 bytes": (
            ["server", "QoS", "connections", "window", "acknowledged /s", "µs CPU each", "p50 ms", "p99 ms"],
            [],
        ),
        "MQTT connections": (["server", "connects /s", "KiB per idle connection"], []),
        "MQTT fan-out, 1 to 1,000 subscribers, 100 bytes": (
            ["server", "QoS", "deliveries /s", "lost", "p50 ms", "p99 ms"],
            [],
        ),
        "10,000 MQTT devices, one QoS 1 message a second each": (
            ["server", "acknowledged /s", "of one core", "p50 ms", "p99 ms"],
            [],
        ),
        "MQTT publish that 3 subscriptions match, without and beside 100,000 others": (
            ["server", "alone /s", "crowded /s", "ratio"],
            [],
        ),
    }
    publishing, connecting, fanning, crowd, subscribed = (rows for _, rows in tables.values())
    with load_generator() as program:
        for start in SERVERS:
            try:
                with start() as server:
                    # first, while the server is fresh: memory that a flood has grown would hide what a connection takes
                    steps: tuple[Callable[[], None], ...] = (
                        lambda: connecting.append(connection_row(program, server, seconds)),
                        lambda: crowd.append(crowd_row(program, server, seconds)),
                        lambda: fanning.extend(fan_out_rows(program, server, seconds)),
                        lambda: subscribed.append(subscriptions_row(program, server, seconds)),
                        lambda: publishing.extend(publish_rows(program, server, seconds)),
                    )
                    for step in steps:
                        try:
                            step()
                        except Exception as error:
                            print(f"not measured: {error}\n")
            except Exception as error:
                print(f"not measured: {error}\n")
    for title, (head, rows) in tables.items():
        print(table(title, head, rows))
    print(f"fdatasync of 4 KiB on this disk: p50 {sync_p50():.2f} ms\n")


def sync_p50(rounds: int = 300) -> float:
    """Milliseconds: the median time of writing 4 KiB and syncing it, where the data folders are."""
    times = []
    with data_folder() as folder, (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3
