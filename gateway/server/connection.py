"""One connection: the asyncio protocol between a socket and a `Session`, or a `Conversation` on an HTTP listener.

All connections of a worker share one read buffer (reading and handling are one step, so nobody finds another's bytes
in it); what a connection keeps while idle is this object, its session, and the transport. Writes are gathered and
leave once per turn of the loop, in one piece. Whoever fills the buffer rests until the next turn: a peer that sends as
fast as it can takes one buffer's worth of work a turn from the others, and no more.

Stages: [PROXY header] → [TLS] → [WebSocket upgrade → WebSocket frames] → greeting → MQTT, or HTTP, at first young. A
PROXY header is read exactly, so that whatever follows is still in the socket when TLS takes over. A connection's turn
(`gate`) has to come before its TLS handshake, which is dear; without TLS, before its first word is taken. What young
connections cost, and that they end soon, counts against their address at the gate.
"""

from __future__ import annotations

import asyncio
import ssl
from time import thread_time
from typing import TYPE_CHECKING, Any, Final, cast

from gateway.http.conversation import Conversation
from gateway.mqtt.session import Session
from gateway.ports import Peer
from gateway.server import proxy, websocket
from gateway.server.figures import NOTHING, Figures
from gateway.server.gate import SOON, Gate
from gateway.server.listeners import Listener
from gateway.server.securing import address_of

if TYPE_CHECKING:
    from gateway.server.server import Server

Talk = Session | Conversation

# HTTP is a session's bytes as MQTT is, without a greeting
_PROXY, _SECURING, _UPGRADE, _FRAMES, _GREETING, _YOUNG, _MQTT, _CLOSED = range(8)
_USELESS: Final = ("connect-timeout", "http-malformed", "http-slow")  # and MQTT's codes, in hexadecimal
_FLUSH_AT: Final = 256 * 1024  # gathered bytes that don't wait for the end of the turn
_NOTABLE: Final = 0.001  # seconds of work for a young connection that are noted


