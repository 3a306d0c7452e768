"""Starts the processes, waits until the product serves, and stops everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from console.supervisor.children import Child
from console.supervisor.process import Process

STOP_SECONDS = 9.0  # for all children together: a service manager's usual patience is 10 s
EACH_STOP_SECONDS = 4.0
STATE_FILE = "processes.json"


class Supervisor:
    """Owns the children of one data folder."""

    def __init__(
        self,
        children: Sequence[Child],
        environ: Mapping[str, str],
        folder: Path,
        *,
        write: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._write = write
        self._leash = subprocess.Popen(
            [sys.executable, "-m", "console.supervisor.leash"],
            stdin=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
        )
        self._processes = [Process(child, environ, note=self._note, write=write) for child in children]

    def _note(self, text: str) -> None:
        assert self._leash.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._leash.stdin.write(f"{text}\n".encode())

    async def run(self, *, prepare_database: Callable[[], None], http: str, announce: Callable[[float], None]) -> None:
        """Run until SIGTERM or SIGINT. Children that need no database start while it is being prepared.

        `announce` is called once, with the seconds since the start, when the product serves.
        """
        started = time.monotonic()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        watching: asyncio.Task[None] | None = None
        try:
            for process in self._processes:
                if not process.child.needs_database:
                    process.start()
            await asyncio.to_thread(prepare_database)
            for process in self._processes:
                if process.child.needs_database and not stop.is_set():
                    process.start()
            watching = asyncio.create_task(self._watch(http, started, announce))
            await stop.wait()
        finally:
            if watching:
                watching.cancel()
            await self._stop()

    async def _stop(self) -> None:
        """Stop in order (the broker last), all within STOP_SECONDS."""
        self._write("sluice", "stopping")
        deadline = time.monotonic() + STOP_SECONDS
        front = [process for process in self._processes if process.child.name not in ("gateway", "broker")]
        back = [process for process in self._processes if process not in front]
        await asyncio.gather(*(process.stop(within=EACH_STOP_SECONDS) for process in front))
        for process in back:
            await process.stop(within=max(0.5, min(EACH_STOP_SECONDS, deadline - time.monotonic())))
        assert self._leash.stdin is not None
        self._leash.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leash.wait(1)
        with contextlib.suppress(OSError):
            (self._folder / STATE_FILE).unlink()
        self._write("sluice", "stopped")

    async def _watch(self, http: str, started: float, announce: Callable[[float], None]) -> None:
        """Keep the state file true for `manage.py status`; announce once /healthz answers 200."""
        announced = False
        written = ""
        while True:
            if not announced and await healthy(http):
                announced = True
                announce(time.monotonic() - started)
            state = json.dumps(self._state())
            if state != written:
                path = self._folder / STATE_FILE
                temporary = path.with_suffix(".new")
                try:
                    temporary.write_text(state)
                    temporary.replace(path)
                    written = state
                except OSError as error:  # a full disk must not take the supervisor down
                    self._write("sluice", f"can't write {path.name}: {error.strerror}")
            await asyncio.sleep(1.0 if announced else 0.1)

    def _state(self) -> dict[str, object]:
        return {
            "supervisor": os.getpid(),
            "processes": [
                {"name": p.child.name, "pid": p.pid, "restarts": p.restarts, "last_exit": p.last_exit}
                for p in self._processes
            ],
        }


async def healthy(http: str) -> bool:
    """Whether GET /healthz answers 200 within two seconds."""
    status, _ = await fetch_health(http)
    return status == 200


async def fetch_health(http: str, *, within: float = 2.0) -> tuple[int | None, str]:
    """The status and body of GET /healthz; (None, reason) when the console can't be reached."""
    url = urlsplit(f"//{http}")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(url.hostname or "", url.hostname or "127.0.0.1")  # noqa: S104 - compared, not bound
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(host, url.port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                head, _, body = (await reader.read(65536)).partition(b"\r\n\r\n")
                rest = await reader.read(65536)
            finally:
                writer.close()
        return int(head.split(b" ", 2)[1]), (body + rest).decode(errors="replace")
    except (OSError, TimeoutError) as error:
        return None, str(error) or "no answer in time"
    except (IndexError, ValueError):
        return None, "not an HTTP answer"
