"""The port between the MQTT protocol (sessions, sockets) and the durable engine behind it.

Theory of operation
------------------- Everything here happens on one event loop thread per gateway process. Calls into the
engine never block and never await: what takes time answers through a `Receipt`, a one-shot result that many
waiters may share. Sharing is the point: the engine may hand the *same* receipt to every session that
published during one tick, so a commit costs one `settle` and one write per connection, and there is no object
or closure per message.

Publishing. A session scans all complete PUBLISH frames of a read, resolves each topic through its own cache
of `Target`s (`Engine.target`, valid while `Engine.epoch` stays the same), and hands the whole run to
`Engine.publish(session, items)`. The session keeps a FIFO of (receipt, acknowledgement bytes);
acknowledgements leave from its head only, hence in PUBLISH order (MQTT-4.6.0-2, -3), however the receipts
settle. QoS 2 items carry their packet id, to be stored together with the record; PUBREL goes to
`Engine.release`, and PUBCOMP waits for its receipt.

Delivering. The engine pushes with `Session.deliver`; False means that the session has no room: the engine
keeps the message (inbox) or drops it by policy, and hears `Engine.wants` once there is room again. In-flight
changes are reported by `sending` (before the first transmission), `received` (PUBREC) and `finished` (PUBACK,
PUBCOMP).

Sessions. A `Session` object lives as long as its connection. Its lasting part is `SessionState`, which the
engine gives at `open` and gets back at `closed`; when the gateway dies in between, the engine rebuilds it
from the three in-flight calls, `publish` / `release` and `subscribe` / `unsubscribe`.

Times are seconds since the epoch (float).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

OFFLINE_FOR_EVER = 0xFFFFFFFF  # session expiry interval "does not expire" (MQTT 5, 3.1.2.11.2)


class NotAcknowledged(Exception):
    """What was asked for may or may not have become durable; the connection closes without an
    acknowledgement.
    """


class Refused(Exception):
    """The engine refuses: an MQTT 5 reason code (mapped to 3.1.1 where one exists), `reason` for people, and for
    programs `why` (a `gateway.why.Why`; "" where the code says it all). `after`: it may go better so many seconds
    later."""

    def __init__(
        self, code: int, reason: str = "", *, server_reference: str = "", after: float = 0.0, why: str = ""
    ) -> None:
        super().__init__(reason or f"refused with reason code 0x{code:02x}")
        self.code = code
        self.reason = reason
        self.server_reference = server_reference
        self.after = after
        self.why = why


class Waiter(Protocol):
    """Somebody who wants to hear that a receipt settled."""

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        """Called once, from `Receipt.settle` or `Receipt.fail`, on the loop thread."""


class Receipt(Generic[T]):
    """A result that comes later, once, for any number of waiters.

    `failure` is None for success. `doubtful` names the waiters (by identity) for whom the outcome alone is
    unknown while it is fine for all the others: one shared receipt, one bad record.
    """

    __slots__ = ("doubtful", "failure", "settled", "value", "waiters")

    def __init__(self) -> None:
        self.settled = False
        self.value: T | None = None
        self.failure: Exception | None = None
        self.doubtful: set[int] | None = None
        self.waiters: list[Waiter] = []

    def doubt(self, waiter: object) -> None:
        """Say, before settling, that the outcome is unknown for this waiter."""
        if self.doubtful is None:
            self.doubtful = set()
        self.doubtful.add(id(waiter))

    def failed_for(self, waiter: object) -> bool:
        return self.failure is not None or (self.doubtful is not None and id(waiter) in self.doubtful)

    def settle(self, value: T | None = None) -> None:
        """Success: what was asked for is durable."""
        self.value = value
        self._wake()

    def fail(self, failure: Exception) -> None:
        """`Refused`, or `NotAcknowledged` when the outcome is unknown."""
        self.failure = failure
        self._wake()

    def _wake(self) -> None:
        if self.settled:
            raise RuntimeError("a receipt settles once")
        self.settled = True
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.receipt_settled(self)


def settled(value: T | None = None) -> Receipt[T]:
    """A receipt that needs no waiting."""
    receipt: Receipt[T] = Receipt()
    receipt.settled = True
    receipt.value = value
    return receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishProperties:
    """The MQTT 5 properties of a PUBLISH or will that travel with the message."""

    payload_format: int | None = None
    message_expiry: int | None = None  # seconds
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay: int = 0  # seconds
    properties: PublishProperties | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a connection comes from. After a PROXY header, `address` is the device's, not the proxy's."""

    address: str  # "host:port"
    listener: str  # "mqtt://127.0.0.1:1883", as configured
    transport: str  # "tcp" | "ws" | "http"
    tls: bool = False
    certificate: bytes | None = None  # the verified client certificate, DER
    certificate_subject: str | None = None  # its common name, or the PROXY header's


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """A well-formed CONNECT. `client_id` is never empty: an absent one has been assigned (then `assigned`)."""

    client_id: str
    assigned: bool
    protocol: int  # 3 (3.1), 4 (3.1.1), 5
    clean_start: bool
    keep_alive: int  # seconds, 0 = none
    session_expiry: int  # seconds; 0 = ends with the connection; OFFLINE_FOR_EVER
    username: str | None
    password: bytes | None
    will: Will | None
    peer: Peer
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one device may use. The session enforces all of these; 0 = unlimited where that makes sense."""

    connections: int = 0  # of one principal at a time, over all gateways; 0 = unlimited
    sessions: int = 0  # of one principal that outlive their connections, over all gateways; 0 = unlimited
    packet_size: int = 1 << 20  # largest packet accepted, bytes
    in_flight: int = 1024  # unacknowledged inbound QoS 1/2; Receive Maximum for MQTT 5, reading pauses otherwise
    window: int = 1024  # outbound QoS 1/2 in flight; the client's Receive Maximum lowers it
    queue: int = 1000  # messages waiting in memory for this connection's window or socket
    queue_bytes: int = 8 << 20
    overflow: str = "oldest"  # what goes when an inbox is full: "oldest" or "newest"
    subscriptions: int = 1000
    topic_aliases: int = 10  # inbound; Topic Alias Maximum
    messages_rate: float = 0.0  # inbound messages/s; reading pauses
    bytes_rate: float = 0.0  # inbound bytes/s; reading pauses
    keep_alive: int = 0  # largest keep alive (s) granted; MQTT 5 tells the client (Server Keep Alive)
    session_expiry: int = OFFLINE_FOR_EVER  # largest granted
    qos: int = 2
    retain: bool = True
    conceal_denied: bool = False  # SUBACK says 0x80 (unspecified) where it would say 0x87 (not authorised)
    close_when_denied: bool = False  # MQTT 3: close on an unauthorised PUBLISH, instead of acknowledging and dropping


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a connection is, after authentication. `detail` is the engine's own (policy, roles, token expiry)."""

    name: str  # the principal policies are about
    username: str | None = None
    limits: Limits = field(default_factory=Limits)
    expires_at: float | None = None  # the connection is closed then (JWT exp)
    authentication_data: bytes | None = None  # for the CONNACK or AUTH that completes enhanced authentication
    detail: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """Enhanced authentication goes on: send AUTH 0x18 with `data`, give the answer to
    `Engine.answer(exchange, ...)`.
    """

    data: bytes
    exchange: Any


