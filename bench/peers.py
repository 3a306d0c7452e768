"""Peers from Debian's packages: mosquitto, RabbitMQ and NATS, each on loopback, free ports and a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clusters import accepts, data_folder, free_port, wait_ready

START_SECONDS = 90.0


class NotInstalled(RuntimeError):
    """A peer whose program is not on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running server: `ports` by protocol (`mqtt`, `amqp`, `nats`), and the processes that, with their
    children, count for CPU and memory."""

    name: str
    ports: Mapping[str, int]
    pids: Sequence[int] = field(default_factory=tuple)


def _program(*paths: str) -> str:
    for path in paths:
        found = shutil.which(path)
        if found:
            return found
    raise NotInstalled(f"{Path(paths[0]).name} is not installed")


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, all of which is gone at the end."""
    with (folder / "peer.out").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        for order in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, order)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


@contextlib.contextmanager
def mosquitto(*, durable: bool = False) -> Iterator[Peer]:
    """At its defaults it acknowledges from memory. `durable`: it writes its whole state to the disk after every change,
    which is all it has, and without fsync."""
    program = _program("mosquitto", "/usr/sbin/mosquitto")
    with data_folder() as folder:
        port = free_port()
        config = folder / "mosquitto.conf"
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 100000"]
        if durable:
            lines += [
                "persistence true",
                f"persistence_location {folder}/",
                "autosave_interval 1",
                "autosave_on_changes true",
            ]
        config.write_text("\n".join(lines) + "\n")
        if durable and os.geteuid() == 0:
            shutil.chown(folder, "mosquitto")  # it gives root's rights away when it starts
        with _running([program, "-c", str(config)], folder, os.environ) as process:
            wait_ready(f"127.0.0.1:{port}", process)
            name = "mosquitto, autosave on change" if durable else "mosquitto (from memory)"
            yield Peer(name=name, ports={"mqtt": port}, pids=(process.pid,))


@contextlib.contextmanager
def nats() -> Iterator[Peer]:
    """NATS with JetStream in files, which its MQTT needs. It syncs them now and then, not before it acknowledges."""
    program = _program("nats-server", "/usr/sbin/nats-server")
    with data_folder() as folder:
        port, mqtt = free_port(), free_port()
        config = folder / "nats.conf"
        config.write_text(
            f'server_name: bench\nlisten: "127.0.0.1:{port}"\n'
            f'jetstream {{ store_dir: "{folder}/js"\n max_file_store: 20GB }}\n'
            f'mqtt {{ listen: "127.0.0.1:{mqtt}" }}\n'
        )
        with _running([program, "-c", str(config)], folder, os.environ) as process:
            wait_ready(f"127.0.0.1:{mqtt}", process)
            yield Peer(name="NATS JetStream", ports={"nats": port, "mqtt": mqtt}, pids=(process.pid,))


@contextlib.contextmanager
def rabbitmq() -> Iterator[Peer]:
    """RabbitMQ with its MQTT plugin; user and password are guest. Durable queues with confirms are up to the client."""
    program = _program("/usr/lib/rabbitmq/bin/rabbitmq-server")
    with data_folder() as folder:
        amqp, mqtt, distribution, names = free_port(), free_port(), free_port(), free_port()
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{amqp}\n"
            f"mqtt.listeners.tcp.default = 127.0.0.1:{mqtt}\n"
            "mqtt.allow_anonymous = true\nloopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
        (folder / ".erlang.cookie").write_text(os.urandom(12).hex())
        (folder / ".erlang.cookie").chmod(0o400)
        environ = {
            **os.environ,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"bench{amqp}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        mapper = [
            _program("epmd", "/usr/lib/erlang/erts-13.1.5/bin/epmd"),
            "-port",
            str(names),
            "-address",
            "127.0.0.1",
        ]
        with _running(mapper, folder, environ), _running([program], folder, environ) as process:
            deadline = time.monotonic() + START_SECONDS
            while not (accepts(f"127.0.0.1:{mqtt}") and accepts(f"127.0.0.1:{amqp}")):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"RabbitMQ did not start:\n{(folder / 'peer.out').read_text()[-2000:]}")
                time.sleep(0.1)
            yield Peer(name="RabbitMQ", ports={"amqp": amqp, "mqtt": mqtt}, pids=(process.pid,))


MQTT: Sequence[Callable[[], contextlib.AbstractContextManager[Peer]]] = (
    mosquitto,
    lambda: mosquitto(durable=True),
    rabbitmq,
    nats,
)
