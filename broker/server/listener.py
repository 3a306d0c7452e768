"""Listening: sockets of every listener, the count of connections, and an orderly stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.api.registry import Api, Broker, Context
from broker.config import Config, Limits, Listener
from broker.server.complaints import Complaints
from broker.server.connection import Connection
from broker.server.tls import principal_of

if TYPE_CHECKING:
    from broker.server.tls import Certificates

logger = logging.getLogger(__name__)

BACKLOG = 1024
SWEEP_SECONDS = 5.0


class CannotListen(OSError):
    """An address can't be listened on; the message is one clear line."""


class Server:
    """Every listener and connection of the broker."""

    def __init__(self, config: Config, broker: Broker, certificates: Certificates | None = None) -> None:
        self.config = config
        self.broker = broker
        self.limits: Limits = config.limits
        self.clock = broker.clock
        self.apis: dict[int, Api] = broker.apis
        self.api_versions = broker.advertised
        self.listeners: tuple[Listener, ...] = ()
        self.requests = 0
        self.refused = 0
        self.certificates = certificates
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._awaiting_authentication: dict[Connection, float] = {}
        self._per_address: dict[str, int] = {}
        self._complaints = Complaints(logger, self.clock.monotonic)
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def start(self) -> None:
        """Open every listener. Raises CannotListen."""
        self._loop = asyncio.get_running_loop()
        listeners = []
        for listener in self.config.listeners:
            server = await self._listen(listener)
            self._servers.append(server)
            listeners.append(replace(listener, port=server.sockets[0].getsockname()[1]))
        self.listeners = tuple(listeners)
        self._sweep()

    async def _listen(self, listener: Listener) -> asyncio.Server:
        context: ssl.SSLContext | None = None
        if listener.tls:
            assert self.certificates is not None
            context = self.certificates.context(listener)
        try:
            server = await self._loop.create_server(
                lambda: Connection(self, listener),
                listener.host,
                listener.port,
                ssl=context,
                ssl_handshake_timeout=self.limits.authentication_seconds if context else None,
                backlog=BACKLOG,
            )
        except OSError as error:
            await self.stop_listening()
            reason = (error.strerror or str(error)).lower()
            raise CannotListen(f"{listener} can't be listened on ({reason})") from error
        return server

    async def stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop(self, seconds: float = 3.0) -> None:
        """Take no more connections, answer what is under way, close."""
        await self.stop_listening()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.broker.waiting.stop()
        deadline = self.clock.monotonic() + seconds
        while self._connections and self.clock.monotonic() < deadline:
            for connection in tuple(self._connections):
                connection.close_after_answers()
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.abort("the broker stops")

    # --- what connections ask

    def context(self, connection: Connection, listener: Listener, transport: asyncio.Transport) -> Context:
        peer = transport.get_extra_info("peername") or ("unknown", 0)
        own = transport.get_extra_info("sockname") or ("127.0.0.1", 0)
        ctx = Context(
            broker=self.broker,
            listener=listener,
            address=_plain_address(peer[0]),
            port=peer[1],
            authenticated=not listener.sasl,
            connection=connection,
            local_address=(_plain_address(own[0]), own[1]),
        )
        if listener.tls and self.certificates is not None:
            principal = principal_of(transport.get_extra_info("peercert"))
            if principal and not listener.sasl:
                ctx.principal = principal
        return ctx

    def opened(self, connection: Connection) -> str | None:
        """Count the connection; the reason when it has to go at once."""
        self._connections.add(connection)
        address = connection.ctx.address
        count = self._per_address.get(address, 0) + 1
        self._per_address[address] = count
        if connection.ctx.listener.internal:
            self._await_authentication(connection)
            return None
        if len(self._connections) > self.limits.connections:
            self.refused += 1
            return f"more than {self.limits.connections} connections"
        allowed = self.limits.connections_per_address
        if count > allowed:
            self.refused += 1
            return f"more than {allowed} connections from {address}"
        self._await_authentication(connection)
        return None

    def held(self, connection: Connection) -> int:
        """For how many milliseconds a new connection is held before it is closed; 0: it is welcome."""
        if connection.ctx.listener.internal:
            return 0
        wait = self.broker.quotas.connection(connection.ctx.address, self.clock.monotonic())
        if wait:
            self.refused += 1
        return wait

    def _await_authentication(self, connection: Connection) -> None:
        if not connection.ctx.authenticated:
            self._awaiting_authentication[connection] = self.clock.monotonic() + self.limits.authentication_seconds

    def authenticated(self, connection: Connection) -> None:
        self._awaiting_authentication.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._awaiting_authentication.pop(connection, None)
        address = connection.ctx.address
        count = self._per_address.get(address, 1) - 1
        if count:
            self._per_address[address] = count
        else:
            self._per_address.pop(address, None)

    def complain(self, connection: Connection, reason: str) -> None:
        """Log why a connection is closed, unless there are too many such lines already."""
        kind = reason.split(":")[0]
        self._complaints.say(
            f"closed {connection.ctx.listener.name} connection",
            f"{connection.ctx.address}:{connection.ctx.port} ({connection.ctx.principal}): {reason}"
            if kind != reason
            else f"{connection.ctx.address}:{connection.ctx.port}: {reason}",
        )

    @property
    def connections(self) -> Sequence[Connection]:
        return tuple(self._connections)

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def _sweep(self) -> None:
        """Close what has not authenticated in time or has been silent too long."""
        now = self.clock.monotonic()
        for connection, deadline in tuple(self._awaiting_authentication.items()):
            if now > deadline:
                connection.abort("not authenticated in time")
            else:
                break
        for connection in tuple(self._connections):
            if now - connection.last_heard > self.limits.idle_seconds and connection.idle:
                connection.close_after_answers()
        if self.certificates is not None:
            self.certificates.reload_if_changed()
        interval = min(SWEEP_SECONDS, self.limits.authentication_seconds / 4)
        self._sweeper = self._loop.call_later(interval, self._sweep)


def _plain_address(host: str) -> str:
    """The host as ACLs see it: an IPv4 address that came through an IPv6 socket is the IPv4 address."""
    if host.startswith("::ffff:"):
        try:
            return str(ipaddress.ip_address(host).ipv4_mapped or host)  # type: ignore[union-attr]  # v6 by its prefix
        except ValueError:
            return host
    return host
