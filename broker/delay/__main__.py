"""`python -m broker.delay`: composition root. Settings come from the environment; `--help` lists them."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from broker.client import Settings, SettingsError
from broker.delay.answering import Answering
from broker.delay.config import BadSettings, Config, describe
from broker.delay.health import serve
from broker.delay.service import FolderInUse, Service

log = logging.getLogger("broker.delay")


def _find(config: Config, stop: threading.Event) -> Settings | None:
    """Where the cluster is; the embedded broker writes its credential when it first starts."""
    complained = False
    while not stop.is_set():
        try:
            return Settings.from_env(config.environ, client_id="sluice-delay")
        except SettingsError as error:
            if config.environ.get("SLUICE_KAFKA"):
                raise
            if not complained:
                log.info("waiting for the broker: %s", error)
                complained = True
            stop.wait(0.2)
    return None


def main(arguments: list[str]) -> int:
    if arguments:
        sys.stdout.write(describe() + "\n")
        return 0 if arguments[0] in ("-h", "--help") else 2
    try:
        config = Config.from_env()
    except BadSettings as error:
        sys.stderr.write(f"the delay service can't start: {error}\n")
        return 1
    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = _find(config, stop)
        if settings is not None:
            service = Service(config, settings)
            answers = Answering(service)
            answering = threading.Thread(target=answers.run, args=(stop,), name="answering", daemon=True)
            server = None
            if config.http is not None:
                server = serve(config.http, service, lambda: answers.answer({"ask": "counts"}))
            service.run(stop, prepared=answering.start)
            if server is not None:
                server.shutdown()
    except (SettingsError, FolderInUse, OSError) as error:
        sys.stderr.write(f"the delay service can't start: {error}\n")
        return 1
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
