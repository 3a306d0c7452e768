"""How the picture travels in `__sluice_metrics`: keyframes now and then, deltas between, notices of changes.

A keyframe is cut into parts so that no record grows with the cluster. Every record carries the monitor's `epoch`
(a new one per start) and a `sequence`; a reader that misses one waits for the next keyframe. JSON with `v`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from console.snapshot.picture import Cluster, Feature, Group, Node, Picture, Topic, Totals

VERSION = 1
ROWS_PER_PART = 500


class UnknownVersion(ValueError):
    """A frame of a version this release doesn't know."""


def keyframe(picture: Picture, epoch: str, sequence: int) -> Iterator[bytes]:
    topics = [_packed(row) for row in picture.topics.values()]
    groups = [_packed(row) for row in picture.groups.values()]
    traffic = list(picture.traffic.items())
    parts = max(1, -(-max(len(topics), len(groups), len(traffic)) // ROWS_PER_PART))
    for part in range(parts):
        rows = slice(part * ROWS_PER_PART, (part + 1) * ROWS_PER_PART)
        frame: dict[str, Any] = {
            "kind": "key",
            "part": part,
            "parts": parts,
            "topics": topics[rows],
            "groups": groups[rows],
            "traffic": dict(traffic[rows]),
        }
        if part == 0:
            frame |= {"cluster": asdict(picture.cluster), "totals": asdict(picture.totals), "trouble": picture.trouble}
        yield _encoded(frame, picture.at, epoch, sequence)


def delta(old: Picture, new: Picture, epoch: str, sequence: int) -> bytes:
    frame: dict[str, Any] = {"kind": "delta", "totals": asdict(new.totals), "trouble": new.trouble}
    frame["topics"] = [_packed(row) for name, row in new.topics.items() if old.topics.get(name) != row]
    frame["groups"] = [_packed(row) for name, row in new.groups.items() if old.groups.get(name) != row]
    frame["traffic"] = {key: row for key, row in new.traffic.items() if old.traffic.get(key) != row}
    frame["gone"] = {
        "traffic": [key for key in old.traffic if key not in new.traffic],
        "topics": [name for name in old.topics if name not in new.topics],
        "groups": [name for name in old.groups if name not in new.groups],
    }
    if old.cluster != new.cluster:
        frame["cluster"] = asdict(new.cluster)
    return _encoded(frame, new.at, epoch, sequence)


def notice(kind: str, name: str, verb: str, at: int) -> bytes:
    """A change that a console made, for every other process to follow."""
    return _encoded({"kind": "notice", "what": kind, "name": name, "verb": verb}, at, "", 0)


def _packed(row: Topic | Group) -> dict[str, Any]:
    """The fields that say something: what equals the default is left out."""
    blank = type(row)(name="")
    return {key: value for key, value in asdict(row).items() if value != getattr(blank, key)}


def _encoded(frame: dict[str, Any], at: int, epoch: str, sequence: int) -> bytes:
    return json.dumps({"v": VERSION, "at": at, "epoch": epoch, "seq": sequence} | frame, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    what: str
    name: str
    verb: str


class Assembler:
    """Frames in, pictures out. Not thread-safe: one reader owns it."""

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._epoch = ""
        self._next = -1
        self._parts: dict[int, dict[str, Any]] = {}

    def feed(self, data: bytes) -> Picture | Notice | None:
        """The new picture, or a notice; None while a keyframe is awaited or incomplete. Raises UnknownVersion."""
        frame = json.loads(data)
        if frame.get("v") != VERSION:
            raise UnknownVersion(f"a metrics frame of version {frame.get('v')!r}")
        if frame["kind"] == "notice":
            return Notice(what=frame["what"], name=frame["name"], verb=frame["verb"])
        if frame["kind"] == "key":
            return self._key(frame)
        if self._picture is None or frame["epoch"] != self._epoch or frame["seq"] != self._next:
            self._picture = None
            return None
        self._next += 1
        self._picture = _applied(self._picture, frame)
        return self._picture

    def _key(self, frame: dict[str, Any]) -> Picture | None:
        if frame["part"] == 0:
            self._parts = {}
        self._parts[frame["part"]] = frame
        if len(self._parts) < frame["parts"] or {part["seq"] for part in self._parts.values()} != {frame["seq"]}:
            return None
        first = self._parts[0]
        empty = Picture(at=first["at"])
        picture = _applied(empty, first)
        for part in range(1, frame["parts"]):
            picture = _applied(picture, {"at": first["at"]} | self._parts[part])
        self._epoch, self._next, self._parts = frame["epoch"], frame["seq"] + 1, {}
        self._picture = picture
        return picture


def _applied(picture: Picture, frame: dict[str, Any]) -> Picture:
    topics, groups = dict(picture.topics), dict(picture.groups)
    gone = frame.get("gone", {})
    for name in gone.get("topics", ()):
        topics.pop(name, None)
    for name in gone.get("groups", ()):
        groups.pop(name, None)
    topics |= {row["name"]: Topic(**_known(Topic, row)) for row in frame.get("topics", ())}
    groups |= {
        row["name"]: Group(**_known(Group, row, topics=tuple(row.get("topics", ())))) for row in frame.get("groups", ())
    }
    changes: dict[str, Any] = {"at": frame["at"], "topics": topics, "groups": groups}
    if frame.get("traffic") or gone.get("traffic"):
        traffic = dict(picture.traffic)
        for key in gone.get("traffic", ()):
            traffic.pop(key, None)
        changes["traffic"] = traffic | frame.get("traffic", {})
    if "totals" in frame:
        changes["totals"] = Totals(**_known(Totals, frame["totals"]))
    if "trouble" in frame:
        changes["trouble"] = frame["trouble"]
    if "cluster" in frame:
        changes["cluster"] = _cluster(frame["cluster"])
    return replace(picture, **changes)


def _known(kind: Any, row: dict[str, Any], **over: Any) -> dict[str, Any]:
    """Unknown fields are ignored (contracts): a newer monitor may say more."""
    return {key: value for key, value in (row | over).items() if key in kind.__dataclass_fields__}


def _cluster(row: dict[str, Any]) -> Cluster:
    nodes = tuple(Node(**_known(Node, node)) for node in row.get("nodes", ()))
    features = {name: Feature(**_known(Feature, feature)) for name, feature in row.get("features", {}).items()}
    doors = tuple(row.get("open_doors", ()))
    return Cluster(**_known(Cluster, row, nodes=nodes, features=features, open_doors=doors))
