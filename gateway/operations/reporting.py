"""Numbers for people: every two seconds what moved, as one record of `__sluice_traffic`.

A record holds the rows that changed since the last one, as totals, so that a lost record costs nothing. Devices are
taken in turns of at most `DEVICES`: with more than that active, each one's numbers come less often, and the cost stays.
Nothing moved, nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

from gateway import contract
from gateway.contract import TRAFFIC, TrafficReport
from gateway.mqtt.session import Session
from gateway.ports import Receipt
from gateway.publishing.traffic import Traffic
from gateway.server.connection import Connection
from gateway.sessions.connected import Connection as EngineConnection

log = logging.getLogger("gateway.reporting")

INTERVAL = 2.0
DEVICES = 500  # rows of one record
REMEMBERED = 50_000  # devices whose turn is still to come

Write = Callable[[str, bytes | None, bytes | None], Receipt[None]]


class Reporter:
    """`moved` hears of connections; `start` writes regularly."""

    def __init__(
        self,
        *,
        gateway: str,
        traffic: Traffic,
        write: Write,
        clock: Callable[[], float],
        refresh: Callable[[], None] = lambda: None,
        closed: Callable[[], list[list[Any]]] = list,
    ) -> None:
        """`refresh` brings the server's accounts up to date; `closed` gives what it refused since it was last asked."""
        self._gateway = gateway
        self._traffic = traffic
        self._write = write
        self._clock = clock
        self._refresh = refresh
        self._closed = closed
        self._started = clock()
        self._due: dict[str, Connection] = {}
        self._task: asyncio.Task[None] | None = None

    def moved(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            session = connection.session
            # what comes by HTTP has no state, and is counted by route and prefix
            if session is None or not isinstance(session.state, EngineConnection):
                continue
            if session.client_id in self._due or len(self._due) < REMEMBERED:
                self._due[session.client_id] = connection

    def report(self) -> bool:
        """Write what changed; whether anything had."""
        now = self._clock()
        turn = list(self._due)[:DEVICES]
        devices = {client_id: _device(self._due.pop(client_id)) for client_id in turn}
        routes, prefixes = self._traffic.routes.changed(now), self._traffic.prefixes.changed(now)
        closed = self._closed()
        if not (devices or routes or prefixes or closed):
            return False
        record = TrafficReport(
            gateway=self._gateway,
            at=now,
            started=self._started,
            devices=devices,
            routes=routes,
            prefixes=prefixes,
            closed=tuple(closed),
        )
        self._write(TRAFFIC, contract.encode(record), self._gateway.encode())
        return True

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                self.report()
            except Exception:  # one device's bug is not the end of everybody's numbers
                log.exception("the numbers of the last seconds were not told")

    def stop(self) -> None:
        """Write the last numbers."""
        if self._task is not None:
            self._task.cancel()
        self._refresh()
        self.report()


def _device(connection: Connection) -> list[float]:
    """In the order of `contract.DEVICE_FIELDS`."""
    session = cast(Session, connection.session)  # or what stands for it while somebody watches its packets
    state = session.state
    mailbox = state.mailbox
    gone = session.closed
    return [
        round(state.since, 3),
        session.received_messages,
        session.refused_messages,
        session.sent_messages,
        max(0, session.dropped_messages - state.expired) + state.overflowed + (mailbox.dropped if mailbox else 0),
        state.expired,
        0 if gone else session.in_flight,
        (0 if gone else session.waiting) + (mailbox.waiting if mailbox is not None else 0),
        connection.received_bytes,
        connection.sent_bytes,
        len(session.subscriptions or ()),
    ]
