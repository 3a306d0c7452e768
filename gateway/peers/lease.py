"""Whether this process may still believe what it knew: a gateway that was stopped for a while may have been replaced.

The loop beats several times a second. When a beat is overdue for longer than `LIMIT` (less than what the others wait
before they count a gateway as dead), the process was asleep, and the lease is lost: nothing is taken from devices and
nothing is given to them on the strength of old claims, until everything the others wrote meanwhile has been read. The
check is made where it matters, not only at the beat: after a sleep, sockets are served before timers. It is lost too
when it turns out that another gateway counted this one as dead (`lose`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("gateway.lease")

LIMIT = 3.0  # seconds; see membership.SESSION_TIMEOUT and STALE
BEAT = 0.25


class Lease:
    """`held()` asks; `renew` is awaited after a loss, and ends when all claims have been read."""

    def __init__(self, monotonic: Callable[[], float], renew: Callable[[], Awaitable[None]]) -> None:
        self._monotonic = monotonic
        self._renew = renew
        self._beat = monotonic()
        self._lost = False
        self._doubts = 0
        self._task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[], None]] = []

    def held(self) -> bool:
        """Whether what was known of claims still holds."""
        if not self._lost and self._task is not None and self._monotonic() - self._beat > LIMIT:
            self.lose(f"this process stood still for {self._monotonic() - self._beat:.1f} s")
        return not self._lost

    def when_held(self, call: Callable[[], None]) -> None:
        """Call back once it is held (again)."""
        if self.held():
            call()
        else:
            self._waiting.append(call)

    def lose(self, why: str) -> None:
        """Others may have taken over, for this reason."""
        self._doubts += 1
        if not self._lost:
            self._lost = True
            log.warning("%s; this process reads who took over", why)
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        while True:
            doubts = self._doubts
            try:
                await self._renew()
                if doubts == self._doubts:
                    break
            except Exception as error:  # the broker is away: others can't have taken over either, but nobody knows
                log.debug("claims can't be read yet: %s", error)
                await asyncio.sleep(0.5)
        self._beat = self._monotonic()
        self._lost = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            if self.held():
                self._beat = self._monotonic()

    def start(self) -> None:
        self._beat = self._monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        for task in (self._task, self._recovery):
            if task is not None:
                task.cancel()
        self._task = None
