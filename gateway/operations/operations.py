"""What people watch of one gateway: traffic reports, `$SYS`, `/metrics`. Started with the gateway, stopped with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from gateway.config import Settings
from gateway.engine import GatewayEngine
from gateway.operations.reporting import Reporter
from gateway.operations.systree import Gauges, SysTree
from gateway.ports import Receipt
from gateway.server.connection import Connection
from gateway.server.figures import Figures
from gateway.server.metrics import MetricsServer, OwnNumbers, Sources
from gateway.server.server import Server
from gateway.storage.ticks import Ticks

VERSION = "Sluice 0.1.0"


class Operations:
    """`start` once the server listens."""

    def __init__(
        self,
        settings: Settings,
        engine: GatewayEngine,
        server: Server,
        *,
        ticks: Callable[[], Ticks],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._server = server
        self._ticks = ticks
        self._clock = clock
        self._started = clock()
        self._maximum = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.reporter = Reporter(
            gateway=settings.name,
            traffic=engine.uplinks.traffic,
            write=self._write,
            clock=clock,
            refresh=server.account,
            closed=server.refusals.take,
        )
        server.moved = self._moved
        self.metrics_port: int | None = None
        self._numbers = OwnNumbers(
            Sources(
                gateway=settings.name,
                started=self._started,
                counters=engine.counters,
                gauges=self._gauges,
                totals=self._totals,
                tables={"route": engine.uplinks.traffic.routes, "prefix": engine.uplinks.traffic.prefixes},
                refusals=lambda: server.refusals.by_reason,
            )
        )
        self.metrics = MetricsServer(self._gather)

    async def _gather(self) -> OwnNumbers:
        return self._numbers

    async def start(self) -> None:
        """Raises OSError when the address of `/metrics` is taken."""
        if self._settings.metrics is not None:
            self.metrics_port = await self.metrics.start(*self._settings.metrics)
        if self._settings.sys_interval:
            self._engine.subscribing.system = SysTree(version=VERSION, started=self._started)
            self._advance()
            self._tasks.append(asyncio.get_running_loop().create_task(self._keep_advancing()))
        self.reporter.start()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._engine.taps.stop()
        self.reporter.stop()
        await self.metrics.stop()

    def _write(self, topic: str, value: bytes | None, key: bytes | None) -> Receipt[None]:
        return self._ticks().write(topic, value, key)

    def _moved(self, connections: Iterable[Connection]) -> None:
        self._maximum = max(self._maximum, len(self._engine.sessions.live))
        self.reporter.moved(connections)

    async def _keep_advancing(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sys_interval)
            self._advance()

    def _advance(self) -> None:
        engine, server = self._engine, self._server
        assert engine.subscribing.system is not None
        sessions, counters = engine.sessions, engine.counters
        away = [mailbox for mailbox in sessions.mailboxes.values() if mailbox.session is None]
        gauges = Gauges(
            connected=len(sessions.live),
            disconnected=len(away),
            maximum=max(self._maximum, len(sessions.live)),
            subscriptions=engine.fanout.count,
            retained=engine.retained.count,
            stored=engine.retained.count + sum(mailbox.waiting for mailbox in sessions.mailboxes.values()),
            sockets=server.accepted,
            connects=counters.connects,
            dropped=counters.dropped_full,
        )
        server.account()
        engine.tell(engine.subscribing.system.advance(self._clock(), server.totals, gauges))

    def _totals(self) -> Figures:
        self._server.account()
        return self._server.totals

    def _gauges(self) -> dict[str, float]:
        engine, server = self._engine, self._server
        return {
            "connections": len(server.connections),
            "clients": len(engine.sessions.live),
            "sessions": len(engine.sessions.mailboxes),
            "subscriptions": engine.fanout.count,
            "retained_messages": engine.retained.count,
            "waiting_messages": self._ticks().waiting,
            "congested": float(engine.congested),
        }
