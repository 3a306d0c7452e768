"""`$SYS`: this gateway's numbers as MQTT topics, named as mosquitto names them.

They exist for whoever subscribed to them here and nowhere else: never in the log, retained only in memory, and not
matched by a filter that begins with a wildcard (MQTT-4.7.2-1). A policy that means to give them away must name `$SYS`.

The load topics are exponentially weighted averages per minute over 1, 5 and 15 minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.mqtt.topics import matches
from gateway.ports import Message
from gateway.server.figures import Figures

ROOT = "$SYS/broker/"
WINDOWS = (("1min", 60.0), ("5min", 300.0), ("15min", 900.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How things are now, and totals that the sockets don't know."""

    connected: int
    disconnected: int  # sessions kept for devices that are away
    maximum: int  # most clients connected at once
    subscriptions: int
    retained: int
    stored: int  # messages kept for sessions, and retained ones
    sockets: int  # accepted since the start
    connects: int  # successful ones since the start
    dropped: int  # messages on their way to subscribers, since the start


class SysTree:
    """`advance` takes the newest numbers and says which topics changed."""

    def __init__(self, *, version: str, started: float) -> None:
        self.values: dict[str, str] = {"version": version}
        self._started = started
        self._at = started
        self._before: Mapping[str, int] | None = None
        self._averages: dict[str, float] = {}

    def advance(self, now: float, totals: Figures, gauges: Gauges) -> list[Message]:
        """The messages of the topics whose value is another now."""
        counted = {
            "messages/received": totals.received_packets,
            "messages/sent": totals.sent_packets,
            "publish/received": totals.received,
            "publish/sent": totals.sent,
            "publish/dropped": totals.dropped + gauges.dropped,
            "bytes/received": totals.received_bytes,
            "bytes/sent": totals.sent_bytes,
            "sockets": gauges.sockets,
            "connections": gauges.connects,
        }
        values = {
            "version": self.values["version"],
            "uptime": f"{int(now - self._started)} seconds",
            "clients/total": str(gauges.connected + gauges.disconnected),
            "clients/connected": str(gauges.connected),
            "clients/active": str(gauges.connected),
            "clients/disconnected": str(gauges.disconnected),
            "clients/inactive": str(gauges.disconnected),
            "clients/maximum": str(gauges.maximum),
            "messages/received": str(totals.received_packets),
            "messages/sent": str(totals.sent_packets),
            "messages/stored": str(gauges.stored),
            "store/messages/count": str(gauges.stored),
            "publish/messages/received": str(totals.received),
            "publish/messages/sent": str(totals.sent),
            "publish/messages/dropped": str(counted["publish/dropped"]),
            "bytes/received": str(totals.received_bytes),
            "bytes/sent": str(totals.sent_bytes),
            "subscriptions/count": str(gauges.subscriptions),
            "retained messages/count": str(gauges.retained),
        }
        self._average(now, counted)
        values |= {f"load/{name}": f"{value:.2f}" for name, value in self._averages.items()}
        changed = [name for name, value in values.items() if self.values.get(name) != value]
        self.values = values
        return [self._message(name) for name in changed]

    def _average(self, now: float, counted: Mapping[str, int]) -> None:
        span, before = now - self._at, self._before
        self._at, self._before = now, counted
        if before is None or span <= 0:
            before, span = dict.fromkeys(counted, 0), max(span, 1.0)
        for name, total in counted.items():
            a_minute = (total - before[name]) * 60.0 / span
            for window, seconds in WINDOWS:
                key = f"{name}/{window}"
                keep = math.exp(-span / seconds)
                self._averages[key] = a_minute + keep * (self._averages.get(key, 0.0) - a_minute)

    def match(self, topic_filter: str) -> Iterator[Message]:
        """What a new subscription gets at once."""
        if topic_filter.startswith("$SYS"):
            for name in self.values:
                if matches(topic_filter, ROOT + name):
                    yield self._message(name)

    def _message(self, name: str) -> Message:
        return Message(ROOT + name, self.values[name].encode(), 0, True)
