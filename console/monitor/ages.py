"""How old a group's oldest unread record is: the timestamp of the record at the committed offset, read from the log.

Interpolating it from rates goes wrong as soon as rates change, so it is read, by a plain reader in a thread of its own: at
most `AT_ONCE` partitions a turn, small fetches, and nothing twice (an offset's record never changes).
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from console import kafka

log = logging.getLogger("sluice.monitor")

AT_ONCE = 64
TURN_SECONDS = 1.0
SMALL_FETCHES = {"fetch.message.max.bytes": 8192, "queued.min.messages": 1}


class Ages:
    def __init__(self) -> None:
        self._known: dict[tuple[Any, int], int] = {}  # (place, offset) → epoch ms
        self._wanted: set[tuple[Any, int]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ages", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def of(
        self, committed: Mapping[str, Mapping[Any, int]], ends: Mapping[Any, int], starts: Mapping[Any, int], now: float
    ) -> dict[str, float | None]:
        """Seconds by group; None while one of its unread partitions hasn't been looked at."""
        wanted: set[tuple[Any, int]] = set()
        found: dict[str, float | None] = {}
        with self._lock:
            for group, places in committed.items():
                oldest: int | None = None
                complete = True
                for place, offset in places.items():
                    if ends.get(place, 0) <= offset:
                        continue
                    key = (place, max(offset, starts.get(place, 0)))
                    wanted.add(key)
                    at = self._known.get(key)
                    if at is None:
                        complete = False
                    elif at >= 0:
                        oldest = at if oldest is None else min(oldest, at)
                found[group] = max(0.0, now - oldest / 1000) if complete and oldest is not None else None
            self._wanted = wanted - self._known.keys()
            for key in self._known.keys() - wanted:
                del self._known[key]
        return found

    def _run(self) -> None:
        reader: Any = None
        while not self._stop.wait(0.3):
            with self._lock:
                turn = dict(sorted(self._wanted)[:AT_ONCE])
            if not turn:
                continue
            try:
                reader = reader or kafka.consumer(queue_kbytes=1024, fetch_wait=0.05, overrides=SMALL_FETCHES)
                self._look(reader, turn)
            except (kafka.ClientError, kafka.SettingsError) as error:
                log.info("ages can't be read: %s", error)
                if reader is not None:
                    reader.close()
                reader = None
                self._stop.wait(2)
        if reader is not None:
            reader.close()

    def _look(self, reader: Any, turn: dict[Any, int]) -> None:
        reader.assign(turn)
        left = dict(turn)
        until = time.monotonic() + TURN_SECONDS
        while left and time.monotonic() < until and not self._stop.is_set():
            for record in reader.poll(AT_ONCE, 0.2):
                offset = left.pop(record.origin, None)
                if offset is not None:
                    with self._lock:  # compaction may have left a later record as the oldest
                        self._known[(record.origin, offset)] = record.timestamp
        reader.assign({})
