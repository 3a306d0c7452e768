"""`python -m gateway`: composition root. Settings in, a gateway running, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading

import uvloop

from gateway.config import BadSettings, Settings, describe
from gateway.identity.jwt import BadTokenSettings
from gateway.identity.plugins import BadPlugins
from gateway.logs import set_up
from gateway.process import Gateway
from gateway.server.certificates import NoCertificate
from gateway.server.descriptors import raise_limit
from gateway.starting import run_until_stopped
from gateway.workers import follow_keeper, keep, say_ready


def settle() -> None:
    """After the start. What is there now stays, and collections pass over it. What comes and goes is mostly freed by
    its reference count: looking for garbage every 700 objects took a tenth of a busy gateway's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def run(settings: Settings) -> int:
    stopping = asyncio.Event()
    if settings.worker:
        follow_keeper(stopping)
    gateway = Gateway(settings)

    def ready() -> None:
        settle()
        if settings.worker:
            say_ready(gateway.metrics_port)

    try:
        await run_until_stopped(gateway, stopping=stopping, ready=ready)
    except (OSError, NoCertificate, BadSettings, BadPlugins, BadTokenSettings) as error:
        sys.stderr.write(f"the gateway can't start: {error}\n")
        return 1
    return 0


def main() -> int:
    if len(sys.argv) > 1:
        sys.stdout.write(describe() + "\n")
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    try:
        settings = Settings.from_env()
    except BadSettings as error:
        sys.stderr.write(f"the gateway can't start: {error}\n")
        return 1
    set_up(settings.log_level, settings.log_format)
    raise_limit()
    if settings.workers > 1 and not settings.worker:
        return keep(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(run(settings))
    if threading.active_count() > 1:
        # a thread that still waits for a broker that is away would come back into an interpreter that is gone, and
        # abort the process
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
