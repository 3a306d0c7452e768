"""One child process, kept running: started, its output prefixed, started again with back-off when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from console.supervisor.children import Child

BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 30.0  # a child that ran this long starts its next back-off from the beginning
LONGEST_LINE = 64 * 1024
LAST_WORDS_SECONDS = 1.0  # for output still in the pipe when a child has ended


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
        self._running: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix=f"{child.name} end")
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
            self._running.terminate()
        if self._task:
            done, _ = await asyncio.wait({self._task}, timeout=within)
            if not done and self._running:
                self._write(self.child.name, f"did not stop within {within:g} s and is killed")
                end_group(self._running.pid)
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
        self._running = running = subprocess.Popen(  # noqa: ASYNC220, S603 - a fork of milliseconds; our own command
            self.child.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self._environ),
            process_group=0,
        )
        self._note(f"+{running.pid}")
        pump = threading.Thread(target=self._pump, args=(running,), name=f"{self.child.name} output", daemon=True)
        pump.start()
        # In threads, since asyncio's own subprocess.wait() also waits for the pipe, which a grandchild may hold open;
        # in one of its own, since the loop's pool has few places, and who found none would never be seen to end.
        self.last_exit = await asyncio.get_running_loop().run_in_executor(self._waiter, running.wait)
        end_group(running.pid)  # what a crashed child left behind would hold its ports and files
        self._note(f"-{running.pid}")
        await asyncio.to_thread(pump.join, LAST_WORDS_SECONDS)

    def _pump(self, running: subprocess.Popen[bytes]) -> None:
        """Copy the child's output line by line; what is over the longest line is left out and said."""
        assert running.stdout is not None
        with running.stdout as output:
            while line := output.readline(LONGEST_LINE):
                if line.endswith(b"\n") or len(line) < LONGEST_LINE:
                    self._write(self.child.name, line.decode(errors="replace").rstrip("\n"))
                    continue
                while line and not line.endswith(b"\n"):
                    line = output.readline(LONGEST_LINE)
                self._write(self.child.name, f"(a line of over {LONGEST_LINE} bytes was dropped)")

    def _ending(self) -> str:
        code = self.last_exit
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code}"


def end_group(group: int) -> None:
    """SIGKILL to what is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def prefixed(stream: Callable[[str], object] = sys.stdout.write) -> Callable[[str, str], None]:
    """A writer of `name     | line`, flushed by line."""

    def write(name: str, line: str) -> None:
        stream(f"{name:<8}| {line}\n")
        sys.stdout.flush()

    return write
