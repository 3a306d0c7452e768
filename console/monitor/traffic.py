"""What gateways tell of their traffic in `__sluice_traffic`: totals by device, route and topic prefix, and rates.

Reports are totals since a gateway's start (a device's: since its connection), of the rows that moved; summed here over
gateways. A row costs work only while it moves and until its rate has come down to 0. Devices are kept up to a number,
those that were quiet longest are forgotten first.
"""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import DatabaseError, connection

from console import kafka
from console.monitor.rates import IN_WINDOW, Slope
from gateway import contract
from gateway.contract import DEVICE_FIELDS, ROW_FIELDS, TRAFFIC, BridgeStatus, GatewayStatus, TrafficReport

log = logging.getLogger("sluice.monitor")

PLACE = kafka.TopicPartition(TRAFFIC, 0)
DEVICES = 5_000
SILENCE_SECONDS = 30.0  # after which the topic is looked at anew
LOOK_BACK_MS = 60_000
REPORTS = 2.5  # seconds: gateways report every two, when something moved
AT_ONCE = 0.5  # seconds: of reports that come within, as those that waited for us do, the last one counts

Numbers = dict[str, Any]


class Moving:
    """One row: its totals and their slopes."""

    __slots__ = ("_sampled", "changed", "slopes", "totals")

    def __init__(self, counted: Mapping[str, str]) -> None:
        """`counted`: the name of a rate → the total it is the slope of."""
        self.totals: Numbers = {}
        self.slopes = {name: (field, Slope(IN_WINDOW)) for name, field in counted.items()}
        self.changed = 0.0
        self._sampled = -math.inf

    def take(self, totals: Numbers, now: float) -> None:
        self.totals, self.changed = totals, now
        self._sample(now)

    def _sample(self, now: float) -> None:
        at_once = now - self._sampled < AT_ONCE
        for field, slope in self.slopes.values():
            position = int(self.totals.get(field, 0))
            if at_once:
                slope.correct(position)
            else:
                slope.add(now, position)
        self._sampled = self._sampled if at_once else now

    def shown(self, now: float) -> tuple[Numbers, bool]:
        """Totals and rates, and whether a rate may still change by itself."""
        if now - self.changed > REPORTS:  # the next report would be here if anything had moved
            self._sample(now)
        rates: Numbers = {}
        for name, (_, slope) in self.slopes.items():
            rate = slope.rate(now)
            rates[name] = None if rate is None else round(rate, 2)
        moving = now - self.changed < 3 * IN_WINDOW or any(rates.values())
        return self.totals | rates, moving


