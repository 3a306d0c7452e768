"""Topics that something will be delivered to later: made now, so that they are there then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from broker.client.errors import ClientError, TimedOut, Unreachable
from gateway.storage.ticks import Ticks

log = logging.getLogger("gateway")


class Reserving:
    """Asks the cluster for each topic once."""

    def __init__(self, ticks: Callable[[], Ticks]) -> None:
        self._ticks = ticks
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def reserve(self, topic: str) -> None:
        if topic not in self._tasks:
            self._tasks[topic] = asyncio.get_running_loop().create_task(self._make(topic))

    async def _make(self, topic: str) -> None:
        while True:
            try:
                await self._ticks().reserve(topic)
                return
            except (Unreachable, TimedOut):
                await asyncio.sleep(1.0)
            except ClientError as error:  # the cluster makes no topics by their use: it is the operator's to make
                log.info("topic %s is not there yet: %s", topic, error)
                return

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