@dataclass(slots=True, kw_only=True, unsafe_hash=True)  # a frozen one takes three times as long to make
class Subscription:
    """One filter of one session. `filter` is as sent, including `$share/<group>/`. Nobody changes one."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int | None = None
    check: bool = False  # set by the engine: each delivery must be checked against the subscriber's rights


class Message:
    """A message on its way to subscribers; one object however many there are.

    `frames` caches encoded forms (the QoS 0 frame and property block are the same for every subscriber).
    `origin` is the engine's own reference (topic, partition, offset); `sender` is the publishing client id
    (No Local).
    """

    __slots__ = (
        "expires_at",
        "frames",
        "origin",
        "payload",
        "properties",
        "qos",
        "retain",
        "sender",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool = False,
        *,
        properties: PublishProperties | None = None,
        expires_at: float | None = None,
        sender: str | None = None,
        origin: Any = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at = expires_at
        self.sender = sender
        self.origin = origin
        self.frames: dict[int, Any] | None = None

    def copy(self) -> Message:
        """The same message as another object, for who tells by it which of several copies is meant."""
        return Message(
            self.topic,
            self.payload,
            self.qos,
            self.retain,
            properties=self.properties,
            expires_at=self.expires_at,
            sender=self.sender,
            origin=self.origin,
        )


@dataclass(slots=True)
class InFlight:
    """An outbound QoS 1/2 message with a packet id, not yet finished. `released`: PUBREC came, PUBREL is due."""

    packet_id: int
    message: Message | None  # None only when released
    qos: int
    retain: bool = False
    identifiers: tuple[int, ...] = ()
    released: bool = False


@dataclass(slots=True, kw_only=True)
class SessionState:
    """The lasting part of a session.

    `outbound` is in sending order; `inbound` are the packet ids of QoS 2 messages received and not released,
    with the receipt of the publish; `queue` are messages taken by `deliver` but not sent yet (qos, retain,
    identifiers beside).
    """

    subscriptions: list[Subscription] = field(default_factory=list)
    outbound: list[InFlight] = field(default_factory=list)
    inbound: dict[int, Receipt[Any]] = field(default_factory=dict)
    queue: list[tuple[Message, int, bool, tuple[int, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The answer to `Engine.open`. `state` is None for a new session."""

    present: bool
    state: SessionState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a connection ended. `will` says whether the will is to be fired (after its delay or the session's
    end).
    """

    will: bool
    reason: str  # for logs and presence: "disconnect", "keep alive", "taken over", "protocol error: ..."
    session_expiry: int  # as of now; DISCONNECT may have changed it
    state: SessionState


class Target(Protocol):
    """Where one session's messages with one topic go: authorisation and route, resolved once and cached.

    `refused` is 0 or a reason code (0x87 not authorised, 0x90 topic name invalid, ...). The rest is the
    engine's.
    """

    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of a message that was taken, for publishers whose protocol can tell. `outcome`: `stored`,
    `dead-letter` (stored there, with reason and detail), `sampled-out` (its route keeps a share only), `accepted` (QoS
    0: nobody waits for more) or `dropped` (QoS 0, the broker was away). `duplicate`: its id was stored already. Within
    `window` seconds its id is looked for; 0: it isn't."""

    outcome: str = "stored"
    duplicate: bool = False
    reason: str = ""
    detail: str = ""
    window: float = 0.0


