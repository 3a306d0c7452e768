"""The timer that is finer than the loop's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import pytest
import uvloop

from broker.client.ticking import FineTimer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")


def kind_of(file: int) -> str:
    """What this process's descriptor is of, "" when it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{file}")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_calls_once_for_each_start_and_never_after_its_end(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def use() -> None:
        calls: list[int] = []
        called = asyncio.Event()

        def call() -> None:
            calls.append(len(calls))
            called.set()

        timer = FineTimer(asyncio.get_running_loop(), call)
        file = timer._file
        assert kind_of(file) == "anon_inode:[timerfd]"
        for number in range(3):
            called.clear()
            timer.start(0.9)
            timer.start(0.0002)
            await asyncio.wait_for(called.wait(), 30)
            assert calls == list(range(number + 1))
        timer.start(0.0002)
        timer.close()
        await asyncio.sleep(0.01)
        assert len(calls) == 3
        assert kind_of(file) != "anon_inode:[timerfd]"  # closed, or another's by now
        timer.close()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(use())
