"""How a process of the gateway finds the cluster and waits for it, and how it runs until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from broker.client import Settings as ClusterSettings
from broker.client.errors import ClientError
from broker.client.settings import SettingsError

log = logging.getLogger("gateway")

T = TypeVar("T")


async def find_cluster(environ: Mapping[str, str], client_id: str) -> ClusterSettings:
    """Where the broker is; the embedded one writes its credential when it first starts.

    Raises SettingsError when the settings of another cluster are wrong."""
    complained = False
    while True:
        try:
            return ClusterSettings.from_env(environ or None, client_id=client_id)
        except SettingsError as error:
            if environ.get("SLUICE_KAFKA"):
                raise
            if not complained:
                log.info("waiting for the broker: %s", error)
                complained = True
            await asyncio.sleep(0.2)


async def retried(call: Callable[[], Awaitable[T]], complaint: str) -> T:
    """What `call` gives once the cluster answers; the first failure is logged."""
    complained = False
    while True:
        try:
            return await call()
        except ClientError as error:
            if not complained:
                log.info("%s: %s", complaint, error)
                complained = True
            await asyncio.sleep(0.3)


class Runnable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def run_until_stopped(
    process: Runnable,
    *,
    stopping: asyncio.Event | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Start, run until SIGTERM, SIGINT or `stopping`, stop. A start under way when that comes is given up.

    Raises what `start` raises, once everything is stopped."""
    stopping = asyncio.Event() if stopping is None else stopping
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    starting = asyncio.ensure_future(process.start())
    waiting = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            log.info("ready")
            ready()
            await waiting
    finally:
        starting.cancel()
        waiting.cancel()
        await process.stop()
        log.info("stopped")
