"""Names and record codecs of every `__sluice_*` topic the gateway reads or writes, and of the MQTT record headers.

The console publishes what devices may do (`devices`, `routes`, `policies`, `bans`, `control`) and reads what they did
(`presence`, `commands`); the rest is the gateways' own state. Every value is a JSON object with `v`; unknown fields are
ignored, an unknown `v` is refused loudly (`UnknownVersion`). A null value deletes the key (compaction's tombstone).

Imports nothing but the standard library and the pure modules `gateway.routes` and `gateway.policy`, so that the console
can use it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import compress, repeat
from operator import attrgetter, call, is_not
from typing import Any, TypeVar

from broker.client.delaying import DELAY_CONFIG, DELAY_PARTITIONS, DELAY_TOPIC
from gateway.policy import Policy
from gateway.routes import Downlink, Uplink

VERSION = 1

DEFAULT_UPLINK = "mqtt.messages"
GATEWAY_DEAD_LETTERS = "dlq.gateway"
DEVICES = "__sluice_devices"
ROUTES = "__sluice_routes"
POLICIES = "__sluice_policies"
BANS = "__sluice_bans"
SESSIONS = "__sluice_sessions"
INBOX = "__sluice_inbox"
RETAINED = "__sluice_retained"
COMMANDS = "__sluice_commands"
PRESENCE = "__sluice_presence"
CONTROL = "__sluice_control"
TRAFFIC = "__sluice_traffic"
BRIDGES = "__sluice_bridges"
TAP = "__sluice_tap"

# Headers of a record that came from MQTT.
H_TOPIC = "mqtt.topic"
H_CLIENT = "mqtt.client.id"
H_USERNAME = "mqtt.username"
H_QOS = "mqtt.qos"
H_RETAIN = "mqtt.retain"
H_CONTENT_TYPE = "mqtt.content.type"
H_RESPONSE_TOPIC = "mqtt.response.topic"
H_CORRELATION = "mqtt.correlation.data"
H_EXPIRY = "mqtt.message.expiry"
H_USER = "mqtt.user."
H_FORMAT = "mqtt.payload.format"


class MalformedRecord(Exception):
    """A record of an internal topic is not what this product writes."""


class UnknownVersion(MalformedRecord):
    """A record was written by a newer release; upgrade this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """How a topic is made when it isn't there."""

    name: str
    partitions: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


# A message that fits into its topic must fit into these as well, where its payload is text in a record with more in it:
# what could not be stored there would be sent again for ever.
LARGEST = {"max.message.bytes": str(64 << 20)}
_COMPACTED = {"cleanup.policy": "compact"}
TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(name=DEVICES, config=_COMPACTED),
    TopicSpec(name=ROUTES, config=_COMPACTED),
    TopicSpec(name=POLICIES, config=_COMPACTED),
    TopicSpec(name=BANS, config=_COMPACTED),
    TopicSpec(name=BRIDGES, config=_COMPACTED),
    TopicSpec(name=SESSIONS, partitions=8, config=_COMPACTED | LARGEST),
    TopicSpec(name=INBOX, partitions=8, config=_COMPACTED | LARGEST),
    TopicSpec(name=RETAINED, config=_COMPACTED | LARGEST),
    TopicSpec(name=COMMANDS, config=_COMPACTED),
    TopicSpec(name=PRESENCE, config=_COMPACTED),
    TopicSpec(name=CONTROL, config={"retention.ms": "3600000"}),
    TopicSpec(
        name=TRAFFIC,
        config={"retention.ms": "600000", "segment.ms": "300000", "retention.bytes": "67108864"} | LARGEST,
    ),
    TopicSpec(name=TAP, config={"retention.ms": "600000", "segment.ms": "300000", "retention.bytes": "16777216"}),
    # an idempotent producer has five requests under way: with a partition each, a batch to all of these leaves at once
    TopicSpec(name=DEFAULT_UPLINK, partitions=4),
    TopicSpec(name=GATEWAY_DEAD_LETTERS, config=LARGEST),
    TopicSpec(name=DELAY_TOPIC, partitions=DELAY_PARTITIONS, config=DELAY_CONFIG),
)


