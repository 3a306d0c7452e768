"""What topic pages show: rows from the picture; partitions and configuration from the broker, under a deadline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console import deadline, kafka, snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRow:
    index: int
    leader: int
    replicas: Sequence[int]
    in_sync: Sequence[int]
    start: int | None
    end: int | None

    @property
    def messages(self) -> int | None:
        return None if self.start is None or self.end is None else max(0, self.end - self.start)

    @property
    def under_replicated(self) -> bool:
        return len(self.in_sync) < len(self.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One topic's page. `missing` says what the broker didn't tell in time, and why."""

    exists: bool
    id: str
    partitions: Sequence[PartitionRow]
    entries: Sequence[Any]
    missing: Mapping[str, str]


def detail(name: str) -> Detail:
    """Asks the broker for partitions, offsets and configuration side by side."""
    resource = kafka.types.ConfigResource(kafka.types.ConfigKind.TOPIC, name)
    known = snapshot.current().topics.get(name)
    places = [kafka.TopicPartition(name, index) for index in range(known.partitions if known else 0)]
    cluster = kafka.admin()
    answers = deadline.gather(
        {
            "topic": lambda: cluster.topics([name]),
            "configs": lambda: cluster.configs([resource]),
            "starts": lambda: cluster.offsets(places, kafka.types.At.EARLIEST) if places else {},
            "ends": lambda: cluster.offsets(places, kafka.types.At.LATEST) if places else {},
        }
    )
    topics = answers["topic"]
    topic = topics.get(name) if topics is not None else None
    starts, ends = answers["starts"] or {}, answers["ends"] or {}
    rows = []
    for partition in topic.partitions if topic else ():
        place = kafka.TopicPartition(name, partition.index)
        rows.append(
            PartitionRow(
                index=partition.index,
                leader=partition.leader,
                replicas=partition.replicas,
                in_sync=partition.in_sync,
                start=_offset(starts, place),
                end=_offset(ends, place),
            )
        )
    entries = sorted((answers["configs"] or {}).get(resource, ()), key=lambda entry: (entry.default, entry.name))
    return Detail(
        exists=topics is None or topic is not None,
        id=topic.id if topic else (known.id if known else ""),
        partitions=rows,
        entries=entries,
        missing=answers.missing,
    )


def _offset(found: Mapping[Any, Any], place: Any) -> int | None:
    one = found.get(place)
    return None if one is None or one.error or one.offset < 0 else one.offset


def consumers(picture: snapshot.Picture, name: str) -> list[snapshot.Group]:
    """The groups that read the topic, most lag first."""
    groups = [group for group in picture.user_groups() if name in group.topics]
    return sorted(groups, key=lambda group: (-(group.lag or 0), group.name))
