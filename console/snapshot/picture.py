"""The picture: what the cluster looks like now, as the monitor last saw it. Values only; see tail.py for how it moves.

None always means "not known", and is shown as a dash. It is never replaced by 0.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEAD_LETTERS = "dlq."
INTERNAL = "__"
GATEWAY = "gateway/"
GATEWAY_SILENT_MS = 15_000  # they speak every two seconds
NEARLY_FULL = 0.1  # of a disk free: time to make room
KEEPS_UP_SECONDS = 10.0  # commits come every few seconds: an unread record younger than this is no sign of trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    name: str
    id: str = ""
    partitions: int = 0
    replication: int | None = None
    messages: int | None = None  # end offsets less start offsets: about right, exact without compaction or transactions
    size: int | None = None  # bytes on disk, of one replica of each partition
    in_rate: float | None = None  # records per second
    out_rate: float | None = None  # records per second over all groups
    lag: int | None = None  # over all groups
    groups: int | None = None
    last: int | None = None  # epoch ms of the newest record
    cleanup: str | None = None
    retention_ms: int | None = None
    offline: int = 0  # partitions without a leader
    under_replicated: int = 0

    @property
    def internal(self) -> bool:
        return self.name.startswith(INTERNAL)

    @property
    def dead_letters(self) -> bool:
        return self.name.startswith(DEAD_LETTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    name: str
    kind: str = "classic"
    state: str = ""
    members: int | None = None
    topics: tuple[str, ...] = ()
    lag: int | None = None
    age: float | None = None  # seconds since the oldest unread record was written
    rate: float | None = None  # records per second that its commits advance by
    eta: float | None = None  # seconds until the lag is gone at the present rates; None when it isn't shrinking

    @property
    def internal(self) -> bool:
        return self.name.startswith(INTERNAL)

    @property
    def health(self) -> str:
        """`ok`: nothing unread, or only for seconds. `warn`: the lag shrinks. `bad`: it doesn't. `none`: unknown."""
        if self.lag is None:
            return "none"
        if self.lag == 0 or (self.age is not None and self.age < KEEPS_UP_SECONDS):
            return "ok"
        return "bad" if self.eta is None else "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    in_rate: float | None = None
    out_rate: float | None = None
    in_bytes: float | None = None
    out_bytes: float | None = None
    lag: int | None = None
    dead_letters: int | None = None
    devices: int | None = None  # online
    connections: int | None = None
    gateways: int | None = None  # that are heard of, and not held back by the broker
    from_devices: float | None = None  # messages per second that gateways take, by MQTT and HTTP
    from_http: float | None = None  # of these, by HTTP
    to_devices: float | None = None
    refused: int | None = None  # reports of refused connections since the monitor's start: that they moved
    disk_free: int | None = None  # bytes, of the fullest disk that brokers keep logs on
    disk_total: int | None = None

    @property
    def disk_nearly_full(self) -> bool:
        return self.disk_free is not None and self.disk_free < NEARLY_FULL * (self.disk_total or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One capability of the cluster: whether it is there, and why not."""

    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    id: str = ""
    controller: int = -1
    nodes: tuple[Node, ...] = ()
    embedded: bool = False
    features: Mapping[str, Feature] = field(default_factory=dict)
    open_doors: tuple[str, ...] = ()  # `mqtt`, `kafka`: who doesn't sign in is let in there


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`at` is the epoch ms of the newest sample, 0 before the first. `trouble` says why the monitor can't see."""

    at: int = 0
    cluster: Cluster = field(default_factory=Cluster)
    totals: Totals = field(default_factory=Totals)
    topics: Mapping[str, Topic] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    traffic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by live key, as gateways tell
    trouble: str = ""

    def user_topics(self) -> list[Topic]:
        return [topic for topic in self.topics.values() if not topic.internal]

    def user_groups(self) -> list[Group]:
        return [group for group in self.groups.values() if not group.internal]

    def dead_letter_topics(self) -> list[Topic]:
        return [topic for topic in self.topics.values() if topic.dead_letters]

    def live(self, key: str) -> dict[str, Any] | None:
        """The numbers that move under a live key: `cluster`, `topic/<name>`, `group/<name>`, or what gateways tell of a
        `device/`, `route/`, `prefix/`, `bridge/` or `gateway/`; None if gone."""
        kind, _, name = key.partition("/")
        if kind == "cluster":
            return cluster_numbers(self)
        if kind == "topic" and (topic := self.topics.get(name)):
            return topic_numbers(topic)
        if kind == "group" and (group := self.groups.get(name)):
            return group_numbers(group)
        found = self.traffic.get(key)
        return None if found is None else dict(found)


def gateways_heard(traffic: Mapping[str, Mapping[str, Any]], at: float) -> list[Mapping[str, Any]]:
    """The rows of gateways that were heard of lately; `at` is epoch ms."""
    return [row for key, row in traffic.items() if key.startswith(GATEWAY) and is_heard(row, at)]


def is_heard(gateway: Mapping[str, Any], at: float) -> bool:
    return not gateway.get("stopped") and at - gateway.get("at", 0) < GATEWAY_SILENT_MS


def gateway_state(gateway: Mapping[str, Any], at: float) -> str:
    """ok, held (devices wait for the broker), silent (not heard of; not stopped in order), stopped. `at`: epoch ms."""
    if gateway.get("stopped"):
        return "stopped"
    if not is_heard(gateway, at):
        return "silent"
    return "held" if gateway.get("held_back") else "ok"


def gateway_numbers(picture: Picture) -> dict[str, int]:
    """How many gateways the broker holds back and how many are not heard of; and a number that is another one once any
    gateway's state is."""
    rows = picture.traffic.items()
    states = {key: gateway_state(row, picture.at) for key, row in rows if key.startswith(GATEWAY)}
    found = list(states.values())
    digest = zlib.crc32(repr(sorted(states.items())).encode())
    return {"gateways_held": found.count("held"), "gateways_silent": found.count("silent"), "gateway_states": digest}


def cluster_numbers(picture: Picture) -> dict[str, Any]:
    totals = picture.totals
    return {
        "in": totals.in_rate,
        "out": totals.out_rate,
        "in_bytes": totals.in_bytes,
        "out_bytes": totals.out_bytes,
        "lag": totals.lag,
        "dlq": totals.dead_letters,
        "devices": totals.devices,
        "connections": totals.connections,
        "gateways": totals.gateways,
        **gateway_numbers(picture),
        "from_devices": totals.from_devices,
        "from_mqtt": None if totals.from_devices is None else max(0.0, totals.from_devices - (totals.from_http or 0.0)),
        "from_http": totals.from_http,
        "to_devices": totals.to_devices,
        "refused": totals.refused,
        "disk_free": totals.disk_free,
        "topics": sum(not topic.internal for topic in picture.topics.values()) if picture.at else None,
        "groups": sum(not group.internal for group in picture.groups.values()) if picture.at else None,
    }


def topic_numbers(topic: Topic) -> dict[str, Any]:
    return {
        "in": topic.in_rate,
        "out": topic.out_rate,
        "messages": topic.messages,
        "size": topic.size,
        "lag": topic.lag,
        "groups": topic.groups,
        "last": topic.last,
    }


def group_numbers(group: Group) -> dict[str, Any]:
    return {
        "lag": group.lag,
        "age": group.age,
        "rate": group.rate,
        "eta": group.eta,
        "members": group.members,
        "state": group.state,
        "health": group.health,
    }
