"""The tap: one device's packets, copied for an operator to look at, for a short while.

A session that nobody looks at has nothing of this in its way: a tap puts itself between the connection and its session
(`TappedSession`, on the way in) and between the session and its connection (`TappedLink`, on the way out), and takes
itself away again. What is copied is bounded three ways: at most `LONGEST` seconds, `RATE` packets a second (the rest
are counted), and excerpts of a few hundred bytes.

A tap lives as long as somebody renews it: a viewer that goes away stops renewing. It is not kept anywhere, so it ends
with the gateway. A device that comes back while it is tapped is tapped again; with several gateways, each is told of
the tap and the one that holds the device copies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from gateway import contract
from gateway.contract import TAP, Control, TapReport
from gateway.mqtt.session import Session
from gateway.mqtt.showing import Frames, Shown, show
from gateway.mqtt.surroundings import Link
from gateway.ports import Receipt

log = logging.getLogger("gateway.tap")

LONGEST = 600.0  # seconds
LEASE = 15.0  # seconds without being renewed
MOST = 8  # taps at a time
RATE = 100.0  # packets a second
BURST = 200.0
ROWS = 300  # of one report
INTERVAL = 0.5
HEARTBEAT = 2.0
LATE = 30.0  # an order older than this is not followed

Write = Callable[[str, bytes | None, bytes | None], Receipt[Any]]


class TappedLink:
    """A connection that shows what is written to it. Everything else is the connection's."""

    def __init__(self, link: Link, wrote: Callable[[bytes], None]) -> None:
        self._inner = link
        self._wrote = wrote

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        self._wrote(data)
        self._inner.write(data)


class TappedSession:
    """A session that shows what it receives. Everything else is the session's."""

    def __init__(self, session: Session, read: Callable[[bytes], None]) -> None:
        self._inner = session
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def receive(self, chunk: bytes) -> None:
        self._read(chunk)
        self._inner.receive(chunk)


class Taking:
    """One session being looked at: puts the two in place, and takes them away."""

    def __init__(self, session: Session, seen: Callable[[str, Shown], None]) -> None:
        self.session = session
        self._seen = seen
        self._in, self._out = Frames(), Frames()
        unread = session.unread
        connection = cast(Any, session.divert(cast(Link, self._outward(session))))
        self._connection = connection
        connection.session = TappedSession(session, lambda data: self._show("in", self._in, data))
        self._show("in", self._in, unread)

    def _outward(self, session: Session) -> TappedLink:
        return TappedLink(session.link, lambda data: self._show("out", self._out, data))

    def _show(self, direction: str, frames: Frames, data: bytes) -> None:
        protocol = self.session.request.protocol
        for head, size in frames.feed(data):
            self._seen(direction, show(head, size, protocol))

    def end(self) -> None:
        self.session.divert(self._connection)
        self._connection.session = self.session


class Tap:
    """One viewer's tap: what is still to be told, within its bounds."""

    def __init__(self, name: str, client_id: str, now: float, seconds: float) -> None:
        self.name = name
        self.client_id = client_id
        self.until = now + min(max(seconds, 1.0), LONGEST)
        self.lease = now + LEASE
        self.rows: list[Shown] = []
        self.dropped = 0
        self.told = 0.0  # when it was last written of
        self._allowance = BURST
        self._at = now

    def take(self, row: Shown, now: float) -> None:
        self._allowance = min(BURST, self._allowance + (now - self._at) * RATE)
        self._at = now
        if self._allowance < 1 or len(self.rows) >= ROWS:
            self.dropped += 1
            return
        self._allowance -= 1
        self.rows.append(row)


