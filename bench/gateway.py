"""MQTT through one cheap load generator (mqtt_load.c): the gateway with durable acknowledgements, and mosquitto."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.clusters import data_folder, embedded, free_port, wait_ready
from bench.machine import usage
from bench.tables import count, table

SOURCE = Path(__file__).with_name("mqtt_load.c")
IDLE_CONNECTIONS = 2_000


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
def sluice() -> Iterator[Server]:
    """Broker and gateway, one process each: PUBACK after the broker's fdatasync."""
    with embedded() as broker:
        port = free_port()
        environ = {
            **os.environ,
            "SLUICE_DATA": str(broker.folder),
            "SLUICE_MQTT_LISTENERS": f"mqtt://127.0.0.1:{port}",
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
def mosquitto() -> Iterator[Server]:
    """mosquitto at its defaults: acknowledges from memory."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).exists():
        raise FileNotFoundError("mosquitto is not installed")
    with data_folder() as folder:
        port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n")
        process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_ready(f"127.0.0.1:{port}", process)
            yield Server(name="mosquitto (not durable)", port=port, pids=(process.pid,))
        finally:
            process.terminate()
            process.wait(10)


SERVERS: Sequence[Callable[[], contextlib.AbstractContextManager[Server]]] = (sluice, mosquitto)


def run(program: Path, server: Server, mode: str, **options: object) -> dict[str, float]:
    """One run of the load generator; its figures."""
    words = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [str(program), "127.0.0.1", str(server.port), mode, *words], capture_output=True, text=True, timeout=180
    )
    if done.returncode:
        raise RuntimeError(f"{server.name}: {mode} {words}: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def publish_rows(program: Path, server: Server, seconds: float) -> list[list[object]]:
    rows = []
    for qos, connections, window in ((1, 50, 20), (1, 50, 1), (1, 1, 1), (0, 50, 20)):
        run(program, server, "publish", qos=qos, connections=connections, window=window, seconds=1)
        before = server.cpu()
        got = run(program, server, "publish", qos=qos, connections=connections, window=window, seconds=seconds)
        cpu = (server.cpu() - before) / max(1.0, got["per_second"] * seconds) * 1e6
        times = [f"{got[name]:.2f}" if got.get(name) else "–" for name in ("p50_ms", "p99_ms")]
        rows.append([server.name, f"QoS {qos}", connections, window, count(got["per_second"]), f"{cpu:.1f}", *times])
    return rows


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


def section(scale: float) -> None:
    """Print the MQTT tables."""
    seconds = max(3.0, 10.0 * scale)
    published: list[list[object]] = []
    connected: list[list[object]] = []
    with load_generator() as program:
        for start in SERVERS:
            try:
                with start() as server:
                    # first, while the server is fresh: memory that a flood has grown would hide what a connection takes
                    connected.append(connection_row(program, server, seconds))
                    published += publish_rows(program, server, seconds)
            except Exception as error:
                print(f"not measured: {error}\n")
    head = ["server", "QoS", "connections", "window", "acknowledged /s", "µs CPU each", "p50 ms", "p99 ms"]
    print(table("MQTT publish, 100 bytes", head, published))
    print(table("MQTT connections", ["server", "connects /s", "KiB per idle connection"], connected))
