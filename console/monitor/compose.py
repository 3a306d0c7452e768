"""The picture, made from the newest facts. Keeps nothing but the slopes; never asks anybody."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from console.monitor.rates import IN_WINDOW, OUT_WINDOW, Slopes, eta
from console.monitor.sampling import Facts
from console.snapshot.picture import Cluster, Feature, Group, Node, Picture, Topic, Totals, gateways_heard


class Composer:
    def __init__(self, *, embedded: bool) -> None:
        self._embedded = embedded
        self._in = Slopes(IN_WINDOW)
        self._out = Slopes(OUT_WINDOW)  # by topic: what all groups committed
        self._read = Slopes(OUT_WINDOW)  # by group
        self._written = Slopes(OUT_WINDOW)  # by group: ends of what it reads

    def compose(
        self,
        facts: Facts,
        now: float,
        *,
        ages: dict[str, float | None],
        devices: int | None,
        letters: int | None,
        broker: dict[str, float | None],
        open_doors: tuple[str, ...],
        trouble: str,
        traffic: Mapping[str, Mapping[str, Any]] | None = None,
        refused: int = 0,
    ) -> Picture:
        groups = {name: self._group(name, facts, now, ages.get(name)) for name in facts.listings}
        topics = {name: self._topic(one, facts, now, groups) for name, one in facts.topics.items()}
        self._in.keep(set(facts.topics))
        self._out.keep(set(facts.topics))
        self._read.keep(set(facts.listings))
        self._written.keep(set(facts.listings))
        return Picture(
            at=int(now * 1000),
            cluster=self._cluster(facts, open_doors),
            totals=replace(
                _totals(topics, groups, devices, letters, broker, facts.disk),
                refused=refused,
                **_gateways(gateways_heard(traffic or {}, now * 1000), known=devices is not None),
            ),
            topics=topics,
            groups=groups,
            traffic=traffic or {},
            trouble=trouble,
        )

    def _topic(self, topic: Any, facts: Facts, now: float, groups: dict[str, Group]) -> Topic:
        name = topic.name
        places = [(name, partition.index) for partition in topic.partitions]
        ends = [facts.ends.get(place) for place in places]
        starts = [facts.starts.get(place) for place in places]
        if None not in ends and places:
            self._in.add(name, (topic.id, len(places)), facts.ends_at, sum(end for end in ends if end is not None))
        readers = [group for group in groups.values() if name in group.topics]
        committed = [
            {place: offset for place, offset in facts.committed.get(group.name, {}).items() if place[0] == name}
            for group in readers
        ]
        if readers and any(committed):
            shape = (
                topic.id,
                tuple(sorted((group.name, len(one)) for group, one in zip(readers, committed, strict=True))),
            )
            self._out.add(name, shape, facts.committed_at, sum(sum(one.values()) for one in committed))
        lags = [_lag(one, facts) for one in committed if one]
        configs = facts.configs.get(name, {})
        newest = [facts.newest[place] for place in places if place in facts.newest]
        retention = configs.get("retention.ms")
        return Topic(
            name=name,
            id=topic.id,
            partitions=len(places),
            replication=max((len(partition.replicas) for partition in topic.partitions), default=None),
            messages=_messages(starts, ends),
            size=None if facts.sizes is None else facts.sizes.get(name, 0),
            in_rate=_rounded(self._in.rate(name, now)),
            out_rate=_rounded(self._out.rate(name, now) if readers else 0.0 if facts.committed_at else None),
            lag=None if not lags or None in lags else sum(lag for lag in lags if lag is not None),
            groups=len(readers) if facts.committed_at else None,
            last=max(newest, default=None),
            cleanup=configs.get("cleanup.policy"),
            retention_ms=int(retention) if retention and retention.lstrip("-").isdigit() else None,
            offline=sum(partition.leader < 0 for partition in topic.partitions),
            under_replicated=sum(len(partition.in_sync) < len(partition.replicas) for partition in topic.partitions),
        )

    def _group(self, name: str, facts: Facts, now: float, age: float | None) -> Group:
        listing, described = facts.listings[name], facts.groups.get(name)
        committed = facts.committed.get(name, {})
        share = name in facts.share_lag
        lag = facts.share_lag.get(name) if share else _lag(committed, facts)
        assigned = {place[0] for member in (described.members if described else ()) for place in member.assignment}
        rate = written = None
        if committed:
            shape = tuple(sorted(committed))
            self._read.add(name, shape, facts.committed_at, sum(committed.values()))
            rate = self._read.rate(name, now)
            if all(place in facts.ends for place in committed):
                self._written.add(name, shape, facts.ends_at, sum(facts.ends[place] for place in committed))
                written = self._written.rate(name, now)
        seconds = eta(lag, rate, written)
        return Group(
            name=name,
            kind=str(getattr(listing.kind, "value", listing.kind)),
            state=described.state if described else listing.state,
            members=len(described.members) if described else None,
            topics=tuple(sorted({place[0] for place in committed} | assigned)),
            lag=lag,
            age=0.0 if lag == 0 else None if age is None else round(age, 1),
            rate=_rounded(rate),
            eta=None if seconds is None else round(seconds, 0),
        )

    def _cluster(self, facts: Facts, open_doors: tuple[str, ...]) -> Cluster:
        cluster, able = facts.cluster, facts.capabilities
        features: dict[str, Feature] = {}
        for field in fields(able) if able is not None else ():
            value = getattr(able, field.name)
            if hasattr(value, "available"):
                features[field.name] = Feature(available=value.available, reason=value.reason)
        return Cluster(
            id=cluster.id if cluster else "",
            controller=cluster.controller if cluster else -1,
            nodes=tuple(Node(id=n.id, host=n.host, port=n.port) for n in (cluster.brokers if cluster else ())),
            embedded=self._embedded,
            features=features,
            open_doors=open_doors,
        )


def _messages(starts: list[int | None], ends: list[int | None]) -> int | None:
    """Records between the first and the end offsets; None when one of them isn't known."""
    pairs = [(start, end) for start, end in zip(starts, ends, strict=True) if start is not None and end is not None]
    return sum(max(0, end - start) for start, end in pairs) if pairs and len(pairs) == len(ends) else None


