"""The gateway on the engine in memory, as a program: `python -m tests.fakes.gateway --port 1883`.

Prints one line of listeners once it listens. For the foreign suites, load generators and fuzzing.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal

import uvloop

from gateway.ports import Limits
from gateway.server.descriptors import raise_limit
from gateway.server.listeners import parse_listeners
from gateway.server.server import Server, ServerSettings
from tests.fakes.gateway_engine import MemoryEngine, Rules


async def serve(listeners: str, rules: Rules, forget: bool) -> None:
    loop = asyncio.get_running_loop()
    engine = MemoryEngine(rules, later=loop.call_later)
    if forget:
        engine.keep_published = False
    server = Server(engine, ServerSettings())
    bound = await server.start(parse_listeners(listeners))
    print(",".join(str(listener) for listener in bound), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="mqtt://127.0.0.1:0")
    parser.add_argument("--deny-subscribe", action="append", default=[])
    parser.add_argument("--in-flight", type=int, default=1024)
    parser.add_argument("--keep-alive", type=int, default=0)
    parser.add_argument("--conceal-denied", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR)
    rules = Rules(
        deny_subscribe=options.deny_subscribe,
        limits=Limits(
            in_flight=options.in_flight, keep_alive=options.keep_alive, conceal_denied=options.conceal_denied
        ),
    )
    raise_limit()
    uvloop.run(serve(options.listen, rules, forget=True))


if __name__ == "__main__":
    main()
