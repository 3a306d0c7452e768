"""Whether this process may still believe what it knew: a gateway that was stopped for a while may have been replaced.

A thread beats several times a second. When a beat is overdue for longer than `LIMIT` (less than what the others wait
before they count a gateway as dead), the process was asleep, and the lease is lost: nothing is taken from devices and
nothing is given to them on the strength of old claims, until everything the others wrote meanwhile has been read. The
check is made where it matters, not only at the beat: after a sleep, sockets are served before anything else. It is lost
too when it turns out that another gateway counted this one as dead (`lose`).

The event loop is no measure of this: ten thousand devices that all have something to say, on a machine that is busy
with other things, keep it for seconds within one turn. The process is awake then, its seat in the group is held (by a
thread too), and whoever lost the lease for that would close those devices' connections.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

log = logging.getLogger("gateway.lease")

LIMIT = 3.0  # seconds; see membership.SESSION_TIMEOUT and STALE
BEAT = 0.25


class Lease:
    """`held()` asks; `renew` is awaited after a loss, and ends when all claims have been read. All but `beat` is for
    the loop."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        renew: Callable[[], Awaitable[None]],
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when it was lost, and when it is held again."""
        self._monotonic = monotonic
        self._renew = renew
        self._changed = changed
        self._beat = monotonic()
        self._lost = False
        self._doubts = 0
        self._stopping: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[], None]] = []

    def held(self) -> bool:
        """Whether what was known of claims still holds."""
        if not self._lost and self._slept() and self._thread is not None:
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
            self._changed()

    async def _recover(self) -> None:
        while True:
            doubts = self._doubts
            self._beat = self._monotonic()
            try:
                await self._renew()
                if doubts == self._doubts and not self._slept():
                    break
            except Exception as error:  # the broker is away: others can't have taken over either, but nobody knows
                log.debug("claims can't be read yet: %s", error)
                await asyncio.sleep(0.5)
        self._lost = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
        self._changed()

    # --- beating

    def beat(self) -> None:
        """The process is awake. A gap that was too long stays, until the loop has noticed."""
        now = self._monotonic()
        if now - self._beat <= LIMIT:
            self._beat = now

    def _slept(self) -> bool:
        return self._monotonic() - self._beat > LIMIT

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(BEAT):
            self.beat()

    def start(self) -> None:
        self._beat = self._monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopping,), name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
        if self._stopping is not None and self._thread is not None:
            self._stopping.set()
            self._thread.join(1.0)
            self._thread = None
