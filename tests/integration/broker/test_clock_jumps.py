"""The clock jumps, ten years ahead and ten years back: nothing acknowledged is lost, and the broker goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.server.clock import SystemClock
from broker.wire.codec import struct
from tests.integration.broker.wire_client import (
    Connection,
    fetch_fields,
    produce,
    records,
    settings,
    started,
    values_of,
)

YEARS = 10 * 365 * 86_400_000


class JumpingClock(SystemClock):
    """The machine's clock, `ahead` of itself by some ms."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


async def values(connection: Connection) -> list[bytes]:
    """Everything in the partition; a fetch ends where a segment does."""
    found: list[bytes] = []
    while True:
        answer: Any = await connection.call("Fetch", 12, **fetch_fields("kept", (0, len(found))))
        more = values_of(answer.responses[0].partitions[0].records)
        if not more:
            return found
        found += more


@pytest.mark.parametrize("jump", [-YEARS, YEARS])
async def test_a_clock_that_jumps_loses_nothing_and_stops_nobody(tmp_path: Path, jump: int) -> None:
    clock = JumpingClock()
    sent = []
    async with started(settings(tmp_path), clock) as running:
        connection = await running.connect()
        topic = struct("CreateTopicsRequest.CreatableTopic")
        config = struct("CreateTopicsRequest.CreatableTopicConfig")
        made = await connection.call(
            "CreateTopics",
            4,
            topics=[
                topic(
                    name="kept",
                    num_partitions=1,
                    replication_factor=1,
                    configs=[config(name="retention.ms", value="-1")],
                )
            ],
            timeout_ms=5000,
        )
        assert made.topics[0].error_code == 0
        for number, ahead in enumerate([0, jump, jump, 0, 0]):
            clock.ahead = ahead
            value = b"value %d" % number
            batch = records(value, timestamp=clock.now())
            answer = await produce(connection, "kept", batch=batch)
            assert answer.error_code == 0, number
            sent.append(value)
            running.broker.store.tick(clock.now())
            for _ in running.broker.store.maintain(clock.now()):
                await asyncio.sleep(0)
            assert await values(connection) == sent
            async with asyncio.timeout(30):  # checkpoints do not stand still
                while running.broker.store.checkpoint_due(clock.now()):  # noqa: ASYNC110  # polled
                    await asyncio.sleep(0.05)
            assert running.broker.store.health().ok
    clock.ahead = -jump
    async with started(settings(tmp_path), clock) as running:
        connection = await running.connect()
        assert await values(connection) == sent
        assert (await produce(connection, "kept", batch=records(b"last", timestamp=clock.now()))).error_code == 0
        assert await values(connection) == [*sent, b"last"]
