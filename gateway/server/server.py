"""The server of one worker: listeners, the shared read buffer, the once-a-second sweep, the once-a-turn flush."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from gateway.http.conversation import Settings as HttpSettings
from gateway.http.port import Door
from gateway.mqtt.errors import Reason
from gateway.mqtt.surroundings import Moment, Settings
from gateway.ports import Engine
from gateway.server.accepting import Accepting, listening
from gateway.server.certificates import Certificates, NoCertificate, TlsFiles
from gateway.server.connection import Connection, Talk
from gateway.server.figures import NOTHING
from gateway.server.gate import Gate
from gateway.server.listeners import Listener
from gateway.server.refusals import Refusals
from gateway.server.securing import Securing

log = logging.getLogger("sluice.gateway")

SLOWED = 20  # addresses that `slowed` tells
SWEEP = 1.0  # seconds between two looks at deadlines and accounts
SLICE = 100  # connections that are looked at before others have their turn: all may be due for closing


class NoDoor(Exception):
    """An HTTP listener needs the engine's door."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    mqtt: Settings = field(default_factory=Settings)
    http: HttpSettings = field(default_factory=HttpSettings)
    tls: TlsFiles | None = None
    read_buffer: int = 16 * 1024  # bytes that one connection may bring a turn
    write_buffer: int = 1 << 20  # bytes a peer may leave unread before it counts as slow
    closing: float = 5.0  # seconds a peer has to take our last words
    max_connections: int = 0  # 0: as many as the machine has descriptors for
    connects_rate: float = 0.0  # new connections a second, with one second's burst; 0: unlimited
    pace: float = 0.0  # connections a second from one address that behaves, more wait for their turn; 0: unlimited
    patience: float = 5.0  # seconds that one may have to wait for that; with more it is turned away
    backlog: int = 4096
    trusted_proxies: tuple[str, ...] = ()  # networks that may send a PROXY header; empty: whoever reaches the listener
    reuse_port: bool = False  # several workers share the port


