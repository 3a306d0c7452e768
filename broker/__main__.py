"""`python -m broker`: the composition root. Settings come from the environment; `--help` lists them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from broker import internal
from broker.config import BadSetting, Config, Listener, from_environ, help_text
from broker.log.failures import LogError
from broker.server import memory
from broker.server.assembly import Assembly
from broker.server.listener import CannotListen
from broker.server.tls import UnusableCertificate

logger = logging.getLogger("broker")


def main(arguments: Sequence[str]) -> int:
    """Run until told to stop; the exit status."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(help_text())  # noqa: T201 — the answer to --help
        return 0
    if arguments:
        print(f"python -m broker takes no arguments: {arguments[0]!r} (see --help)", file=sys.stderr)  # noqa: T201 — before logging
        return 2
    try:
        from_environ(os.environ)
        credential = internal.ensure(Path(os.environ.get("SLUICE_DATA") or "data"))
        config = from_environ(os.environ, _internal_listener(credential), credential.principal)
    except (BadSetting, internal.InternalCredentialUnreadable, OSError) as error:
        print(f"broker: {error}", file=sys.stderr)  # noqa: T201 — before logging
        return 1
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    memory.keep_buffers()
    return uvloop.run(_serve(config, credential))


def _internal_listener(credential: internal.InternalCredential) -> Listener:
    host, _, port = credential.bootstrap.rpartition(":")
    return Listener(name="INTERNAL", protocol="SASL_PLAINTEXT", host=host, port=int(port), internal=True)


async def _serve(config: Config, credential: internal.InternalCredential) -> int:
    assembly = Assembly(config, internal=credential)
    try:
        await assembly.start()
    except (CannotListen, UnusableCertificate, LogError, OSError) as error:
        logger.error("can't start: %s", error)
        return 1
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    memory.settle()
    logger.info("ready: %s", " ".join(assembly.addresses))
    await stop.wait()
    logger.info("stopping")
    await assembly.stop()
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
