"""What the brokers' disks let them do: asked of the brokers directly.

The picture can't tell: it travels in a topic, and a broker whose disk fails takes no records. So every web process asks
for itself, every two seconds, and keeps the newest answer.
"""

import logging
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from console import kafka

log = logging.getLogger("sluice.storage")

PERIOD_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One broker's storage that is not well. `state`: degraded, unwritable or stopped; `since`: epoch ms, 0 unknown."""

    broker: int
    state: str
    reason: str
    since: int
    paths: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether it acknowledges writes all the same."""
        return self.state == kafka.types.StorageState.DEGRADED

    def __str__(self) -> str:
        return f"broker {self.broker}: {self.reason or self.state}"


_troubles: tuple[Trouble, ...] = ()


def troubles() -> tuple[Trouble, ...]:
    """Those that are not well, as last heard; the worst first."""
    return _troubles


def shown() -> str:
    """Tells one set of troubles from another: a page that shows this one needs no new banner."""
    return f"{zlib.crc32(repr(_troubles).encode()):08x}" if _troubles else ""


def put(found: tuple[Trouble, ...]) -> None:
    """What was heard."""
    global _troubles
    _troubles = tuple(sorted(found, key=lambda trouble: (trouble.serves, trouble.broker)))


class Watch:
    """Asks as long as the process lives. A broker that can't be reached leaves the last word standing."""

    def __init__(self, ask: Callable[[], tuple[kafka.types.Storage, ...]]) -> None:
        self._ask = ask
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def look(self) -> None:
        """Ask once. Raises nothing that a cluster may answer."""
        try:
            found = self._ask()
        except (kafka.ClientError, kafka.SettingsError) as error:
            log.debug("storage can't be asked for: %s", error)
            return
        before = {trouble.broker: trouble.state for trouble in _troubles}
        put(
            tuple(
                Trouble(broker=one.broker, state=one.state, reason=one.reason, since=one.since, paths=one.paths)
                for one in found
                if one.state != kafka.types.StorageState.OK
            )
        )
        for trouble in _troubles:
            if before.get(trouble.broker) != trouble.state:
                log.error("%s", trouble)
        if before and not _troubles:
            log.info("every broker's storage is well again")

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(PERIOD_SECONDS)