class Connection(asyncio.BufferedProtocol):
    """See the module. Is the `Link` of its session."""

    __slots__ = (
        "_early",
        "_exact",
        "_listener",
        "_out",
        "_out_size",
        "_proxied",
        "_reading",
        "_resting",
        "_server",
        "_stage",
        "_transport",
        "_web",
        "address",
        "closing_since",
        "figures",
        "opened_at",
        "received_bytes",
        "sent_bytes",
        "session",
        "writable",
        "writes",
    )

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._stage = _PROXY if listener.proxy else _GREETING
        self._exact: bytearray | None = bytearray() if listener.proxy else None
        self._proxied: proxy.ProxyHeader | None = None
        self._web: websocket.Upgrade | websocket.Frames | None = None
        self.address = "unknown"  # the device's, "host:port"
        self._out: list[bytes] | None = None
        self._out_size = 0
        self._early = b""
        self._reading = True
        self._resting = False
        self.writable = True
        self.session: Talk | None = None
        self.opened_at = server.moment.monotonic
        self.closing_since = 0.0
        self.received_bytes = self.sent_bytes = self.writes = 0
        self.figures = NOTHING  # as last accounted for

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.read_clock()
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.address = address_of(transport.get_extra_info("peername"))
        transport.set_write_buffer_limits(high=self._server.settings.write_buffer)
        if self._too_many_before() or not self._server.admit(self):
            self._stage = _CLOSED
            transport.abort()
            return
        if self._stage != _PROXY:
            self._begin()
        elif not self._server.trusts(str((transport.get_extra_info("peername") or ("",))[0])):
            self._server.refusals.report("proxy-untrusted", "not a trusted proxy", self.address)
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._exact is not None:
            return self._server.view[: self._wanted()]
        return self._server.view

    def buffer_updated(self, nbytes: int) -> None:
        server = self._server
        self.received_bytes += nbytes
        server.active.add(self)
        if self._stage == _CLOSED:
            return
        data = bytes(server.view[:nbytes])
        server.read_clock()
        self._taken(data)
        if nbytes == server.settings.read_buffer:
            self._rest()

    def _rest(self) -> None:
        """There may be more, and others have their turn first."""
        if self._transport is not None and not self._resting and not self._transport.is_closing():
            self._resting = True
            self._transport.pause_reading()
            self._server.next_turn(self)

    def rested(self) -> None:
        """It is the next turn."""
        self._resting = False
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _taken(self, data: bytes) -> None:
        if self._stage == _MQTT:
            assert self.session is not None
            self.session.receive(data)
            if self.session.closed:
                self._note_end()
        elif self._stage == _YOUNG:
            self._young(data)
        elif self._stage == _GREETING:
            self._stage = _YOUNG
            if self._listener.tls or self._keep_pace():
                self._young(data)
        elif self._stage == _PROXY:
            self._proxy_bytes(data)
        elif self._stage == _SECURING:  # TLS is through, and data was quicker than the word of it
            self._early += data
        else:
            self._web_bytes(data)

    def _young(self, data: bytes) -> None:
        session, began = self.session, thread_time()
        assert session is not None
        session.receive(data)
        if session.closed:
            self._note_end()
        spent, now = thread_time() - began, self._server.read_clock()
        if spent > _NOTABLE:
            self._gate.worked(self.address, now, spent)
        if now - self.opened_at > SOON and self._stage == _YOUNG:
            self._stage = _MQTT

    def eof_received(self) -> bool:
        return False  # a half-closed peer is a gone peer

    def connection_lost(self, exc: Exception | None) -> None:
        began = self._server.read_clock()
        self._stage = _CLOSED
        self._transport = None
        self._out = None
        self._server.gone(self)
        if self.session is not None:
            self.session.lost("connection lost" if exc is not None else "closed by peer")
            if began - self.opened_at < SOON:
                self._gate.left(self.address, began)

    def pause_writing(self) -> None:
        self.writable = False
        if self.session is not None and not self.session.closed:
            self.session.writing_paused()

    def resume_writing(self) -> None:
        self.writable = True
        if self.session is not None and not self.session.closed:
            self._server.read_clock()
            self.session.writing_resumed()

    # -- the session's side ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        out = self._out
        if out is None:
            self._out = [data]
            self._out_size = len(data)
            self._server.dirty(self)
            return
        out.append(data)
        self._out_size += len(data)
        if self._out_size > _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Hand what was gathered to the transport. The server calls this once per turn."""
        out, self._out = self._out, None
        if out is None or self._transport is None:
            return
        size = self._out_size
        self.sent_bytes += size
        self.writes += len(out)
        if self._stage == _FRAMES:
            out.insert(0, websocket.binary_head(size))
        self._server.active.add(self)
        self._transport.write(b"".join(out) if len(out) > 1 else out[0])

    def close(self, *, spoken: bool) -> None:
        self._note_end()
        transport = self._transport
        if transport is None or self._stage == _CLOSED:
            return
        self.flush()
        if self._stage == _FRAMES:
            transport.write(websocket.close_frame(1000))
        if not spoken or not transport.can_write_eof():
            self._shut()
            return
        # say that it is over, and swallow what is on its way, until the peer has closed or its time is up
        self._stage = _CLOSED
        self.closing_since = self._server.moment.monotonic
        transport.write_eof()
        if not self._reading:
            self._reading = True
            if not self._resting:
                transport.resume_reading()

    def pause_reading(self) -> None:
        if self._transport is not None and self._reading and self._stage != _CLOSED:
            self._reading = False
            if not self._resting:
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._reading and self._stage != _CLOSED:
            self._reading = True
            if not self._resting:
                self._transport.resume_reading()

    def wake_after(self, seconds: float) -> None:
        if self.session is not None:
            self._server.wake_after(seconds, self.session)

    # -- the server's side -----------------------------------------------------------------------------------------

    def tick(self, late: float) -> None:
        """Once a second: deadlines, looked at so many seconds late."""
        now = self._server.moment.monotonic - late
        if self._stage == _CLOSED:
            if self._transport is not None and now - self.closing_since > self._server.settings.closing:
                self._transport.abort()  # it doesn't take our last words
        elif self.session is not None:
            self.session.tick(late)
            if self.session.closed:
                self._note_end()
        elif now - self.opened_at > self._server.settings.mqtt.connect_timeout:
            self._server.refusals.report("connect-timeout", "nothing useful in time", self.address)
            self._spoiled()
            self.abort()

    def count(self) -> Figures:
        """What has gone through since the connection was made."""
        session = self.session
        if session is None:
            return Figures(0, 0, 0, 0, 0, self.writes, self.received_bytes, self.sent_bytes)
        return Figures(
            session.received_messages,
            session.refused_messages,
            session.sent_messages,
            session.dropped_messages,
            session.received_messages + session.refused_messages + session.other_packets,
            self.writes + session.joined_packets,
            self.received_bytes,
            self.sent_bytes,
        )

    def abort(self) -> None:
        self._stage = _CLOSED
        if self._transport is not None:
            self._transport.abort()

    # -- stages ----------------------------------------------------------------------------------------------------

    def _secure(self) -> None:
        """TLS behind a PROXY header begins as soon as it is the connection's turn."""
        transport = self._transport
        assert transport is not None
        wait = self._gate.wait(self.address, self._server.moment.monotonic)
        if wait is None:
            self.abort()
            return
        self.pause_reading()
        self.opened_at += wait
        self._server.start_tls(self, transport, wait)

    def _begin(self) -> None:
        """TLS is through (if there is any): start WebSocket or MQTT."""
        if self._listener.websocket:
            self._stage = _UPGRADE
            self._web = websocket.Upgrade(self._listener.path)
        else:
            self._start_session()

    def _start_session(self) -> None:
        transport = self._transport
        assert transport is not None
        certificate: bytes | None = None
        subject: str | None = None
        secure: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if secure is not None and (certificate := secure.getpeercert(binary_form=True)) is not None:
            subject = _common_name(secure.getpeercert())
        proxied = self._proxied
        if proxied is not None and subject is None:
            subject = proxied.common_name
        server, listener = self._server, self._listener
        peer = Peer(
            address=self.address,
            listener=listener.name,
            transport="ws" if listener.websocket else "http" if listener.http else "tcp",
            tls=secure is not None or (proxied is not None and proxied.tls),
            certificate=certificate,
            certificate_subject=subject,
        )
        if not listener.websocket:
            self._stage = _GREETING
        if listener.http:
            self.session = Conversation(
                server.door_for(listener), self, server.settings.http, server.moment, peer, self._refused
            )
            return
        self.session = Session(server.engine, self, server.settings.mqtt, server.moment, peer)
        if listener.websocket:
            self._stage = _FRAMES
            if not listener.tls:
                self._keep_pace()

    @property
    def _gate(self) -> Gate:
        return self._server.gate_for(self._listener)

    def _too_many_before(self) -> bool:
        """Whether so many of its address wait already that its own turn would come too late."""
        asked = self._stage == _PROXY or self._listener.tls  # later, or before TLS
        return not asked and self._gate.closed(self.address, self._server.moment.monotonic)

    def _keep_pace(self) -> bool:
        """The peer says its first word: it may have to wait, when many come from its address; False: too many do."""
        session = self.session
        assert session is not None
        wait = self._gate.wait(self.address, self._server.moment.monotonic)
        if wait is None:
            self.abort()
            return False
        if wait:
            self.opened_at += wait
            session.hold_back(wait)
        return True

    def _spoiled(self) -> None:
        """What it said is no use to anybody."""
        self._gate.spoiled(self.address, self._server.moment.monotonic)

    def _refused(self, kind: str, detail: str, why: str) -> None:
        """A request was refused; the connection may go on."""
        if kind in _USELESS:
            self._spoiled()
        who = self.session.client_id if self.session is not None else ""
        self._server.refusals.report(kind, detail, self.address, client_id=who, username=who, why=why)

    def _wanted(self) -> int:
        assert self._exact is not None
        have = len(self._exact)
        return proxy.FIXED - have if have < proxy.FIXED else proxy.FIXED + proxy.remaining(bytes(self._exact)) - have

    def _proxy_bytes(self, data: bytes) -> None:
        exact = self._exact
        if self._transport is None:
            return
        assert exact is not None
        exact += data
        try:
            if len(exact) < proxy.FIXED or self._wanted() > 0:
                return
            header = bytes(exact)
            self._proxied = proxy.parse(header[: proxy.FIXED], header[proxy.FIXED :])
            self.address = self._proxied.address or self.address
        except proxy.BadProxyHeader as error:
            self._server.refusals.report("proxy-header", str(error), self.address)
            self.abort()
            return
        self._exact = None
        if self._listener.tls:
            self._stage = _SECURING
            self._secure()
        else:
            self._begin()

    def insecure(self, error: Exception | None) -> None:
        """There will be no TLS."""
        if self._stage != _CLOSED:
            self._server.refusals.report("tls", str(error or "the peer is gone"), self.address)
            self._spoiled()
        self.abort()
        self._transport = None  # whose protocol is TLS by now, which tells nobody of its end
        self._server.gone(self)

    def secured(self, transport: asyncio.Transport) -> None:
        """TLS behind a PROXY header is established."""
        if self._stage == _CLOSED:
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=self._server.settings.write_buffer)
        self._reading = True
        self._begin()
        if self._early:
            early, self._early = self._early, b""
            self._taken(early)

    def _web_bytes(self, data: bytes) -> None:
        if self._transport is None or self._stage == _CLOSED:
            return
        if self._stage == _UPGRADE:
            assert isinstance(self._web, websocket.Upgrade)
            try:
                answer = self._web.feed(data)
            except websocket.BadUpgrade as error:
                self._server.refusals.report("websocket-upgrade", str(error), self.address)
                self._spoiled()
                self._transport.write(error.answer)
                self._shut()
                return
            if answer is None:
                return
            self._transport.write(answer)
            data = self._web.rest
            self._web = websocket.Frames()
            self._start_session()
            if not data or self._stage == _CLOSED:
                return
        assert isinstance(self._web, websocket.Frames) and self.session is not None
        try:
            payload, answers = self._web.feed(data)
        except websocket.BadFrame as error:
            self._server.refusals.report("websocket-frame", str(error), self.address)
            self._spoiled()
            self.flush()
            self._transport.write(websocket.close_frame(error.code))
            self._shut()
            self.session.lost(f"websocket: {error}")
            return
        if payload:
            self.session.receive(payload)
            if self.session.closed:
                self._note_end()
        transport = self._transport
        if answers and transport is not None:
            self.flush()
            transport.write(answers)
        if self._web.closing and not self.session.closed:
            self._shut()
            self.session.lost("websocket closed by peer")

    def _shut(self) -> None:
        self._stage = _CLOSED
        self.closing_since = self._server.moment.monotonic
        if self._transport is not None:
            self._transport.close()

    def _note_end(self) -> None:
        session = self.session
        if session is not None and session.blamed:
            blamed, session.blamed = session.blamed, ""
            if blamed in _USELESS or blamed.startswith("0x"):
                self._spoiled()
            request = getattr(session, "request", None)  # none before a whole CONNECT
            self._server.refusals.report(
                blamed,
                session.ended,
                self.address,
                client_id=session.client_id,
                username=(request.username if request is not None else None) or "",
                why=session.why,
            )


def _common_name(certificate: Any) -> str | None:
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return None
