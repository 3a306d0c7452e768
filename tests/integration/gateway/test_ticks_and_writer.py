"""The gateway's ticks over the producer of the event loop, against a broker that fails it for good."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.client import Failure, Settings, Writer
from gateway.ports import Receipt
from gateway.storage.ticks import Tick, Ticks, Write
from tests.integration.client.test_writer import Leader


async def settled(receipt: Receipt[Any]) -> Receipt[Any]:
    async with asyncio.timeout(20):
        while not receipt.settled:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.005)
    return receipt


def refused(tick: Tick, failure: Failure) -> Write | None:
    return ("elsewhere", failure.value, failure.key, None) if failure.topic == "t" else None


async def test_after_an_end_of_the_producer_another_goes_on() -> None:
    out_of_order, ok = 45, 0
    async with Leader(lambda attempt: out_of_order if attempt == 2 else ok) as leader:
        ticks = Ticks(
            lambda: Writer(Settings(bootstrap=f"127.0.0.1:{leader.port}")),
            refused,
            loop=asyncio.get_running_loop(),
            congestion=lambda congested: None,
        )
        assert (await settled(ticks.write("t", b"a", b"k"))).failure is None
        assert (await settled(ticks.write("t", b"b", b"k"))).failure is not None, "nobody knows whether it is stored"
        assert (await settled(ticks.write("t", b"c", b"k"))).failure is None
        assert leader.requests.count(22) == 2, "with a producer id of its own"
        assert await ticks.close(1.0) == 0


async def test_what_the_log_refuses_is_written_elsewhere_first() -> None:
    too_large, ok = 10, 0
    async with Leader(lambda attempt: too_large if attempt == 1 else ok) as leader:
        ticks = Ticks(
            lambda: Writer(Settings(bootstrap=f"127.0.0.1:{leader.port}")),
            refused,
            loop=asyncio.get_running_loop(),
            congestion=lambda congested: None,
        )
        assert (await settled(ticks.write("t", b"a", b"k"))).failure is None
        assert len(leader.batches) == 2
        assert await ticks.close(1.0) == 0


async def test_a_broker_that_is_away_does_not_keep_it_from_closing() -> None:
    ticks = Ticks(
        lambda: Writer(Settings(bootstrap="127.0.0.1:1")),
        refused,
        loop=asyncio.get_running_loop(),
        congestion=lambda congested: None,
    )
    receipt = ticks.write("t", b"a", b"k")
    async with asyncio.timeout(5):
        assert await ticks.close(0.1) == 1
    assert (await settled(receipt)).failure is not None
