"""Several gateway processes on one machine that share the listening ports (`SLUICE_GATEWAY_WORKERS`).

Each worker is a gateway of its own, `<name>-<number>`, and the kernel deals new connections out among those that listen
(SO_REUSEPORT). This process only keeps them: it holds the ports, so that nobody else takes them while a worker starts
again, starts workers anew when they end, answers `/metrics` for all of them, and stops them with itself. A worker reads
its standard input and stops at its end, so that none outlives this process, however that ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.config import Settings
from gateway.server.listeners import Listener
from gateway.server.merging import gather
from gateway.server.metrics import MetricsServer

log = logging.getLogger("gateway.workers")

WORKER = "SLUICE_GATEWAY_WORKER"
READY = b"ready"
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)
STEADY = 30.0
STOP_PATIENCE = 8.0


def reserve(listeners: Sequence[Listener]) -> tuple[list[socket.socket], list[Listener]]:
    """Sockets that hold the ports without listening, and the listeners with the ports they got.

    Raises OSError for an address that another program listens on: sharing a port must not hide that."""
    held: list[socket.socket] = []
    bound = []
    try:
        for listener in listeners:
            found = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            if listener.port:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
            holder = socket.socket(family, kind, protocol)
            held.append(holder)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
            bound.append(replace(listener, port=int(holder.getsockname()[1])))
    except OSError:
        for holder in held:
            holder.close()
        raise
    return held, bound


def described(listener: Listener) -> str:
    """As `SLUICE_MQTT_LISTENERS` has it."""
    return f"{listener}?proxy=1" if listener.proxy else str(listener)


class Workers:
    """`run` until told to stop."""

    def __init__(self, settings: Settings, listeners: Sequence[Listener]) -> None:
        self._settings = settings
        self._listeners = ",".join(described(each) for each in listeners)
        self._ready: set[int] = set()
        self._metrics: dict[int, int | None] = dict.fromkeys(range(1, settings.workers + 1))  # ports
        self._stopping = asyncio.Event()
        self._failed = 0

    async def run(self) -> int:
        """The exit status. Raises OSError when the address of `/metrics` is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        metrics = MetricsServer(lambda: gather(self._metrics))
        if self._settings.metrics is not None:
            await metrics.start(*self._settings.metrics)
        tasks = [asyncio.create_task(self._keep(number)) for number in range(1, self._settings.workers + 1)]
        await asyncio.gather(*tasks)
        await metrics.stop()
        log.info("stopped")
        return 1 if self._failed else 0

    async def _keep(self, number: int) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._once(number)
            if self._stopping.is_set():
                return
            if status == 1 and number not in self._ready:
                # it said why it can't start; that won't be another one's luck
                self._failed = status
                self._stopping.set()
                return
            attempt = 0 if time.monotonic() - began > STEADY else min(attempt + 1, len(BACK_OFF) - 1)
            log.warning("worker %d ended with status %s; it is started again", number, status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BACK_OFF[attempt])

    async def _once(self, number: int) -> int:
        environ = {
            **os.environ,
            **self._settings.environ,
            WORKER: str(number),
            "SLUICE_MQTT_LISTENERS": self._listeners,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "gateway"),
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        stopped = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(self._follow(number, process))
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), STOP_PATIENCE)
            if not ended.done():
                log.warning("worker %d did not stop in %.0f s; it is killed", number, STOP_PATIENCE)
                process.kill()
                await ended
        return await process.wait()

    async def _follow(self, number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            word, _, port = line.strip().partition(b" ")
            if word == READY:
                self._metrics[number] = int(port) if port.isdigit() else None
                self._ready.add(number)
                if len(self._ready) == self._settings.workers:
                    log.info("ready: %d workers", self._settings.workers)
        self._metrics[number] = None
        await process.wait()


def keep(settings: Settings) -> int:
    """Run the workers of these settings; the exit status."""
    try:
        held, bound = reserve(settings.listeners)
    except OSError as error:
        sys.stderr.write(f"the gateway can't start: {error}\n")
        return 1
    try:
        return asyncio.run(_run(settings, bound))
    except OSError as error:
        sys.stderr.write(f"the gateway can't start: {error}\n")
        return 1
    finally:
        for holder in held:
            holder.close()


async def _run(settings: Settings, bound: Sequence[Listener]) -> int:
    return await Workers(settings, bound).run()


def follow_keeper(stopping: asyncio.Event) -> None:
    """In a worker: stop when the process that keeps it is gone."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stopping.set()

    loop.add_reader(0, readable)


def say_ready(metrics: int | None) -> None:
    """In a worker: tell the process that keeps it, and where it answers `/metrics`."""
    sys.stdout.buffer.write(READY + (b" %d\n" % metrics if metrics is not None else b"\n"))
    sys.stdout.buffer.flush()
