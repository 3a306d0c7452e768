"""`python -m gateway.bridge`: composition root of the bridge process. Runs until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop

from gateway.bridge.process import Bridges
from gateway.config import BadSettings, Settings, describe
from gateway.logs import set_up
from gateway.sealing import BadSealingKey
from gateway.starting import run_until_stopped


def main() -> int:
    if len(sys.argv) > 1:
        sys.stdout.write(describe() + "\n")
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    try:
        settings = Settings.from_env()
        set_up(settings.log_level, settings.log_format)
        for library in ("amqtt", "transitions"):  # what they say of connections is in our own lines
            logging.getLogger(library).setLevel(logging.CRITICAL)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_until_stopped(Bridges(settings)))
            return 0
    except (BadSettings, BadSealingKey) as error:
        sys.stderr.write(f"the bridges can't start: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
