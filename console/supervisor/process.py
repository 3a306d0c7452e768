"""One child process, kept running: started, its output prefixed, started again with back-off when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from console.supervisor.children import Child
from console.supervisor.leash import alive

BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 30.0  # a child that ran this long starts its next back-off from the beginning
LONGEST_LINE = 64 * 1024


class Process:
    """Keeps one child running until `stop` is called. `note` tells the leash (`+group`, `-group`)."""

    def __init__(
        self,
        child: Child,
        environ: Mapping[str, str],
        *,
        note: Callable[[str], None],
        write: Callable[[str, str], None],
    ) -> None:
        self.child = child
        self.restarts = 0
        self.last_exit: int | None = None
        self._environ = environ
        self._note = note
        self._write = write
        self._running: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._running.pid if self._running and self._running.returncode is None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.child.name} running")

    async def stop(self, *, within: float) -> None:
        """SIGTERM, and SIGKILL to the whole group after `within` seconds; returns when nothing of it is left."""
        self._stopping.set()
        if self._running and self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(asyncio.shield(self._running.wait()), within)
            except TimeoutError:
                self._write(self.child.name, f"did not stop within {within:g} s and is killed")
        if self._running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)
        if self._task:
            await self._task

    async def _keep_running(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run_once()
            if self._stopping.is_set():
                return
            attempt = 0 if time.monotonic() - started > STEADY_SECONDS else attempt
            delay = BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)]
            attempt += 1
            self.restarts += 1
            self._write(self.child.name, f"ended with {self._ending()}; starting again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_once(self) -> None:
        self._running = await asyncio.create_subprocess_exec(
            *self.child.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environ),
            limit=LONGEST_LINE,
            process_group=0,
        )
        group = self._running.pid
        self._note(f"+{group}")
        await self._pump(self._running)
        self.last_exit = await self._running.wait()
        if alive(group):  # what a crashed child left behind would hold its ports and files
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._note(f"-{group}")

    async def _pump(self, running: asyncio.subprocess.Process) -> None:
        """Copy the child's output line by line until the child ends (not until a grandchild lets go of the pipe)."""
        assert running.stdout is not None
        ended = asyncio.create_task(running.wait())
        try:
            while True:
                reading = asyncio.create_task(running.stdout.readline())
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    await asyncio.wait({reading}, timeout=0.5)
                if not reading.done():
                    reading.cancel()
                    return
                try:
                    line = reading.result()
                except ValueError:  # a line over the limit: the reader has dropped it
                    self._write(self.child.name, f"(a line of over {LONGEST_LINE} bytes was dropped)")
                    continue
                if not line:
                    return
                self._write(self.child.name, line.decode(errors="replace").rstrip("\n"))
        finally:
            await asyncio.wait({ended}, timeout=None)

    def _ending(self) -> str:
        code = self.last_exit
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code}"


def prefixed(stream: Callable[[str], object] = sys.stdout.write) -> Callable[[str, str], None]:
    """A writer of `name     | line`, flushed by line."""

    def write(name: str, line: str) -> None:
        stream(f"{name:<8}| {line}\n")
        sys.stdout.flush()

    return write