# (target, payload, flags, packet id, properties). `flags` are the low four bits of the PUBLISH header:
# 0x08 DUP, 0x06 QoS << 1, 0x01 RETAIN. The packet id is 0 for QoS 0.
PublishItem = tuple[Any, bytes, int, int, PublishProperties | None]


class Session(Protocol):
    """What the engine may do with a connected session."""

    client_id: str
    identity: Identity
    request: ConnectRequest
    state: Any  # a slot for the engine's own bookkeeping; the protocol never touches it

    @property
    def durable(self) -> bool:
        """The session outlives the connection (session expiry above 0)."""

    @property
    def room(self) -> int:
        """How many more messages `deliver` would take now."""

    @property
    def distance(self) -> int:
        """How far a message given now is from the device: 0, it leaves at once; 1, it waits for room; 2, the device is
        away."""
        return 0

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        """Send or queue a message. `qos` and `retain` are as they go out.

        False: no room, or not connected (yet, or any more); nothing was taken.

        QoS 0 is dropped (and counted by the session) rather than queued behind a full socket; that returns
        True.
        """

    def close(self, code: int, reason: str = "", *, server_reference: str = "") -> None:
        """Send DISCONNECT where the protocol has it, close; `Engine.closed` is called before this returns."""


class Engine(Protocol):
    """What the protocol asks of the durable side. See the module's docstring for how the calls belong
    together.
    """

    epoch: int  # grows whenever a Target or an authorisation handed out earlier may be wrong
    congested: (
        bool  # commits fall behind: sessions stop reading until `Server.resume()` (given to the engine) is called
    )

    # -- connecting ------------------------------------------------------------------------------------------
    def authenticate(self, request: ConnectRequest) -> Receipt[Identity | Challenge]:
        """Who is it? Fails with `Refused`. Must not touch any existing session of that client id."""

    def answer(self, exchange: Any, data: bytes) -> Receipt[Identity | Challenge]:
        """The next step of an enhanced authentication, for CONNECT and for re-authentication alike."""

    def reauthenticate(self, session: Session, method: str, data: bytes) -> Receipt[Identity | Challenge]:
        """The client began a re-authentication (AUTH 0x19)."""

    def open(self, session: Session) -> Receipt[Opened]:
        """After authentication: claim the client id, close who held it (0x8E), give the state back.

        With `clean_start` the old state is discarded. `session.request.will` is set from here on (its topic
        is checked against the publish policy: fails with `Refused`). Deliveries may start once the receipt
        settled.
        """

    def opened(self, session: Session) -> None:
        """CONNACK was written and the in-flight messages sent again: deliveries are welcome."""

    def closed(self, session: Session, ending: Ending) -> None:
        """The connection is gone. Called exactly once for every session for which `open` was called and
        succeeded.
        """

    # -- publishing ------------------------------------------------------------------------------------------
    def target(self, session: Session, topic: str) -> Target:
        """Authorise and route. Never fails: a refusal is a target with `refused` set."""

    def refuse(self, session: Session, target: Target) -> None:
        """One message of a refused target came: it is counted, and not kept."""

    def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        """Take a run of messages in order. The receipt settles when all of them are durable.

        Engines may return one receipt to many sessions; `Receipt.doubt(session)` singles out the unlucky. A
        session waits on a receipt once, however often it gets it.
        """

    def release(self, session: Session, packet_id: int) -> Receipt[Any]:
        """Forget an inbound QoS 2 packet id, durably (PUBREL came)."""

    # -- subscribing -----------------------------------------------------------------------------------------
    def work(self, session: Session, steps: Iterator[None]) -> None:
        """Do what a session's peer asked for: the first step now, what is left in turn with everybody else's."""

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        """Reason codes per filter: granted QoS 0..2, or 0x80+ (0x87 not authorised, 0x97 quota exceeded,
        ...).

        The receipt settles when nothing published from then on would be missed and the subscription is
        durable. Retained messages are delivered by the engine when it hears `subscribed`.
        """

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """SUBACK was written; `subscriptions` were granted. Retained messages are welcome now."""

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        """Reason codes per filter: 0 or 0x11 (no subscription existed)."""

    # -- delivering ------------------------------------------------------------------------------------------
    def wants(self, session: Session) -> None:
        """A session that answered False to `deliver` has room again."""

    def sending(self, session: Session, packet_id: int, message: Message, qos: int) -> Receipt[Any] | None:
        """About to send a QoS 1/2 message for the first time. None: go ahead; else it is sent when this
        settles.

        A durable session's QoS 2 packet id should be durable first: a lost one makes a duplicate.
        """

    def received(self, session: Session, packet_id: int, message: Message | None) -> Receipt[Any] | None:
        """PUBREC came for an outbound QoS 2 message; only its packet id matters from now on.

        PUBREL leaves when the receipt settles (None: at once): a gateway that forgot the PUBREC after the PUBREL
        would send the PUBLISH again, as a duplicate.
        """

    def dropped(self, session: Session, message: Message, why: str) -> None:
        """A message `deliver` had taken will not be sent: "expired", "too large" (for this client)."""

    def finished(self, session: Session, packet_id: int, message: Message | None, code: int) -> None:
        """PUBACK or PUBCOMP came (or a PUBREC with an error `code` ≥ 0x80): the message is done with."""