class Taps:
    """All taps of this gateway. `sessions` finds a connected session by client id."""

    def __init__(
        self,
        *,
        gateway: str,
        find: Callable[[str], Any],
        write: Write,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], object] = lambda call: asyncio.get_running_loop().call_soon(call),
    ) -> None:
        self.taps: dict[str, Tap] = {}
        self._gateway = gateway
        self._find = find
        self._write = write
        self._clock = clock
        self._soon = soon
        self._taking: dict[str, Taking] = {}
        self._task: asyncio.Task[None] | None = None

    # --- orders

    def order(self, order: Control) -> None:
        """`tap` begins one, `tap.keep` renews it, `tap.stop` ends it."""
        now = self._clock()
        tap = self.taps.get(order.tap)
        if order.verb == "tap.stop":
            if tap is not None:
                self._end(tap, "stopped")
        elif order.verb == "tap.keep":
            if tap is not None:
                tap.lease = now + LEASE
        elif tap is None and order.tap and order.at > now - LATE:
            tap = Tap(order.tap, order.client_id, now, order.seconds)
            if len(self.taps) >= MOST:
                self._tell(tap, "full")
                return
            self.taps[tap.name] = tap
            fields = {"event": "tap", "client": order.client_id, "actor": order.actor, "tap": tap.name}
            log.info("a tap begins", extra=fields)
            session = self._find(order.client_id)
            if session is not None:
                self._look(session)
            self._tell(tap)
            self.start()

    # --- sessions

    def opened(self, session: Session) -> None:
        """A device connected."""
        if any(tap.client_id == session.client_id for tap in self.taps.values()):
            # not within its own `receive`, which has yet to keep what it could not take
            self._soon(lambda: self._look(session))

    def _look(self, session: Session) -> None:
        client_id = session.client_id
        if session.closed or not any(tap.client_id == client_id for tap in self.taps.values()):
            return
        taking = self._taking.get(client_id)
        if taking is not None and taking.session is session:
            self._seen(client_id, "in", connected(session))
            return
        if taking is not None:
            taking.end()
        self._taking[client_id] = Taking(session, lambda way, shown: self._seen(client_id, way, shown))
        self._seen(client_id, "in", connected(session))

    def closed(self, session: Session, reason: str) -> None:
        taking = self._taking.get(session.client_id)
        if taking is not None and taking.session is session:
            del self._taking[session.client_id]
            self._seen(session.client_id, "in", {"type": "closed", "reason": reason[:200]})

    def _seen(self, client_id: str, direction: str, shown: Shown) -> None:
        now = self._clock()
        row = {"at": round(now, 3), "way": direction} | shown
        for tap in self.taps.values():
            if tap.client_id == client_id:
                tap.take(row, now)

    # --- telling

    def start(self) -> None:
        """Tell regularly, for as long as there are taps."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self.taps:
            await asyncio.sleep(INTERVAL)
            self.tell()
        self._task = None

    def tell(self) -> None:
        """Write what was seen; end what has had its time."""
        now = self._clock()
        for tap in list(self.taps.values()):
            if now >= tap.until:
                self._end(tap, "time")
            elif now >= tap.lease:
                self._end(tap, "unwatched")
            elif tap.rows or tap.dropped or now - tap.told >= HEARTBEAT:
                self._tell(tap)

    def _tell(self, tap: Tap, ended: str = "") -> None:
        rows, tap.rows = tap.rows, []
        dropped, tap.dropped = tap.dropped, 0
        tap.told = now = self._clock()
        report = TapReport(
            gateway=self._gateway,
            at=now,
            connected=tap.client_id in self._taking,
            rows=tuple(rows),
            dropped=dropped,
            ended=ended,
            until=tap.until,
        )
        self._write(TAP, contract.encode(report), tap.name.encode())

    def _end(self, tap: Tap, why: str) -> None:
        del self.taps[tap.name]
        self._tell(tap, why)
        log.info("a tap ends: %s", why, extra={"event": "tap.end", "client": tap.client_id, "tap": tap.name})
        if not any(other.client_id == tap.client_id for other in self.taps.values()):
            taking = self._taking.pop(tap.client_id, None)
            if taking is not None:
                taking.end()

    def stop(self) -> None:
        """The gateway ends."""
        if self._task is not None:
            self._task.cancel()
        for tap in list(self.taps.values()):
            self._end(tap, "gateway")


def connected(session: Session) -> Shown:
    """A connection as its CONNECT asked for it, without its secrets."""
    request = session.request
    shown: Shown = {"type": "connected", "protocol": request.protocol, "keep_alive": request.keep_alive}
    shown["clean"] = request.clean_start
    if request.username is not None:
        shown["username"] = request.username[:200]
    if request.will is not None:
        shown["will"] = f"{request.will.topic[:200]} (QoS {request.will.qos}, {len(request.will.payload)} bytes)"
    return shown