class Server:
    """See the module. `engine` is the gateway's port to everything durable, `door` that of HTTP listeners."""

    def __init__(
        self,
        engine: Engine,
        settings: ServerSettings,
        *,
        door: Door | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self._door = door
        self.moment = Moment(monotonic(), wall())
        self.view = memoryview(bytearray(settings.read_buffer))
        self.refusals = Refusals(log, clock=wall)
        self.gate, self.http_gate = (
            Gate(settings.pace, settings.patience, later=self._later, turned_away=self._turned_away) for _ in range(2)
        )
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.turned_away = 0
        self.active: set[Connection] = set()  # something went through since the last accounts
        self.moved: Callable[[Iterable[Connection]], None] | None = None  # hears of them once a second
        self.totals = NOTHING
        self._monotonic = monotonic
        self._wall = wall
        self._allowance = settings.connects_rate
        self._allowance_at = self.moment.monotonic
        self._waiting: list[Connection] = []  # for their flush
        self._resting: list[Connection] = []  # until the next turn
        self._servers: list[Accepting | Securing] = []
        self._certificates: Certificates | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._tls_tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._proxies = [ip_network(text, strict=False) for text in settings.trusted_proxies]
        self._emptied: asyncio.Event | None = None

    async def start(self, listeners: Sequence[Listener]) -> list[Listener]:
        """Listen; gives the listeners with the ports they got. Raises OSError for an address that is taken."""
        self._loop = asyncio.get_running_loop()
        bound = []
        for listener in listeners:
            server = await self._listen(listener)
            self._servers.append(server)
            if not listener.proxy:  # else all come from the proxy
                self.gate_for(listener).watch(server.sockets)
            port = server.sockets[0].getsockname()[1]
            bound.append(
                Listener(
                    scheme=listener.scheme, host=listener.host, port=port, path=listener.path, proxy=listener.proxy
                )
            )
        self._sweeper = asyncio.create_task(self._sweep())
        return bound

    async def _listen(self, listener: Listener) -> Accepting | Securing:
        assert self._loop is not None
        settings = self.settings
        if listener.http:
            self.door_for(listener)
        if listener.tls:
            self._secured()
        sockets = await listening(
            listener.host, listener.port, backlog=settings.backlog, reuse_port=settings.reuse_port
        )
        if not listener.tls or listener.proxy:
            return await Accepting.on(sockets, lambda: Connection(self, listener), backlog=settings.backlog)
        return Securing(
            sockets,
            lambda: Connection(self, listener),
            gate=self.gate_for(listener),
            context=lambda: self._secured().context,
            timeout=settings.mqtt.connect_timeout,
            clock=self.read_clock,
            failed=lambda address, why: self._insecure(listener, address, why),
        )

    async def stop(self, *, closing: float = 2.0) -> None:
        """Stop listening, end every session with "server shutting down", wait for their last words."""
        self._stopping = True
        elsewhere = self.settings.mqtt.server_reference
        for gate in (self.gate, self.http_gate):
            gate.unwatch()
        for server in self._servers:
            server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.read_clock()
        for connection in list(self.connections):
            if connection.session is not None and not connection.session.closed:
                connection.session.close(
                    Reason.USE_ANOTHER_SERVER if elsewhere else Reason.SERVER_SHUTTING_DOWN,
                    "server shutting down",
                    server_reference=elsewhere,
                )
            else:
                connection.abort()
        if self.connections:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), closing)
        for connection in list(self.connections):
            connection.abort()
        for server in self._servers:
            if isinstance(server, Accepting):
                await server.wait_closed()

    def resume(self) -> None:
        """The engine's commits have caught up: sessions held as congested read on."""
        self.read_clock()
        for connection in list(self.connections):
            if connection.session is not None:
                connection.session.decongest()

    # -- TLS -------------------------------------------------------------------------------------------------------

    def _secured(self) -> Certificates:
        if self._certificates is None:
            if self.settings.tls is None:
                raise NoCertificate("a TLS listener needs a certificate and its key")
            self._certificates = Certificates(self.settings.tls)
        return self._certificates

    def _insecure(self, listener: Listener, address: str, why: str) -> None:
        """A handshake came to nothing."""
        if not self._stopping:
            self.refusals.report("tls", why, address)
            self.gate_for(listener).spoiled(address, self.read_clock())

    def start_tls(self, connection: Connection, transport: asyncio.Transport, wait: float) -> None:
        """Shake hands after so many seconds."""
        task = asyncio.ensure_future(self._start_tls(connection, transport, wait))
        self._tls_tasks.add(task)
        task.add_done_callback(self._tls_tasks.discard)

    async def _start_tls(self, connection: Connection, transport: asyncio.Transport, wait: float) -> None:
        assert self._loop is not None
        secured, failure = None, None
        try:
            if wait:
                await asyncio.sleep(wait)
            if not transport.is_closing():
                secured = await self._loop.start_tls(
                    transport,
                    connection,
                    self._secured().context,
                    server_side=True,
                    ssl_handshake_timeout=self.settings.mqtt.connect_timeout,
                )
        except (OSError, ssl.SSLError) as error:
            failure = error
        self.read_clock()
        if secured is None:
            connection.insecure(failure)
        else:
            connection.secured(secured)

    def door_for(self, listener: Listener) -> Door:
        """What HTTP is given; raises NoDoor."""
        if self._door is None:
            raise NoDoor(f"{listener}: this server was made without an HTTP door")
        return self._door

    # -- for connections -------------------------------------------------------------------------------------------

    def read_clock(self) -> float:
        """Sets the moment; gives it in monotonic seconds."""
        moment = self.moment
        moment.monotonic = self._monotonic()
        moment.wall = self._wall()
        return moment.monotonic

    def admit(self, connection: Connection) -> bool:
        """Whether a new connection may stay: connections and connects/s are limited before any byte is read."""
        settings = self.settings
        if settings.connects_rate:
            now = self.moment.monotonic
            passed, self._allowance_at = now - self._allowance_at, now
            self._allowance = min(settings.connects_rate, self._allowance + passed * settings.connects_rate)
            if self._allowance < 1:
                self.turned_away += 1
                self.refusals.report("connect-rate", "too many connects", connection.address)
                return False
            self._allowance -= 1
        if self._stopping or (settings.max_connections and len(self.connections) >= settings.max_connections):
            self.turned_away += 1
            self.refusals.report("connections", "too many connections", connection.address)
            return False
        self.accepted += 1
        connection.opened_at = self.moment.monotonic
        self.connections.add(connection)
        return True

    def gate_for(self, listener: Listener) -> Gate:
        """What stands before it."""
        return self.http_gate if listener.http else self.gate

    def worked(self, host: str, seconds: float) -> None:
        """So much was done for what an address asked; of addresses that are none, "", nobody keeps account."""
        if host:
            self.gate.worked(f"{host}:0", self.moment.monotonic, seconds)

    def sent(self) -> int:
        """PUBLISH packets that went out since the start, as of the last accounts."""
        return self.totals.sent

    def slowed(self) -> list[tuple[str, float, bool]]:
        """The addresses that connect too often or make trouble, as `Gate.slowed` has them; at most `SLOWED`."""
        now = self.moment.monotonic
        found = [each for gate in (self.gate, self.http_gate) for each in gate.slowed(now, SLOWED)]
        return sorted(found, key=lambda each: -each[1])[:SLOWED]

    def _turned_away(self, address: str) -> None:
        self.turned_away += 1
        self.refusals.report("address-rate", "too many connects from there", address)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_later(seconds, call)

    def trusts(self, host: str) -> bool:
        """Whether a PROXY header from this host is believed."""
        if not self._proxies:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def account(self) -> None:
        """Add up what went through since the last time; costs as much as there are connections that moved."""
        self._add_up(list(self._moved_since()))

    def _moved_since(self) -> set[Connection]:
        active, self.active = self.active, set()
        return active

    def _add_up(self, crowd: Sequence[Connection]) -> None:
        if crowd:
            now = [connection.count() for connection in crowd]
            self.totals = self.totals.plus(now, [connection.figures for connection in crowd])
            for connection, figures in zip(crowd, now, strict=True):
                connection.figures = figures
        if self.moved is not None:
            self.moved(crowd)

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    def dirty(self, connection: Connection) -> None:
        """This connection has gathered writes; they leave at the end of the loop's turn."""
        if not self._waiting:
            assert self._loop is not None
            self._loop.call_soon(self._flush)
        self._waiting.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()

    def next_turn(self, connection: Connection) -> None:
        """This connection reads on once all others had their turn."""
        if not self._resting:
            assert self._loop is not None
            self._loop.call_soon(self._go_on)
        self._resting.append(connection)

    def _go_on(self) -> None:
        resting, self._resting = self._resting, []
        for connection in resting:
            connection.rested()

    def wake_after(self, seconds: float, session: Talk) -> None:
        assert self._loop is not None
        self._loop.call_later(seconds, self._recovered, session)

    def _recovered(self, session: Talk) -> None:
        self.read_clock()
        session.rate_recovered()

    async def _sweep(self) -> None:
        """Deadlines and accounts, once a second; a big crowd is taken in slices so that nobody waits for the sweep."""
        while True:
            due = self.read_clock() + SWEEP
            await asyncio.sleep(SWEEP)
            late = max(0.0, self.read_clock() - due)
            if self._certificates is not None:
                self._certificates.reload_if_changed()
            for some in _sliced(list(self._moved_since())):
                try:
                    self._add_up(some)
                except Exception:  # deadlines must be kept whatever the numbers are
                    log.exception("what went through in the last second could not be added up")
                await asyncio.sleep(0)
            for some in _sliced(list(self.connections)):
                self.read_clock()
                for connection in some:
                    try:
                        connection.tick(late)
                    except Exception:  # one connection's bug is not everybody's end
                        log.exception("a connection's deadlines could not be checked")
                        connection.abort()
                await asyncio.sleep(0)
            self.read_clock()
            self.refusals.tick(self.moment.monotonic)

    def counters(self) -> dict[str, Any]:
        """Numbers since the start, and how many connections there are."""
        return {
            "connections": len(self.connections),
            "accepted": self.accepted,
            "turned_away": self.turned_away,
            "refusals": self.refusals.total,
            "received_bytes": self.totals.received_bytes,
            "sent_bytes": self.totals.sent_bytes,
        }


def _sliced(crowd: Sequence[Connection]) -> Iterator[Sequence[Connection]]:
    return (crowd[start : start + SLICE] for start in range(0, len(crowd), SLICE))