def _lag(committed: dict[Any, int], facts: Facts) -> int | None:
    """Records between what was committed and the end; None when nothing was committed or an end isn't known.

    A partition of a topic that is gone counts for nothing.
    """
    total, known = 0, False
    for place, offset in committed.items():
        if place[0] not in facts.topics:
            continue
        end = facts.ends.get(place)
        if end is None:
            return None
        total += max(0, end - offset)
        known = True
    return total if known else None


def _totals(
    topics: dict[str, Topic],
    groups: dict[str, Group],
    devices: int | None,
    letters: int | None,
    broker: dict[str, float | None],
    disk: tuple[int, int] | None,
) -> Totals:
    users = [topic for topic in topics.values() if not topic.internal]
    lags = [group.lag for group in groups.values() if not group.internal and group.lag is not None]
    return Totals(
        in_rate=_sum([topic.in_rate for topic in users]),
        out_rate=_sum([topic.out_rate for topic in users]),
        in_bytes=broker.get("in_bytes"),
        out_bytes=broker.get("out_bytes"),
        connections=None if broker.get("connections") is None else int(broker["connections"] or 0),
        lag=sum(lags),
        dead_letters=letters,
        devices=devices,
        disk_free=disk[0] if disk else None,
        disk_total=disk[1] if disk else None,
    )


def _gateways(heard: Sequence[Mapping[str, Any]], *, known: bool) -> dict[str, Any]:
    return {
        "gateways": sum(not row.get("held_back") for row in heard) if known else None,
        "from_devices": _rates(heard, "rate"),
        "from_http": _rates(heard, "http_rate"),
        "to_devices": _rates(heard, "out_rate"),
    }


def _rates(rows: Sequence[Mapping[str, Any]], field: str) -> float | None:
    """Summed over those that are heard of; None while one of them isn't known yet, or there is none."""
    values = [row.get(field) for row in rows]
    known = [value for value in values if value is not None]
    return round(sum(known), 2) if known and len(known) == len(values) else None


def _sum(values: list[float | None]) -> float | None:
    """The sum of what is known; None when topics are there and nothing is."""
    known = [value for value in values if value is not None]
    return round(sum(known), 2) if known or not values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def series(picture: Picture) -> dict[str, float]:
    """What the history keeps of a picture: known values only."""
    found: dict[str, float | None] = {
        f"cluster/{name}": value
        for name, value in (picture.live("cluster") or {}).items()
        if name
        in ("in", "out", "in_bytes", "out_bytes", "lag", "dlq", "devices", "connections", "from_devices", "to_devices")
    }
    for topic in picture.topics.values():
        if not topic.internal:
            key = f"topic/{topic.name}"
            found |= {f"{key}/in": topic.in_rate, f"{key}/out": topic.out_rate, f"{key}/lag": topic.lag}
            if topic.dead_letters:
                found[f"{key}/messages"] = topic.messages
    for group in picture.groups.values():
        if not group.internal:
            key = f"group/{group.name}"
            found |= {f"{key}/lag": group.lag, f"{key}/rate": group.rate, f"{key}/age": group.age}
    return {name: float(value) for name, value in found.items() if value is not None}
