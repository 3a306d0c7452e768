"""A world for the coordinators: a log that keeps what it is given, topics, configs, ids that count up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from broker.groups.ports import StateRecord, StateUnwritable, Topic


class KeptLog:
    """Keeps every record in order; `broken` makes appends fail."""

    def __init__(self) -> None:
        self.records: list[StateRecord] = []
        self.broken = False

    def append(self, records: Sequence[StateRecord], now: int) -> None:
        if self.broken:
            raise StateUnwritable
        self.records.extend(records)

    def compacted(self) -> list[StateRecord]:
        """The newest record of each key, in log order, tombstones gone."""
        last = {key: index for index, (key, _) in enumerate(self.records)}
        return [(k, v) for i, (k, v) in enumerate(self.records) if last[k] == i and v is not None]


class KeptTopics:
    """Topics by name; an id is the name's bytes, padded."""

    def __init__(self, **partitions: int) -> None:
        self.version = 0
        self._topics: dict[str, Topic] = {}
        for name, count in partitions.items():
            self.put(name, count)

    def put(self, name: str, partitions: int) -> None:
        self._topics[name] = Topic(id=name.encode().ljust(16, b"\0"), name=name, partitions=partitions)
        self.version += 1

    def drop(self, name: str) -> None:
        del self._topics[name]
        self.version += 1

    def topic(self, name: str) -> Topic | None:
        return self._topics.get(name)

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        return next((t for t in self._topics.values() if t.id == topic_id), None)

    def names(self) -> Iterable[str]:
        return list(self._topics)


class KeptConfigs:
    """Group configs by group."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[str, str]] = {}
        self.of_broker: dict[str, str] = {}

    def broker(self) -> Mapping[str, str]:
        return self.of_broker

    def overrides(self, group_id: str) -> Mapping[str, str]:
        return self.by_group.get(group_id, {})


def counting() -> Callable[[], str]:
    """Ids that count up, the same in every run."""
    count = 0

    def new_id() -> str:
        nonlocal count
        count += 1
        return f"{count:04d}"

    return new_id
