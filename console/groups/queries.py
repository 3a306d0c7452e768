"""What group pages show: rows from the picture; members and offsets from the broker, under a deadline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console import deadline, kafka

FAILURE = "sluice.deadletterqueue.failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the group is in one partition. None: not known, or nothing committed yet."""

    topic: str
    partition: int
    committed: int | None
    start: int | None
    end: int | None
    member: Any  # who reads it now, or None

    @property
    def lag(self) -> int | None:
        return None if self.committed is None or self.end is None else max(0, self.end - self.committed)

    @property
    def next(self) -> int | None:
        """Where it goes on: at what it committed, or at the first record there still is."""
        return None if self.committed is None else max(self.committed, self.start or 0)

    @property
    def lost(self) -> bool:
        """Whether retention has removed records that the group had not read."""
        return self.committed is not None and self.start is not None and self.committed < self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    group: Any  # broker.client's Group, or None
    positions: Sequence[Position]
    missing: Mapping[str, str]
    dead_letter_failure: str = ""
    """Why a share group's newest dead letter could not be written."""

    @property
    def topics(self) -> list[tuple[str, list[Position]]]:
        """Positions by topic, in order."""
        by_topic: dict[str, list[Position]] = {}
        for position in self.positions:
            by_topic.setdefault(position.topic, []).append(position)
        return sorted(by_topic.items())

    @property
    def lag(self) -> int | None:
        known = [position.lag for position in self.positions if position.lag is not None]
        return sum(known) if known else None


def detail(name: str) -> Detail:
    cluster = kafka.admin()
    first = deadline.gather(
        {
            "group": lambda: cluster.describe_groups([name]),
            "committed": lambda: cluster.group_offsets([name]),
            "dead letters": lambda: _dead_letter_failure(name),
        },
        0.9,
    )
    group = (first["group"] or {}).get(name)
    committed = (first["committed"] or {}).get(name, {})
    readers = {place: member for member in (group.members if group else ()) for place in member.assignment}
    places = sorted({*committed, *readers})
    second = deadline.gather(
        {
            "ends": lambda: cluster.offsets(places, kafka.types.At.LATEST) if places else {},
            "starts": lambda: cluster.offsets(places, kafka.types.At.EARLIEST) if places else {},
        },
        0.6,
    )
    ends, starts = second["ends"] or {}, second["starts"] or {}
    positions = [
        Position(
            topic=place.topic,
            partition=place.partition,
            committed=committed[place].offset if place in committed else None,
            start=_offset(starts, place),
            end=_offset(ends, place),
            member=readers.get(place),
        )
        for place in places
    ]
    return Detail(
        group=group,
        positions=positions,
        missing={**first.missing, **second.missing},
        dead_letter_failure=first["dead letters"] or "",
    )


def _dead_letter_failure(name: str) -> str:
    """The embedded broker's word; "" where there is none, or a cluster that has no such config."""
    resource = kafka.types.ConfigResource(kafka.types.ConfigKind.GROUP, name)
    try:
        told = kafka.admin().configs([resource], [FAILURE]).get(resource, ())
    except kafka.ClientError:
        return ""
    return next((entry.value or "" for entry in told if entry.name == FAILURE), "")


def _offset(found: Mapping[Any, Any], place: Any) -> int | None:
    one = found.get(place)
    return None if one is None or one.error or one.offset < 0 else one.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What a reset would do to one partition."""

    topic: str
    partition: int
    before: int | None
    after: int
    end: int

    @property
    def change(self) -> int | None:
        return None if self.before is None else self.after - self.before

    @property
    def lag(self) -> int:
        return max(0, self.end - self.after)


def moves(name: str, topics: Sequence[str], target: str, value: int) -> list[Move]:
    """Where each partition of `topics` would go. `target`: earliest, latest, time (epoch ms) or shift (records).

    An offset never leaves the log: it is held between the first and the end offset.
    """
    cluster = kafka.admin()
    committed = cluster.group_offsets([name]).get(name, {})
    known = cluster.topics(topics)
    places = [kafka.TopicPartition(topic.name, part.index) for topic in known.values() for part in topic.partitions]
    starts = cluster.offsets(places, kafka.types.At.EARLIEST)
    ends = cluster.offsets(places, kafka.types.At.LATEST)
    found = cluster.offsets(places, value) if target == "time" else {}
    planned = []
    for place in sorted(places):
        start, end = _offset(starts, place), _offset(ends, place)
        if start is None or end is None:
            raise kafka.ClientError(f"{place.topic} {place.partition}: offsets are not known")
        before = committed[place].offset if place in committed else None
        wanted = _wanted(target, value, before, start, end, _offset(found, place))
        if wanted is not None:
            after = min(max(wanted, start), end)
            planned.append(Move(topic=place.topic, partition=place.partition, before=before, after=after, end=end))
    return planned


def _wanted(target: str, value: int, before: int | None, start: int, end: int, found: int | None) -> int | None:
    if target == "earliest":
        return start
    if target == "latest":
        return end
    if target == "time":
        return end if found is None else found  # nothing as young as that: what comes next
    if target == "offset":
        return value
    return None if before is None else before + value