# --- devices: device name → Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How a device proves who it is. Never the secret itself.

    kind `blake2b`: `hash` = keyed BLAKE2b of a generated 128-bit secret, `salt` is the key (both hex).
    kind `argon2id`: `hash` is the PHC string of a password that a person chose.
    kind `scram-sha256`, `scram-sha512`: for MQTT 5's enhanced authentication; `hash` is
    `<iterations>:<stored key>:<server key>`, `salt` the salt (hex).
    """

    kind: str
    hash: str
    salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """What overrides the gateway's defaults for one device; None = default. Rates per second, `connections` at once,
    `sessions` that outlive their connections."""

    connections: int | None = None
    sessions: int | None = None
    packet_size: int | None = None
    in_flight: int | None = None
    queue: int | None = None
    subscriptions: int | None = None
    messages_rate: float | None = None
    bytes_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One registered device. It signs in with its name as MQTT user name, or with a certificate of `subject`.

    `client_id`: "" = any, else the only MQTT client id it may use. `policies`: names; those marked `everyone` apply
    beside. A disabled device is refused and disconnected.
    """

    name: str
    credentials: tuple[Credential, ...] = ()
    enabled: bool = True
    client_id: str = ""
    subject: str = ""
    policies: tuple[str, ...] = ()
    limits: DeviceLimits = field(default_factory=DeviceLimits)


# --- bans: "<kind>:<value>" → Ban


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Nobody matching may connect. `kind`: client, user or address (an IP address); `until`: epoch seconds or None."""

    kind: str
    value: str
    until: float | None = None
    reason: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.value}"


# --- control: client id → Control; seconds matter, an hour's retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An operator's order to whichever gateway holds the client.

    verb `kick` (disconnect; with a `reference`, to go to that server), `clear` (drop the stored session and its inbox,
    disconnect), `tap` (copy the packets of the client to `__sluice_tap` under the key `tap`, at most `seconds` long),
    `tap.keep` (somebody still watches), `tap.stop`; or a question: `tell` (the gateway that holds the client's session
    says once, under the key `tap`, what it is; see `gateway.operations.telling`).
    """

    verb: str
    client_id: str
    actor: str = ""
    reason: str = ""
    at: float = 0.0
    seconds: float = 0.0
    tap: str = ""
    reference: str = ""


# --- taps: a tap's name → TapReport; minutes of retention


@dataclass(frozen=True, slots=True, kw_only=True)
class TapReport:
    """What a tap saw since its last report. `rows` are as `gateway.mqtt.showing` shows packets, with `at` and `way`
    (in, out); `dropped` packets came faster than may be shown. `connected`: it is here.
    `ended`: why, once it has: time, stopped, unwatched (not renewed), full (too many taps), gateway (it stops), told
    (its one row is the answer to a question)."""

    gateway: str
    at: float
    until: float
    connected: bool = False
    rows: tuple[dict[str, Any], ...] = ()
    dropped: int = 0
    ended: str = ""


# --- presence: client id → Presence; "$gateway/<name>" → GatewayStatus; "$gateway/share/<bucket>/<filter>" → Presence


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """The newest that is known of one client. Times are epoch seconds.

    Written without what is as its default: every CONNECT writes two.

    The topic has one partition, and its order decides who holds a client id. A record with a `token` and no `epoch` is
    a claim: its own offset is its epoch, and of two claims the one with the higher epoch holds. Any other record says
    more of the claim `epoch` it names, and is void once a newer claim was made. `adopts`: this claim counts only while
    that epoch is the newest; so an adopter of a dead gateway's client never takes it from a device that came back.
    """

    client_id: str
    online: bool
    since: float
    gateway: str
    address: str = ""
    protocol: int = 4
    principal: str = ""
    username: str = ""
    keep_alive: int = 0
    clean: bool = True
    listener: str = ""
    tls: bool = False
    reason: str = ""  # why it is offline
    subscriptions: int = 0
    token: str = ""  # the claimant's own mark, by which it knows its claim again
    epoch: int = 0
    adopts: int | None = None
    fresh: bool = False  # a claim with clean start: what was kept is to be forgotten
    queued: int = 0  # messages that wait
    queued_bytes: int = 0
    dropped: int = 0  # messages that the queue's bounds pushed out, since the gateway started
    expired: int = 0  # messages that expired while they waited, likewise
    missing: int = 0  # messages that the log didn't have any more when the device came back, likewise


