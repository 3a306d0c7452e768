"""Long polls: woken by what they watch, once, in time, and never after they are over."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.server.waiting import Poll, Waiting


class Partition:
    """Stands in for a partition: only its identity matters here."""


def parked(waiting: Waiting, told: list[tuple[set[Any], bool]], *, seconds: float = 30, window: float = 0) -> Poll:
    return Poll(
        waiting,
        asyncio.get_running_loop(),
        seconds=seconds,
        window=window,
        wake=lambda moved, expired: told.append((moved, expired)),
    )


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_only_what_is_watched_wakes() -> None:
    waiting, told = Waiting(), []  # type: ignore[var-annotated]  # filled by the poll
    one, other = Partition(), Partition()
    poll = parked(waiting, told)
    waiting.watch(one, poll.touched)  # type: ignore[arg-type]  # a stand-in
    waiting.advanced([other])  # type: ignore[list-item]  # a stand-in
    await turns()
    assert told == []
    waiting.advanced([one, other])  # type: ignore[list-item]  # a stand-in
    waiting.advanced([one])  # type: ignore[list-item]  # a stand-in
    await turns()
    assert told == [({one}, False)]
    poll.cancel()


async def test_moves_within_the_window_are_told_together() -> None:
    waiting, told = Waiting(), []  # type: ignore[var-annotated]  # filled by the poll
    one, other = Partition(), Partition()
    poll = parked(waiting, told, window=0.02)
    poll.touched(one)  # type: ignore[arg-type]  # a stand-in
    await turns()
    poll.touched(other)  # type: ignore[arg-type]  # a stand-in
    async with asyncio.timeout(60):
        while not told:  # noqa: ASYNC110 — the poll calls back, it sets no event
            await asyncio.sleep(0.005)
    assert told == [({one, other}, False)]
    poll.cancel()


async def test_the_deadline_wakes_once_and_nothing_after_it() -> None:
    waiting, told = Waiting(), []  # type: ignore[var-annotated]  # filled by the poll
    poll = parked(waiting, told, seconds=0.01)
    async with asyncio.timeout(60):
        while not told:  # noqa: ASYNC110 — the poll calls back, it sets no event
            await asyncio.sleep(0.005)
    poll.touched(Partition())  # type: ignore[arg-type]  # a stand-in
    poll.expire()
    await turns()
    assert told == [(set(), True)]


async def test_stopping_lets_everybody_answer_at_once() -> None:
    waiting, told = Waiting(), []  # type: ignore[var-annotated]  # filled by the poll
    for _ in range(3):
        parked(waiting, told)
    waiting.stop()
    assert told == [(set(), True)] * 3
    assert waiting.stopping


async def test_a_watcher_taken_off_hears_nothing() -> None:
    waiting, told = Waiting(), []  # type: ignore[var-annotated]  # filled by the poll
    one = Partition()
    poll = parked(waiting, told)
    waiting.watch(one, poll.touched)  # type: ignore[arg-type]  # a stand-in
    waiting.unwatch(one, poll.touched)  # type: ignore[arg-type]  # a stand-in
    waiting.unwatch(one, poll.touched)  # type: ignore[arg-type]  # a stand-in
    waiting.advanced([one])  # type: ignore[list-item]  # a stand-in
    await turns()
    assert told == []
    poll.cancel()
