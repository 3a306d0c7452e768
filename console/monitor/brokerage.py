"""What the embedded broker tells of itself in `__sluice_broker`: bytes in and out, and connections.

Its totals count from its start, so rates are slopes; a restart begins anew. On another cluster the topic isn't there
and everything is unknown.
"""

import json
import logging
import threading
import time
from typing import Any

from console import kafka
from console.monitor.rates import IN_WINDOW, Slope

log = logging.getLogger("sluice.monitor")

TOPIC = "__sluice_broker"
PLACE = kafka.TopicPartition(TOPIC, 0)
VERSION = 1
SILENCE_SECONDS = 25.0  # it says nothing while nothing changes, but for one record every ten seconds


class Brokerage:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in, self._out = Slope(IN_WINDOW), Slope(IN_WINDOW)
        self._connections: int | None = None
        self._heard = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="brokerage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def numbers(self, now: float) -> dict[str, float | None]:
        """`in_bytes` and `out_bytes` a second, `connections`; None for what isn't known."""
        with self._lock:
            if now - self._heard > SILENCE_SECONDS:
                return {}
            return {
                "in_bytes": self._in.rate(now),
                "out_bytes": self._out.rate(now),
                "connections": self._connections,
            }

    def take(self, told: dict[str, Any], now: float) -> None:
        """One record of the topic; an unknown version is ignored, loudly once per record."""
        if told.get("v") != VERSION:
            log.warning("a record of %s has version %r", TOPIC, told.get("v"))
            return
        with self._lock:
            at = told["at"] / 1000
            self._in.add(at, int(told["produce"]["bytes"]))
            self._out.add(at, int(told["fetch"]["bytes"]))
            self._connections = int(told["connections"]["open"])
            self._heard = now

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (kafka.ClientError, kafka.SettingsError) as error:
                log.info("%s can't be read: %s", TOPIC, error)
            self._stop.wait(3)

    def _follow(self) -> None:
        if TOPIC not in kafka.admin().topics([TOPIC]):
            self._stop.wait(10)
            return
        reader = kafka.consumer(queue_kbytes=1024)
        try:
            reader.assign({PLACE: kafka.END})
            silent_since = time.monotonic()
            while not self._stop.is_set() and time.monotonic() - silent_since < SILENCE_SECONDS:
                for record in reader.poll(50, 0.5):
                    silent_since = time.monotonic()
                    try:
                        self.take(json.loads(record.value or b"{}"), time.time())
                    except (ValueError, KeyError, TypeError) as error:
                        log.warning("a record of %s can't be read: %s", TOPIC, error)
        finally:
            reader.close()
