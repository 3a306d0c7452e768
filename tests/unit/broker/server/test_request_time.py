"""A request's time: what it keeps the broker's thread, without its waits."""

from __future__ import annotations

import asyncio

import pytest

from broker.server.request_time import Stepped, Stopwatch


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_stopwatch_adds_up_the_stretches_it_runs() -> None:
    clock = Hands()
    watch = Stopwatch(clock)
    clock.now = 1.0
    watch.pause()
    clock.now = 10.0
    watch.go()
    watch.go()
    clock.now = 12.0
    assert watch.taken() == 3.0
    clock.now = 13.0
    watch.pause()
    watch.pause()
    assert watch.taken() == 1.0
    assert watch.taken() == 0.0


async def test_a_coroutines_steps_count_and_its_waits_do_not() -> None:
    clock = Hands()
    wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler() -> str:
        clock.now += 2.0
        await wake
        clock.now += 3.0
        return "answer"

    watch = Stopwatch(clock)
    watch.pause()
    task = asyncio.get_running_loop().create_task(Stepped(handler(), watch))
    await asyncio.sleep(0)
    clock.now += 100.0
    wake.set_result(None)
    assert await task == "answer"
    assert watch.taken() == 5.0


async def test_a_timed_coroutine_fails_and_is_cancelled_as_any_other() -> None:
    seen = []

    async def handler() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.get_running_loop().create_task(Stepped(handler(), Stopwatch(Hands())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]

    async def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await asyncio.get_running_loop().create_task(Stepped(broken(), Stopwatch(Hands())))
