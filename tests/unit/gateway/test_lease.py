"""The lease: what counts as having stood still, and what is done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.peers.lease import LIMIT, Lease


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A lease whose thread is the test: it beats when told to."""

    def __init__(self, renew: Callable[[], Awaitable[None]] | None = None) -> None:
        self.clock = Clock()
        self.renewals = 0
        self.changes: list[bool] = []
        self._then = renew
        self.lease = Lease(self.clock, self._renew, changed=lambda: self.changes.append(self.lease.held()))
        self.lease.start()

    async def _renew(self) -> None:
        self.renewals += 1
        if self._then is not None:
            await self._then()

    async def over(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_loop_that_is_late_has_not_stood_still() -> None:
    run = Run()
    try:
        for _ in range(100):
            run.clock.now += 0.25
            run.lease.beat()
        assert run.lease.held() and not run.changes
    finally:
        run.lease.stop()


async def test_standing_still_is_noticed_though_the_beat_comes_first() -> None:
    run = Run()
    try:
        run.clock.now += LIMIT + 0.1
        run.lease.beat()
        run.lease.beat()
        called: list[int] = []
        run.lease.when_held(lambda: called.append(1))
        assert not run.lease.held() and run.changes == [False] and not called
        await run.over()
        assert run.lease.held() and run.changes == [False, True] and called == [1] and run.renewals == 1
    finally:
        run.lease.stop()


async def test_who_stands_still_again_while_claims_are_read_reads_them_again() -> None:
    async def sleeps() -> None:
        if run.renewals == 1:
            run.clock.now += LIMIT + 1

    run = Run(sleeps)
    try:
        run.lease.lose("fenced")
        await run.over()
        assert run.lease.held() and run.renewals == 2
    finally:
        run.lease.stop()


async def test_the_thread_beats() -> None:
    run = Run()
    try:
        run.clock.now += LIMIT - 0.1
        async with asyncio.timeout(60):
            while run.lease._beat != run.clock.now:  # noqa: ASYNC110  # another thread's doing
                await asyncio.sleep(0.01)
    finally:
        run.lease.stop()
