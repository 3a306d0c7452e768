"""One partition's worth of a cluster in memory, with transactions, fencing, and a crash before or after any step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.client import TopicPartition
from broker.client.delaying import DELAY_TOPIC, Refused
from broker.client.errors import Fenced, from_code
from broker.client.records import Delivered, Record

TOO_LARGE = 10


class Crash(BaseException):
    """kill -9: nothing after it runs."""


@dataclass(slots=True)
class Held:
    """One place in a log. `state`: open, committed, aborted; markers are committed and have no record."""

    record: Record | None
    state: str
    owner: str = ""
    visible_at: int = 0


@dataclass(slots=True)
class Cluster:
    """`crash_at`: the step at which the process dies, counted from its start; None: it lives."""

    now: int
    crash_at: int | None = None
    steps: int = 0
    refused: Callable[[Record], bool] = lambda record: False
    logs: dict[str, list[Held]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        self.steps += 1
        if self.crash_at is not None and self.steps >= self.crash_at:
            raise Crash

    def append(self, topic: str, key: bytes | None, value: bytes | None, headers: Any, owner: str = "") -> int:
        log = self.logs.setdefault(topic, [])
        record = Record(topic, 0, len(log), self.now, key, value, tuple(headers or ()))
        log.append(Held(record, "open" if owner else "committed", owner, self.now))
        return len(log) - 1

    def end(self, owner: str, state: str) -> None:
        """Settle a transaction: all of it in one instant, with a marker in every log it touched."""
        for log in self.logs.values():
            mine = [held for held in log if held.owner == owner and held.state == "open"]
            for held in mine:
                held.state, held.visible_at = state, self.now
            if mine:
                log.append(Held(None, "committed"))

    def committed(self, topic: str) -> list[Held]:
        return [held for held in self.logs.get(topic, []) if held.state == "committed" and held.record is not None]


class Producer:
    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        self._cluster = cluster
        self._id = transactional_id
        self._epoch = -1
        self.fatal = None

    def init_transactions(self, timeout: float) -> None:
        self._cluster.step()
        self._cluster.end(self._id, "aborted")
        self._epoch = self._cluster.epochs[self._id] = self._cluster.epochs.get(self._id, -1) + 1
        self._cluster.step()

    def _check(self) -> None:
        self._cluster.step()
        if self._cluster.epochs[self._id] != self._epoch:
            raise Fenced("taken over")

    def begin(self) -> None:
        self._check()

    def batch(self, done: Callable[[Any], None]) -> Batch:
        return Batch(self, done)

    def append(self, topic: str, value: bytes | None, key: bytes | None, headers: Any) -> int | None:
        """The offset; None when the topic refuses the record."""
        self._check()
        if self._cluster.refused(Record(topic, 0, -1, self._cluster.now, key, value, tuple(headers or ()))):
            return None
        return self._cluster.append(topic, key, value, headers, self._id)

    def post(self, topic: str, value: bytes | None, key: bytes | None, headers: Any, partition: int) -> Any:
        offset = self.append(topic, value, key, headers)
        assert offset is not None

        class Place:
            delivered = Delivered(topic, partition, offset)
            error = None

        return Place()

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        self._check()
        return 0

    def commit(self, timeout: float) -> None:
        self._check()
        self._cluster.end(self._id, "committed")
        self._cluster.step()

    def abort(self, timeout: float) -> None:
        self._check()
        self._cluster.end(self._id, "aborted")

    def close(self, timeout: float) -> int:
        return 0


class Batch:
    def __init__(self, producer: Producer, done: Callable[[Any], None]) -> None:
        self._producer = producer
        self._done = done
        self.failures: list[Any] = []

    def send(self, topic: str, value: bytes | None, key: bytes | None, headers: Any, partition: int) -> None:
        if self._producer.append(topic, value, key, headers) is None:

            class Failure:
                error = from_code(TOO_LARGE, "too large")

            self.failures.append(Failure())

    def seal(self) -> None:
        self._done(self)


class Reader:
    """`idle` is called with how long there was nothing to read."""

    def __init__(self, cluster: Cluster, *, to_the_end: bool, idle: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._to_the_end = to_the_end
        self._idle = idle
        self._at: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._at = dict(positions)

    def poll(self, count: int, timeout: float) -> list[Record]:
        self._cluster.step()
        found: list[Record] = []
        for place, offset in self._at.items():
            for held in self._cluster.logs.get(place.topic, [])[offset:]:
                if held.state == "open" or len(found) == count:
                    break
                self._at[place] += 1
                if held.record is not None and held.state == "committed":
                    found.append(held.record)
            else:
                if self._to_the_end:
                    self.ends[place] = self._at[place]
        if not found:
            self._idle(timeout)
        return found

    def close(self) -> None:
        pass


class Connections:
    """For one process: `stop` is set once the clock has passed `until` with nothing more to read."""

    def __init__(self, cluster: Cluster, stop: threading.Event, until: int, wishes: list[tuple[int, Any]]) -> None:
        """`wishes` are (when, (key, value, headers)) to be written to `sluice.delay` as time goes by."""
        self._cluster = cluster
        self._stop = stop
        self._until = until
        self._wishes = wishes

    def producer(self, transactional_id: str) -> Any:
        return Producer(self._cluster, transactional_id)

    def reader(self, *, to_the_end: bool = False) -> Any:
        return Reader(self._cluster, to_the_end=to_the_end, idle=self._pass)

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        self._cluster.step()
        return 0, len(self._cluster.logs.get(partition.topic, []))

    def _pass(self, seconds: float) -> None:
        cluster = self._cluster
        cluster.now += max(1, int(seconds * 1000))
        while self._wishes and self._wishes[0][0] <= cluster.now:
            key, value, headers = self._wishes.pop(0)[1]
            cluster.append(DELAY_TOPIC, key, value, headers)
        if cluster.now > self._until and not self._wishes:
            self._stop.set()


class Rules:
    """`orders` and `small` are topics; nothing else is."""

    def denied(self, target: str) -> Refused | None:
        return None

    def refusal(self, target: str) -> Refused | None:
        return None if target in ("orders", "small") else Refused(reason="target", detail="there is no such topic")
