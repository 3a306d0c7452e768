"""One connection's MQTT session: the state machine over every packet type.

    waiting for CONNECT ─▶ authenticating ◀─▶ challenged ─▶ opening ─▶ connected ─▶ closed
                               `handshake`                              here

The handshake is an object of its own that is gone once the session is connected. `receiver` has frames and PUBLISH,
`acknowledging` acknowledgements to the peer, `pacing` the speed of reading, `sender` messages to the peer, `filters`
SUBSCRIBE and UNSUBSCRIBE. This module dispatches the rest, keeps the time limits (`tick`), and ends the connection
exactly once, in the protocol's terms (`close`, `lost`).
"""

from __future__ import annotations

from typing import Any

from gateway.mqtt import filters, packets
from gateway.mqtt import properties as p
from gateway.mqtt.errors import ConnectRejected, Malformed, PeerError, Reason, disconnect_code
from gateway.mqtt.handshake import Handshake, Reauthentication
from gateway.mqtt.pacing import CONGESTED, RATE, WRITING
from gateway.mqtt.properties import Properties
from gateway.mqtt.receiver import Receiver
from gateway.mqtt.sender import Sender
from gateway.mqtt.surroundings import Link, Moment, Settings
from gateway.ports import Ending, Engine, Message, Opened, Peer, SessionState, Subscription
from gateway.why import Why

DEAR = 8  # PINGREQ: what a SUBSCRIBE is worth that is answered at once, since nothing was granted


