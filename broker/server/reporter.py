"""What the broker tells of itself: one record a second in `__sluice_broker`, for the monitor.

The key is empty, the value JSON; totals count from the broker's start (`started`), so rates are differences::

    {"v": 1, "at": ms, "started": ms,
     "connections": {"open": n, "refused": n, "by_listener": {name: n}},
     "requests": n,
     "produce": {"requests": n, "batches": n, "records": n, "bytes": n},
     "fetch": {"requests": n, "bytes": n, "sessions": n},
     "authentication": {"succeeded": n, "failed": n},
     "throttled": n,
     "storage": {"ok": bool, "writable": bool, "reason": text, "damaged": [text]},
     "authorization": {"on": bool, "acls": n,
                       "principals": [{"principal": text, "allowed": n, "denied": n,
                                       "last_denied": {"operation", "resource_type", "name"} or null}]}}

A record in which nothing but the time would differ is left out, but for one every ten seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import Any

from broker.api.registry import Broker
from broker.log.failures import LogError
from broker.server.condition import OK
from broker.server.listener import Server
from broker.wire import batch

logger = logging.getLogger(__name__)

TOPIC = "__sluice_broker"
CONFIGS = {"retention.ms": "600000", "segment.ms": "300000", "segment.bytes": "4194304"}
VERSION = 1
PERIOD = 1.0
LONGEST_SILENCE = 10
PRINCIPALS = 50


class Reporter:
    """Writes the record; started after the listeners, stopped before them."""

    def __init__(self, broker: Broker, server: Server) -> None:
        self._broker = broker
        self._server = server
        self._started = broker.clock.now()
        self._last: dict[str, Any] = {}
        self._silent = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write once a second from now on."""
        self._timer = loop.call_later(PERIOD, self._tick, loop)

    def stop(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(PERIOD, self._tick, loop)
        broker = self._broker
        if broker.condition.look(broker.store.health(), broker.clock.now()):
            condition = broker.condition
            logger.log(
                logging.INFO if condition.state == OK else logging.ERROR,
                "storage: %s%s%s",
                condition.state,
                ": " if condition.reason else "",
                condition.reason,
            )
        try:
            self.write()
        except LogError as error:
            logger.debug("no report: %s", error)

    def write(self) -> None:
        """Append the record unless there is nothing new to tell."""
        report = self.report()
        if report == self._last and self._silent < LONGEST_SILENCE:
            self._silent += 1
            return
        self._last, self._silent = report, 0
        now = self._broker.clock.now()
        partition = self._broker.partition(TOPIC, 0)
        if partition is None:
            return
        value = json.dumps({"v": VERSION, "at": now, **report}, separators=(",", ":")).encode()
        partition.append(batch.split(batch.keyed([(b"", value)], now)), now)

    def report(self) -> dict[str, Any]:
        """Everything but the time."""
        broker, server, meter = self._broker, self._server, self._broker.meter
        authorizer = broker.metadata.authorizer
        health = broker.store.health()
        loudest = sorted(authorizer.tallies.items(), key=lambda item: (-item[1].denied, -item[1].allowed))
        return {
            "started": self._started,
            "connections": {
                "open": server.connection_count,
                "refused": server.refused,
                "by_listener": dict(Counter(one.ctx.listener.name for one in server.connections)),
            },
            "requests": server.requests,
            "produce": {
                "requests": meter.produce_requests,
                "batches": meter.produced_batches,
                "records": meter.produced_records,
                "bytes": meter.produced_bytes,
            },
            "fetch": {
                "requests": meter.fetch_requests,
                "bytes": meter.fetched_bytes,
                "sessions": len(broker.fetch_sessions),
            },
            "authentication": {"succeeded": meter.authentications, "failed": meter.failed_authentications},
            "throttled": meter.throttled,
            "storage": {
                "ok": health.ok,
                "writable": health.writable,
                "reason": health.reason,
                "damaged": list(health.damaged),
            },
            "authorization": {
                "on": authorizer.on,
                "acls": len(authorizer.acls),
                "principals": [
                    {
                        "principal": principal,
                        "allowed": tally.allowed,
                        "denied": tally.denied,
                        "last_denied": None
                        if tally.last_denied is None
                        else {
                            "operation": tally.last_denied[0].name,
                            "resource_type": tally.last_denied[1].name,
                            "name": tally.last_denied[2],
                        },
                    }
                    for principal, tally in loudest[:PRINCIPALS]
                ],
            },
        }