GATEWAY_KEY = "$gateway/"
SHARE_KEY = "$gateway/share/"  # buckets of share groups, claimed as clients are


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """One gateway process, written every few seconds: counters since its start, and what is in flight now.

    `waiting`: messages whose outcome the broker still owes. `held_back`: so many that devices are not read from.
    `slowed`: [network, seconds that its next connection waits, whether its attempts are dropped], the slowest first."""

    gateway: str
    at: float
    started: float
    connections: int
    sessions: int
    subscriptions: int
    retained: int
    counters: dict[str, int] = field(default_factory=dict)
    listeners: tuple[str, ...] = ()
    anonymous: bool = False
    stopped: bool = False
    shares: tuple[str, ...] = ()  # share groups with members here, by their whole filter
    waiting: int = 0
    held_back: bool = False
    slowed: tuple[Any, ...] = ()


# --- traffic: gateway → TrafficReport; minutes of retention

ROW_FIELDS = ("messages", "bytes", "refused", "dropped", "expired", "dead_lettered")
DEVICE_FIELDS = (
    "since",
    "received",
    "refused",
    "sent",
    "dropped",
    "expired",
    "in_flight",
    "queued",
    "received_bytes",
    "sent_bytes",
    "subscriptions",
)
CLOSED_FIELDS = ("kind", "client_id", "username", "host", "detail", "count", "at", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficReport:
    """What moved at one gateway lately: totals since `started`, of the rows that changed.

    `routes` and `prefixes`: name → numbers in the order of ROW_FIELDS, None for a row that was given up (its numbers
    went to "(other)"). `devices`: client id → numbers in the order of DEVICE_FIELDS, since its connection began.
    `closed`: connections refused, or ended for the peer's fault, since the last report, in the order of CLOSED_FIELDS;
    with more than 50 different ones some are left out. Client id and user name are what the peer said of itself.
    `why` is a word of `gateway.why`, "" where `kind` says it all; rows of older gateways end before it.
    """

    gateway: str
    at: float
    started: float
    devices: dict[str, list[float]] = field(default_factory=dict)
    routes: dict[str, list[int] | None] = field(default_factory=dict)
    prefixes: dict[str, list[int] | None] = field(default_factory=dict)
    closed: tuple[list[Any], ...] = ()


BRIDGE_KEY = "$bridge/"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeStatus:
    """How one bridge is doing, in `__sluice_traffic` under `$bridge/<name>`, every few seconds.

    `state`: connected, connecting, failing (trying again; `error` says why), refused (the definition or its secret
    can't be used), disabled, gone. Counts since `owner` took it over. `lag`: records of the log not yet sent on.
    """

    name: str
    state: str
    since: float
    owner: str
    at: float
    error: str = ""
    error_at: float = 0.0
    received: int = 0
    sent: int = 0
    dropped: int = 0
    lag: int | None = None


# --- commands: "<topic>/<partition>/<offset>" → Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What became of one record of a topic with a downlink route. `state`: pending (in the device's inbox), delivered
    (the device acknowledged it; for QoS 0: sent), expired, failed (`reason` says why)."""

    route: str
    client_id: str
    mqtt_topic: str
    state: str
    at: float
    reason: str = ""


# --- retained: MQTT topic → RetainedMessage (null: cleared)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedMessage:
    """The retained message of one MQTT topic. The payload is the record's, latin-1 in JSON would double it: base64."""

    topic: str
    payload: str  # base64
    qos: int
    client_id: str = ""
    expires_at: float | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    origin: tuple[Any, ...] = ()  # of a downlink route's: topic, partition, offset


# --- sessions: client id → StoredSession


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """The lasting part of a persistent session. `subscriptions` are objects of ports.Subscription's fields, less those
    that are as their default.

    `claim` is the epoch (see `Presence`) under which it was written.
    `released`: the gateway has let go, all it knew of the session is in the log, and it had delivered up to
    `positions` ((topic, partition, next offset) each); the session is the next claimant's. `taker` has taken it, by
    the claim `taken`, if `base` is the digest of the record that stood until then (see `ownership`); what else is here
    is as the one before it left it.
    """

    client_id: str
    owner: str  # the principal it belongs to
    gateway: str
    expiry: int  # seconds after the disconnect, 0xFFFFFFFF = never
    protocol: int = 4
    subscriptions: tuple[dict[str, Any], ...] = ()
    connected: bool = False
    disconnected_at: float | None = None
    will: dict[str, Any] | None = None
    will_at: float | None = None
    own: dict[str, Any] | None = None  # the policy its principal brought with it (a token's)
    claim: int = 0
    released: bool = False
    released_at: float = 0.0
    positions: tuple[list[Any], ...] = ()
    taker: str = ""
    taken: int = 0
    base: str = ""
    queue: int = 0  # the inbox's bounds; 0 and "": the defaults
    queue_bytes: int = 0
    overflow: str = ""

    @property
    def keeper(self) -> str:
        """The gateway whose the session is, or was when it let go."""
        return self.taker or self.gateway

    @property
    def free(self) -> bool:
        """Whether it was let go of, and nobody has taken it since."""
        return self.released and not self.taker


def mark_key(client_id: str, packet_id: int) -> bytes:
    """The key in `__sluice_sessions` that says: this QoS 2 packet id was received, its message is stored."""
    return f"{client_id}\x00{packet_id}".encode()


def parse_mark_key(key: bytes) -> tuple[str, int] | None:
    """(client id, packet id), or None when this is another record's key."""
    client_id, separator, packet_id = key.decode("utf-8", "replace").rpartition("\x00")
    return (client_id, int(packet_id)) if separator and packet_id.isdigit() else None


MARK = b'{"v":1}'


# --- codecs

R = TypeVar("R")


class _Shape:
    """The fields of one dataclass: names, defaults, all values of a record at once, and how each is set."""

    __slots__ = ("defaults", "names", "put", "values")

    def __init__(self, kind: type) -> None:
        self.names = tuple(each.name for each in fields(kind))
        self.defaults = tuple(each.default for each in fields(kind))
        self.values = attrgetter(*self.names)
        self.put = {name: getattr(kind, name).__set__ for name in self.names}


_SHAPES: dict[type, _Shape] = {}


def _shape(kind: type) -> _Shape:
    found = _SHAPES.get(kind)
    if found is None:
        found = _SHAPES[kind] = _Shape(kind)
    return found


def revised(record: R, **changes: Any) -> R:
    """As `dataclasses.replace`, at a fourth of its cost; for slotted records whose making checks nothing."""
    shape = _shape(type(record))
    made = object.__new__(type(record))
    deque(map(call, shape.put.values(), repeat(made), shape.values(record)), 0)
    for name, value in changes.items():
        shape.put[name](made, value)
    return made


# `asdict` of a whole record would copy it deeply, which costs more than all the rest: every CONNECT writes two, so that
# what is done for each field is done without a line of Python
_TEXT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=asdict).encode


