"""Every share partition of every share group: what is handed out, judged, given back, and kept durable.

The state of a share partition is one compacted record in `__share_group_state`, written with each change: start offset
and runs. A record handed out is written as available with its new delivery count, so that a crash in between costs an
attempt and never a record. A dead letter lies before the state that no longer has its record in the journal; a crash
keeps a prefix, so it may double a dead letter but never lose one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from broker.groups.deadlines import Deadlines
from broker.groups.ports import StateLog, StateRecord, StateUnwritable
from broker.groups.records import UnknownRecord
from broker.groups.share_partition import Acquired, Cause, ShareLimits, SharePartition, ShareSnapshot, Span
from broker.wire.errors import ErrorCode

T = TypeVar("T")

_KIND = struct.Struct(">h")
_PARTITION_STATE = 1
_VERSION = 1
_RETRY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """A partition as a share group reads it."""

    group: str
    topic: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a member says about a range: one type for all, or one each."""

    first: int
    last: int
    types: tuple[int, ...]


class Graves(Protocol):
    """Where dead letters go."""

    def bury(self, place: Place, offset: int, count: int, cause: Cause) -> bool:
        """Append the dead letter; True also when the group wants none. False leaves the record where it is."""


def state_record(place: Place, snapshot: ShareSnapshot | None) -> StateRecord:
    """The record that keeps a share partition, or its tombstone."""
    parts = [place.group, place.topic.hex(), place.index]
    key = _KIND.pack(_PARTITION_STATE) + json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()
    if snapshot is None:
        return key, None
    fields = {"v": _VERSION, "start": snapshot.start, "runs": snapshot.runs}
    return key, json.dumps(fields, separators=(",", ":")).encode()


def read_place(key: bytes) -> Place:
    """The share partition a record is about."""
    if _KIND.unpack_from(key)[0] != _PARTITION_STATE:
        raise UnknownRecord(f"share state record of kind {key[:2]!r}")
    group, topic, index = json.loads(key[2:])
    return Place(group, bytes.fromhex(topic), index)


def read_snapshot(value: bytes) -> ShareSnapshot:
    """What `state_record` wrote."""
    fields = json.loads(value)
    if fields.get("v") != _VERSION:
        raise UnknownRecord(f"share state record of version {fields.get('v')!r}")
    return ShareSnapshot(fields["start"], tuple((run[0], run[1], run[2], run[3]) for run in fields["runs"]))


