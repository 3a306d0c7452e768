"""How old a group's oldest unread record is: the timestamp of the record at the committed offset, read from the log.

Interpolating it from rates goes wrong as soon as rates change, so it is read, by a plain reader in its own thread: at
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
        self._known: dict[
            tuple[str, Any], tuple[int, int]
        ] = {}  # (group, place) → (offset, epoch ms of the record there)
        self._wanted: dict[tuple[str, Any], int] = {}
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
        """Seconds by group; None while one of its unread partitions hasn't been looked at.

        While a group moves on, the record looked at last stands in for the next: it is at most a turn older. So does
        the moment at which everything was read.
        """
        found: dict[str, float | None] = {}
        wanted: dict[tuple[str, Any], int] = {}
        caught_up: dict[tuple[str, Any], tuple[int, int]] = {}
        with self._lock:
            for group, places in committed.items():
                oldest: int | None = None
                complete = True
                for place, offset in places.items():
                    end = ends.get(place)
                    if end is not None and end <= offset:
                        caught_up[(group, place)] = (offset - 1, int(now * 1000))
                    if end is None or end <= offset:
                        continue
                    first = max(offset, starts.get(place, 0))
                    wanted[(group, place)] = first
                    known = self._known.get((group, place))
                    if known is None or known[0] > first:
                        complete = False
                    elif known[1] >= 0:
                        oldest = known[1] if oldest is None else min(oldest, known[1])
                found[group] = max(0.0, now - oldest / 1000) if complete and oldest is not None else None
            for key in self._known.keys() - wanted.keys():
                del self._known[key]
            self._known |= caught_up
            self._wanted = {key: first for key, first in wanted.items() if self._known.get(key, (-1, 0))[0] != first}
        return found

    def _run(self) -> None:
        reader: Any = None
        while not self._stop.wait(0.5):
            turn = self._next_turn()
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

    def _next_turn(self) -> dict[Any, tuple[str, int]]:
        """Place → (group, offset): one group's position per partition, those never looked at first."""
        turn: dict[Any, tuple[str, int]] = {}
        with self._lock:
            for group, place in sorted(self._wanted, key=lambda key: (key in self._known, key)):
                if place not in turn:
                    turn[place] = (group, self._wanted[(group, place)])
                if len(turn) >= AT_ONCE:
                    break
        return turn

    def _look(self, reader: Any, turn: Mapping[Any, tuple[str, int]]) -> None:
        reader.assign({place: offset for place, (_, offset) in turn.items()})
        left = dict(turn)
        until = time.monotonic() + TURN_SECONDS
        while left and time.monotonic() < until and not self._stop.is_set():
            for record in reader.poll(AT_ONCE, 0.2):
                asked = left.pop(record.origin, None)
                if asked is not None:  # compaction may have left a later record as the oldest
                    with self._lock:
                        self._known[(asked[0], record.origin)] = (asked[1], record.timestamp)
        reader.assign({})