def encode(record: Any, *, sparse: bool = False) -> bytes:
    """The value of any record dataclass of this module, or of a Policy, Uplink or Downlink. `sparse`: without what is
    as its default, which then is part of the format."""
    shape = _shape(type(record))
    found: dict[str, Any] = {"v": VERSION}
    if isinstance(record, Uplink):
        found["kind"] = "uplink"
    elif isinstance(record, Downlink):
        found["kind"] = "downlink"
    values = shape.values(record)
    each = zip(shape.names, values, strict=True)
    found.update(compress(each, map(is_not, values, shape.defaults)) if sparse else each)
    return _TEXT(found).encode()


def _object(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise MalformedRecord(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise MalformedRecord("not a JSON object")
    if found.get("v") != VERSION:
        raise UnknownVersion(f"record version {found.get('v')!r}, this release knows {VERSION}")
    return found


def decode(kind: type[R], value: bytes) -> R:
    """A record dataclass from its value; raises MalformedRecord or UnknownVersion."""
    return _build(kind, _object(value))


def _build(kind: type[R], found: dict[str, Any]) -> R:
    known: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # R is always a dataclass here
        if each.name not in found:
            continue
        given = found[each.name]
        if str(each.type).startswith("tuple"):
            if not isinstance(given, list):
                raise MalformedRecord(f"{each.name} is not a list")
            given = tuple(given)
        known[each.name] = given
    try:
        if kind is Device:
            known["credentials"] = tuple(_build(Credential, each) for each in known.get("credentials", ()))
            known["limits"] = _build(DeviceLimits, known.get("limits") or {})
        return kind(**known)
    except (TypeError, AttributeError, ValueError) as error:
        raise MalformedRecord(f"not a {kind.__name__}: {error}") from error


def decode_route(value: bytes) -> Uplink | Downlink:
    """A record of `__sluice_routes`."""
    found = _object(value)
    kind = found.get("kind")
    if kind == "uplink":
        return _build(Uplink, found)
    if kind == "downlink":
        return _build(Downlink, found)
    raise MalformedRecord(f"a route of kind {kind!r}")


def policy_of(found: dict[str, Any] | None) -> Policy | None:
    """A policy inside another record."""
    return None if found is None else _build(Policy, found)


def decode_policy(value: bytes) -> Policy:
    """A record of `__sluice_policies`."""
    return decode(Policy, value)