class Traffic:
    """`take` reports; `rows` is what is shown, by live key."""

    def __init__(self, closed: Callable[[Sequence[Sequence[Any]]], None] = lambda rows: None) -> None:
        """`closed` takes rows of CLOSED_FIELDS: connections that were refused."""
        self._closed = closed
        self._lock = threading.Lock()
        self._parts: dict[str, dict[str, tuple[float, list[int]]]] = {}  # key → gateway → (started, numbers)
        self._rows: dict[str, Moving] = {}
        self._devices: OrderedDict[str, float] = OrderedDict()  # live key → since
        self._shown: dict[str, Numbers] = {}
        self._moving: set[str] = set()
        self.refused = 0  # rows of them that were kept, since the start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def rows(self, now: float) -> dict[str, Numbers]:
        """The numbers by live key (`device/…`, `route/…`, `prefix/…`, `bridge/…`, `gateway/…`). A new mapping each
        time."""
        with self._lock:
            for key in list(self._moving):
                self._shown[key], moving = self._rows[key].shown(now)
                if not moving:
                    self._moving.discard(key)
            return dict(self._shown)

    def take(self, report: TrafficReport, now: float) -> None:
        with self._lock:
            for kind, rows in (("route", report.routes), ("prefix", report.prefixes)):
                for name, numbers in rows.items():
                    self._sum(f"{kind}/{name}", report, numbers, now)
            for client_id, values in report.devices.items():
                self._device(f"device/{client_id}", dict(zip(DEVICE_FIELDS, values, strict=False)), now)
            while len(self._devices) > DEVICES:
                self._forget(self._devices.popitem(last=False)[0])
        if report.closed:
            try:
                self._closed(report.closed)
                self.refused += len(report.closed)
            except DatabaseError as error:
                log.warning("refused connections can't be kept: %s", error)

    def take_bridge(self, status: BridgeStatus, now: float) -> None:
        with self._lock:
            key = f"bridge/{status.name}"
            if status.state == "gone":
                self._forget(key)
                return
            totals: Numbers = {
                "state": status.state,
                "since": int(status.since * 1000),
                "error": status.error,
                "error_at": int(status.error_at * 1000) if status.error_at else None,
                "received": status.received,
                "sent": status.sent,
                "dropped": status.dropped,
                "lag": status.lag,
                "owner": status.owner,
            }
            self._take(key, totals, now, {"in": "received", "out": "sent"})

    def take_gateway(self, name: str, status: GatewayStatus | None, now: float) -> None:
        with self._lock:
            key = f"gateway/{name}"
            known = self._rows.get(key)
            if status is None or (known is not None and known.totals.get("started") != int(status.started * 1000)):
                self._forget(key)  # after a restart its totals begin anew
            if status is None:
                return
            totals: Numbers = {
                **status.counters,
                "at": int(status.at * 1000),
                "started": int(status.started * 1000),
                "connections": status.connections,
                "sessions": status.sessions,
                "subscriptions": status.subscriptions,
                "retained": status.retained,
                "waiting": status.waiting,
                "held_back": status.held_back,
                "stopped": status.stopped,
                "listeners": list(status.listeners),
                "slowed": list(status.slowed),
            }
            counted = {"rate": "received", "http_rate": "received_http", "out_rate": "sent"}
            self._take(key, totals, now, counted)

    def _sum(self, key: str, report: TrafficReport, numbers: list[int] | None, now: float) -> None:
        parts = self._parts.setdefault(key, {})
        if numbers is None:
            parts.pop(report.gateway, None)
        else:
            parts[report.gateway] = (report.started, numbers)
        if not parts:
            del self._parts[key]
            self._forget(key)
            return
        sums = [sum(column) for column in zip(*(values for _, values in parts.values()), strict=True)]
        totals = dict(zip(ROW_FIELDS, sums, strict=False))
        self._take(key, totals, now, {"rate": "messages", "bytes_rate": "bytes"})

    def _device(self, key: str, totals: Numbers, now: float) -> None:
        since = totals.pop("since", 0.0)
        if self._devices.get(key) != since:
            self._rows.pop(key, None)  # another connection: its totals begin anew
        self._devices[key] = since
        self._devices.move_to_end(key)
        self._take(key, totals, now, {"rate": "received", "out_rate": "sent"})

    def _take(self, key: str, totals: Numbers, now: float, counted: Mapping[str, str]) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Moving(counted)
        row.take(totals, now)
        self._moving.add(key)

    def _forget(self, key: str) -> None:
        self._rows.pop(key, None)
        self._shown.pop(key, None)
        self._moving.discard(key)

    # --- reading

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (kafka.ClientError, kafka.SettingsError) as error:
                log.info("%s can't be read: %s", TRAFFIC, error)
            connection.close()
            self._stop.wait(3)

    def _follow(self) -> None:
        if TRAFFIC not in kafka.admin().topics([TRAFFIC]):
            return
        found = kafka.admin().offsets([PLACE], int(time.time() * 1000) - LOOK_BACK_MS)[PLACE]
        reader = kafka.consumer(queue_kbytes=4096)
        try:
            reader.assign({PLACE: found.offset if not found.error and found.offset >= 0 else kafka.END})
            silent_since = time.monotonic()
            while not self._stop.is_set() and time.monotonic() - silent_since < SILENCE_SECONDS:
                for record in reader.poll(100, 0.5):
                    silent_since = time.monotonic()
                    self._record(record)
        finally:
            reader.close()

    def _record(self, record: Any) -> None:
        try:
            if (record.key or b"").startswith(contract.BRIDGE_KEY.encode()):
                self.take_bridge(contract.decode(BridgeStatus, record.value or b""), time.time())
            else:
                self.take(contract.decode(TrafficReport, record.value or b""), time.time())
        except (contract.MalformedRecord, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            log.warning("a record of %s can't be read: %s", TRAFFIC, error)