class Session(Receiver):
    """See the module. Implements `gateway.ports.Session` towards the engine."""

    __slots__ = (
        "_expiry",
        "_granted",
        "_handshake",
        "_keep_alive",
        "_length",
        "_levels",
        "_opened",
        "_reauthentication",
        "_sender",
        "_stalled",
        "_started",
        "blamed",
        "client_id",
        "ended",
        "peer",
        "state",
        "subscriptions",
        "why",
    )

    def __init__(self, engine: Engine, link: Link, settings: Settings, moment: Moment, peer: Peer) -> None:
        super().__init__(engine, link, settings, moment)
        self.peer = peer
        self.client_id = ""
        self.state: Any = None
        self.ended = ""  # why, once it has
        self.blamed = ""  # a slug, when the peer's misbehaviour ended it, or another connection with its client id
        self.why = ""  # what a refusal of CONNECT, or that other connection, said of itself (`gateway.why`)
        self.subscriptions: dict[str, Subscription] | None = None
        self._levels = self._length = 0  # of all their filters
        self._started = self._stalled = moment.monotonic
        self._keep_alive = 0.0
        self._expiry = 0
        self._opened = False
        self._granted: Properties | None = None  # what an MQTT 5 client's CONNECT allows us
        self._sender: Sender | None = None
        self._handshake: Handshake | None = Handshake(self)
        self._reauthentication: Reauthentication | None = None

    # -- for the engine --------------------------------------------------------------------------------------------

    @property
    def durable(self) -> bool:
        return self._expiry > 0

    @property
    def session_expiry(self) -> int:
        return self._expiry

    @property
    def room(self) -> int:
        return self._sender.room if self._sender is not None else self.identity.limits.queue

    @property
    def distance(self) -> int:
        return 0 if self._sender is None or self._sender.takes_at_once else 1

    @property
    def dropped_messages(self) -> int:
        return self._sender.dropped_messages if self._sender is not None else 0

    @property
    def sent_messages(self) -> int:
        return self._sender.sent_messages if self._sender is not None else 0

    @property
    def link(self) -> Link:
        """The way to the peer."""
        return self._link

    @property
    def unread(self) -> bytes:
        """What was read, and is not taken yet."""
        return bytes(self._rest) if self._rest is not None else b""

    def divert(self, link: Link) -> Link:
        """Write to another link from now on; gives the one so far."""
        before, self._link = self._link, link
        if self._sender is not None:
            self._sender.divert(link)
        return before

    @property
    def in_flight(self) -> int:
        """Messages of QoS 1 and 2, either way, whose exchange is not over."""
        return max(0, self._unacknowledged) + (self._sender.in_flight if self._sender is not None else 0)

    @property
    def waiting(self) -> int:
        """Messages in memory that wait for the device's window or socket."""
        return self._sender.waiting if self._sender is not None else 0

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        if not self.connected or self.closed:
            return False
        return (self._sender or self.sender()).deliver(message, qos, retain, identifiers)

    def close(self, code: int, reason: str = "", *, server_reference: str = "") -> None:
        if self.closed:
            return
        spoken = False
        if self.connected and code == Reason.SESSION_TAKEN_OVER:
            self.blamed, self.why = "taken-over", Why.TAKEN_OVER
        if self.connected and self.request.protocol == 5:
            spoken = True
            found: Properties = {}
            if reason and self._settings.reason_strings and self._problem_information:
                found[p.REASON_STRING] = reason
            if server_reference:
                found[p.SERVER_REFERENCE] = server_reference
            said = disconnect_code(code)
            frame = packets.encode_disconnect(said, found)
            self._link.write(frame if self._fits(frame) else packets.encode_disconnect(said))
        elif self._handshake is not None:
            spoken = self._handshake.refuse(code, reason, server_reference)
        self._end(reason or f"closed with 0x{code:02x}", will=True)
        self._link.close(spoken=spoken)

    # -- for the transport -----------------------------------------------------------------------------------------

    def lost(self, reason: str) -> None:
        """The peer closed, or the connection broke."""
        if not self.closed:
            self._end(reason, will=True)

    def tick(self, late: float = 0.0) -> None:
        """Once a second: CONNECT in time, keep alive (1.5 times, MQTT-3.1.2-22), the end of a credential. Looked at so
        many seconds `late`: what came meanwhile was not read yet, and nobody is closed for that."""
        moment = self._moment
        then = moment.monotonic - late
        if not self.connected:
            if then - self._started > self._settings.connect_timeout:
                self.blamed = "connect-timeout"
                self.close(Reason.KEEP_ALIVE_TIMEOUT, "no complete CONNECT in time")
            return
        if self._keep_alive and then - self.heard > self._keep_alive:
            if self._held & ~WRITING:
                self.heard = moment.monotonic  # it is us who don't read
            else:
                self.close(Reason.KEEP_ALIVE_TIMEOUT, "keep alive")
                return
        if self._held & WRITING and then - self._stalled > self._settings.stalled:
            self.close(Reason.QUOTA_EXCEEDED, "the peer does not read")
            return
        expires = self.identity.expires_at
        if expires is not None and moment.wall >= expires:
            self.close(Reason.NOT_AUTHORIZED, "credential expired")

    def hold_back(self, seconds: float) -> None:
        """Many come from there: take its CONNECT later, and give it as much longer."""
        self._started += seconds
        self.hold(RATE)
        self._link.wake_after(seconds)

    def writing_paused(self) -> None:
        """The peer doesn't take what we send: take nothing from it either."""
        self._stalled = self._moment.monotonic
        self.hold(WRITING)

    def writing_resumed(self) -> None:
        self.let_go(WRITING)
        if self._sender is not None and not self.closed:
            self._sender.pump()

    def decongest(self) -> None:
        self.let_go(CONGESTED)

    # -- packets ---------------------------------------------------------------------------------------------------

    def _may_authenticate(self, byte: int) -> bool:
        return self._handshake is not None and self._handshake.challenged and byte == 0xF0

    def _packet(self, first: int, body: bytes) -> None:
        if not self.connected:
            assert self._handshake is not None
            self._handshake.packet(first, body)
            return
        kind = first >> 4
        protocol = self.request.protocol
        if first & 0x0F != (2 if kind in (p.PUBREL, p.SUBSCRIBE, p.UNSUBSCRIBE) else 0) and (
            protocol != 3 or kind not in (p.PUBREL, p.SUBSCRIBE, p.UNSUBSCRIBE)
        ):
            raise Malformed("reserved header flags")
        if kind == p.PUBACK:
            packet_id, code = packets.decode_acknowledgement(kind, body, protocol)
            if self._sender is None or not self._sender.acknowledged(packet_id, code):
                self._idle += 1
        elif kind == p.PUBREL:
            packet_id, _ = packets.decode_acknowledgement(kind, body, protocol)
            if not self._release(packet_id):
                self._idle += 1
        elif kind == p.PUBREC:
            packet_id, code = packets.decode_acknowledgement(kind, body, protocol)
            if not self.sender().received(packet_id, code):
                self._idle += 1
        elif kind == p.PUBCOMP:
            packet_id, code = packets.decode_acknowledgement(kind, body, protocol)
            if self._sender is None or not self._sender.completed(packet_id, code):
                self._idle += 1
        elif kind == p.PINGREQ:
            if body:
                raise Malformed("PINGREQ with a body")
            self._idle += 1
            self._link.write(packets.PINGRESP)
        elif kind == p.SUBSCRIBE:
            self._idle += DEAR
            filters.subscribe(self, body)
        elif kind == p.UNSUBSCRIBE:
            self._idle += DEAR
            filters.unsubscribe(self, body)
        elif kind == p.DISCONNECT:
            self._disconnect(packets.decode_disconnect(body, protocol))
        elif kind == p.AUTH and protocol == 5:
            self._authenticate(packets.decode_auth(body))
        else:
            raise PeerError("a packet a client may not send (now)")

    def _disconnect(self, packet: packets.Disconnect) -> None:
        if packet.session_expiry is not None:
            if packet.session_expiry and not self._expiry:
                raise PeerError("a session that ends with its connection can't be given an expiry at its end")
            self._expiry = min(packet.session_expiry, self.identity.limits.session_expiry)
        # whoever goes with any other reason than 0x00 leaves its will behind (MQTT-3.1.2-8, MQTT-3.14.4-3)
        self._end(packet.reason or "disconnect", will=packet.code != Reason.SUCCESS)
        self._link.close(spoken=False)

    def _authenticate(self, packet: packets.Authenticate) -> None:
        if packet.method != self.request.authentication_method:
            raise PeerError("not the authentication method of CONNECT", Reason.PROTOCOL_ERROR)
        if packet.code == Reason.REAUTHENTICATE:
            if self._reauthentication is not None:
                raise PeerError("a re-authentication is going on")
            self._reauthentication = Reauthentication(self)
            self._reauthentication.start(packet)
        elif self._reauthentication is None:
            raise PeerError("no authentication is going on")
        else:
            self._reauthentication.answered(packet)

    # -- shared with the handshake ---------------------------------------------------------------------------------

    def sender(self) -> Sender:
        """The sending half, made on first use."""
        if self._sender is None:
            granted = self._granted or {}
            self._sender = Sender(
                self,
                self._engine,
                self._link,
                self._moment,
                window=min(self.identity.limits.window, granted.get(p.RECEIVE_MAXIMUM, 65_535), 65_534),
                largest=granted.get(p.MAXIMUM_PACKET_SIZE, 0),
                aliases=min(granted.get(p.TOPIC_ALIAS_MAXIMUM, 0), self._settings.outbound_aliases),
            )
        return self._sender

    @property
    def _problem_information(self) -> bool:
        return not self._granted or bool(self._granted.get(p.REQUEST_PROBLEM, 1))

    def _fits(self, frame: bytes) -> bool:
        return not self._granted or len(frame) <= self._granted.get(p.MAXIMUM_PACKET_SIZE, len(frame))

    def answer(self, frame: bytes) -> None:
        """Write what may be larger than the client takes, and then may not be sent (MQTT-3.1.2-24)."""
        if self._fits(frame):
            self._link.write(frame)
        else:
            self.close(Reason.PACKET_TOO_LARGE, "the answer is larger than the client takes")

    def _failed(self, error: PeerError) -> None:
        """The peer broke the protocol."""
        if isinstance(error, ConnectRejected) and self._handshake is not None:
            self._handshake.dialect = error.protocol
        elif not self.connected and self._handshake is not None:
            self._handshake.silent |= self._handshake.dialect != 5
        self.blamed = f"0x{error.code:02x}"
        self.close(error.code, error.reason)

    def _end(self, reason: str, *, will: bool) -> None:
        self.closed = True
        self.ended = reason
        self._rest = None
        self._handshake = None
        if not self._opened:
            return
        state = SessionState(inbound=self.inbound or {})
        if self.subscriptions:
            state.subscriptions = list(self.subscriptions.values())
        if self._sender is not None:
            self._sender.save(state)
        self._fifo = None
        self._targets = None
        self._engine.closed(self, Ending(will=will, reason=reason, session_expiry=self._expiry, state=state))

    def _restore(self, opened: Opened) -> None:
        """Take up the state of an earlier connection."""
        state = opened.state
        if state is None:
            return
        if state.subscriptions:
            filters.added(self, state.subscriptions)
        self._restore_inbound(state.inbound)
        if state.outbound or state.queue:
            self.sender().restore(state)