class ShareCoordinator:
    """All share partitions of this broker. `freed` is told where records may have become available."""

    def __init__(
        self,
        *,
        log: StateLog,
        limits: Callable[[str], ShareLimits],
        graves: Graves,
        freed: Callable[[Place], None] = lambda place: None,
    ) -> None:
        self._log = log
        self._limits = limits
        self._graves = graves
        self._freed = freed
        self._partitions: dict[Place, SharePartition] = {}
        self._deadlines: Deadlines[tuple[str, ...]] = Deadlines()

    # -- start and time -----------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take one state record back in, in log order."""
        place = read_place(key)
        if value is None:
            self._partitions.pop(place, None)
        else:
            self._partitions[place] = self._made(place, read_snapshot(value))

    def _made(self, place: Place, snapshot: ShareSnapshot) -> SharePartition:
        return SharePartition(snapshot, lambda offset, count, cause: self._graves.bury(place, offset, count, cause))

    def resume(self, now: int) -> None:
        """Replay is over; nothing is handed out yet."""

    def next_deadline(self) -> int | None:
        """When the first lock runs out."""
        return self._deadlines.next()

    def tick(self, now: int) -> None:
        """Take back what was not judged in time."""
        for key in self._deadlines.due(now):
            place = Place(key[0], bytes.fromhex(key[1]), int(key[2]))
            partition = self._partitions.get(place)
            if partition is None:
                continue
            limits = self._limits(place.group)
            try:
                self._change(place, partition, lambda p=partition, m=limits: p.expire_locks(m, now), now)  # type: ignore[misc]  # bound for the call
            except StateUnwritable:
                self._deadlines.set(key, now + _RETRY_MS)

    def abandon(self) -> None:
        """Nothing is parked here."""

    # -- queries ------------------------------------------------------------------------------------------------------

    def partition(self, place: Place) -> SharePartition | None:
        """The share partition, once it has begun."""
        return self._partitions.get(place)

    def places(self, group: str) -> list[Place]:
        """Where the group has begun to read."""
        return [place for place in self._partitions if place.group == group]

    def next_offset(self, place: Place) -> int | None:
        """Where to read for something to hand out."""
        partition = self._partitions.get(place)
        return None if partition is None else partition.next_offset(self._limits(place.group))

    # -- changes ------------------------------------------------------------------------------------------------------

    def begin(self, place: Place, start: int, now: int) -> None:
        """Read from that offset on; also moves a group that has begun before (an operator's doing)."""
        snapshot = ShareSnapshot(start)
        self._log.append([state_record(place, snapshot)], now)
        self._partitions[place] = self._made(place, snapshot)
        self._freed(place)

    def acquire(
        self,
        place: Place,
        member: str,
        offset: int,
        spans: Sequence[Span],
        *,
        max_records: int,
        strict: bool,
        others: bool,
        now: int,
    ) -> list[Acquired]:
        """Hand out what is free among the batches read from `offset` on."""
        partition = self._partitions[place]
        limits = self._limits(place.group)
        return self._change(
            place,
            partition,
            lambda: partition.acquire(
                member, offset, spans, max_records=max_records, strict=strict, others=others, limits=limits, now=now
            ),
            now,
        )

    def acknowledge(self, place: Place, member: str, judgements: Iterable[Judgement], now: int) -> ErrorCode:
        """What the member says about what it has; the first wrong range ends it, those before it hold."""
        partition = self._partitions.get(place)
        if partition is None:
            return ErrorCode.INVALID_RECORD_STATE
        limits = self._limits(place.group)

        def judge() -> ErrorCode:
            return partition.acknowledge(member, ((j.first, j.last, j.types) for j in judgements), limits, now)

        code = self._change(place, partition, judge, now)
        self._freed(place)
        return code

    def give_up(self, place: Place, member: str, offsets: Sequence[int], cause: Cause, now: int) -> None:
        """Records the member was about to get are not handed out after all."""
        partition, limits = self._partitions[place], self._limits(place.group)

        def step() -> None:
            for offset in offsets:
                partition.give_up(member, offset, cause, limits)

        self._change(place, partition, step, now)

    def release_member(self, group: str, member: str, now: int) -> None:
        """The member is gone: what it had is free again."""
        limits = self._limits(group)
        for place in self.places(group):
            partition = self._partitions[place]
            if any(run.member == member for run in partition.runs):
                self._change(place, partition, lambda p=partition: p.release_member(member, limits), now)  # type: ignore[misc]  # bound for the call
                self._freed(place)

    def log_starts_at(self, place: Place, offset: int, now: int) -> None:
        """Retention has removed what lies before."""
        partition = self._partitions.get(place)
        if partition is not None and offset > partition.start:
            self._change(place, partition, lambda: partition.log_starts_at(offset), now)

    def forget(self, places: Iterable[Place], now: int) -> None:
        """The groups have never read there."""
        known = [place for place in places if place in self._partitions]
        if known:
            self._log.append([state_record(place, None) for place in known], now)
            for place in known:
                del self._partitions[place]

    def topic_deleted(self, topic: bytes, now: int) -> None:
        """The topic is gone for every group."""
        self.forget([place for place in self._partitions if place.topic == topic], now)

    def _change(self, place: Place, partition: SharePartition, step: Callable[[], T], now: int) -> T:
        """Do the step and write what it changed; a failed write undoes it."""
        before = partition.mark()
        result = step()
        if partition.mark() == before:
            return result
        try:
            self._log.append([state_record(place, partition.snapshot())], now)
        except StateUnwritable:
            partition.go_back(before)
            raise
        key = (place.group, place.topic.hex(), str(place.index))
        lock = partition.next_lock()
        if lock is None:
            self._deadlines.clear(key)
        else:
            self._deadlines.set(key, lock)
        if lock is None or partition.has_free():
            self._freed(place)
        return result

    def __iter__(self) -> Iterator[Place]:
        return iter(self._partitions)
