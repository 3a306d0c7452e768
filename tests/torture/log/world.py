"""What the log must hold, kept by the side that was promised it.

A `World` takes the same events as the store, in the same order, by rules of its own; after a power cut the recovered
store must equal the world of all acknowledged events, or that world with the one group that was on its way.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from broker.log.partition import Partition
from broker.log.segment import Segment
from broker.log.store import Store
from broker.wire import batch as wire

Key = tuple[bytes, int]


class Violation(AssertionError):
    """The store broke a promise."""


@dataclass(slots=True)
class Event:
    """Something that was staged: `create`, `delete`, `start` or `records`."""

    kind: str
    key: Key
    base: int = 0
    count: int = 0
    data: bytes = b""  # as it must stand in the log
    producer: int = -1
    epoch: int = -1
    sequence: int = -1
    transactional: bool = False
    marker: str = ""  # "commit", "abort"
    keys: tuple[bytes, ...] = ()
    compact: bool = False


@dataclass(slots=True)
class Log:
    """One partition, as promised."""

    compact: bool = False
    start: int = 0
    end: int = 0
    batches: list[Event] = field(default_factory=list)
    open: dict[int, int] = field(default_factory=dict)
    aborted: list[tuple[int, int, int]] = field(default_factory=list)
    sent: dict[int, tuple[int, list[tuple[int, int, int]]]] = field(default_factory=dict)


class World:
    """All partitions, as promised."""

    def __init__(self) -> None:
        self.logs: dict[Key, Log] = {}
        self.records = 0

    def with_events(self, events: Iterable[Event]) -> World:
        """This world after those events too."""
        events = list(events)
        out = World()
        out.records = self.records
        touched = {event.key for event in events}
        out.logs = {key: copy.copy(log) if key not in touched else _copied(log) for key, log in self.logs.items()}
        for event in events:
            out.take(event)
        return out

    def copied(self) -> World:
        """This world as it is now, however that one goes on."""
        out = World()
        out.records = self.records
        out.logs = {key: _copied(log) for key, log in self.logs.items()}
        return out

    def take(self, event: Event) -> None:
        """One more promise."""
        if event.kind == "create":
            self.logs[event.key] = Log(compact=event.compact)
            return
        if event.kind == "delete":
            self.logs.pop(event.key, None)
            return
        log = self.logs[event.key]
        if event.kind == "start":
            log.start = max(log.start, event.base)
            return
        if event.base != log.end:
            raise Violation(f"an append was given offset {event.base} where {log.end} was next")
        log.batches.append(event)
        log.end = event.base + event.count
        self.records += event.count
        if event.marker:
            first = log.open.pop(event.producer, None)
            if first is not None and event.marker == "abort":
                log.aborted.append((event.producer, first, event.base))
            epoch, sent = log.sent.get(event.producer, (-1, []))
            log.sent[event.producer] = (event.epoch, sent if epoch == event.epoch else [])
        elif event.producer >= 0:
            if event.transactional:
                log.open.setdefault(event.producer, event.base)
            epoch, sent = log.sent.get(event.producer, (-1, []))
            kept = sent if epoch == event.epoch else []
            entry = (event.sequence, event.base, event.base + event.count - 1)
            log.sent[event.producer] = (event.epoch, [*kept, entry][-5:])


def _copied(log: Log) -> Log:
    return Log(
        compact=log.compact,
        start=log.start,
        end=log.end,
        batches=list(log.batches),
        open=dict(log.open),
        aborted=list(log.aborted),
        sent={producer: (epoch, list(sent)) for producer, (epoch, sent) in log.sent.items()},
    )


def read_all(partition: Partition, size: int = 1 << 20) -> list[wire.Batch]:
    """Every batch from the log's start on, read as a consumer would."""
    out: list[wire.Batch] = []
    offset = partition.log_start_offset
    while offset < partition.high_watermark:
        found = partition.read(offset, size)
        batches = [batch for buffer in found.buffers for batch in wire.split(buffer)]
        if not batches:
            break
        out.extend(batches)
        offset = batches[-1].last_offset + 1
    return out


def differences(store: Store, world: World) -> str:
    """The first way in which the store is not that world; empty when it is."""
    held = {(part.topic_id, part.index): part for part in store.partitions()}
    if held.keys() != world.logs.keys():
        return f"partitions: {len(held)} are there, {len(world.logs)} should be"
    for key, log in world.logs.items():
        wrong = log_differs(held[key], log)
        if wrong:
            return f"{held[key].folder}: {wrong}"
    return ""


def log_differs(partition: Partition, log: Log) -> str:
    if partition.high_watermark != log.end or partition.log_end_offset != log.end:
        return f"ends at {partition.high_watermark}/{partition.log_end_offset}, promised {log.end}"
    if partition.log_start_offset != log.start:
        return f"starts at {partition.log_start_offset}, promised {log.start}"
    stable = min(log.open.values(), default=log.end)
    if partition.last_stable_offset != stable:
        return f"last stable offset {partition.last_stable_offset}, promised {stable}"
    wrong = _compacted_differs(partition, log) if log.compact else _bytes_differ(partition, log)
    return wrong or _producers_differ(partition, log)


def _bytes_differ(partition: Partition, log: Log) -> str:
    promised = [event for event in log.batches if event.base + event.count > log.start]
    found = read_all(partition)
    for batch, event in zip(found, promised, strict=False):
        if bytes(batch.data) != event.data:
            return f"the batch at {event.base} is not what was acknowledged (found base {batch.base_offset})"
    if len(found) != len(promised):
        return f"{len(found)} batches can be read, {len(promised)} were acknowledged"
    return ""


@lru_cache(maxsize=20_000)
def _records(data: bytes) -> tuple[tuple[int, bytes | None, bytes | None], ...]:
    """(offset, key, value) of a batch's records; the same bytes are looked at after every cut."""
    return tuple((record.offset, record.key, record.value) for record in wire.records(wire.split(data)[0]))


def _compacted_differs(partition: Partition, log: Log) -> str:
    """Of a compacted log: nothing that was not appended, and the newest of each key."""
    appended: dict[int, tuple[bytes | None, bytes | None]] = {}
    newest: dict[bytes | None, int] = {}
    for event in log.batches:
        if event.marker:
            continue
        void = any(producer == event.producer and first <= event.base < last for producer, first, last in log.aborted)
        for offset, key, value in _records(event.data):
            appended[offset] = (key, value)
            if not void:
                newest[key] = offset
    found: set[int] = set()
    before = -1
    for batch in read_all(partition):
        if batch.base_offset <= before:
            return f"the batch at {batch.base_offset} comes after {before}"
        before = batch.last_offset
        if not wire.verify(batch):
            return f"the batch at {batch.base_offset} fails its CRC"
        if batch.control:
            continue
        for offset, key, value in _records(bytes(batch.data)):
            if appended.get(offset) != (key, value):
                return f"the record at {offset} is not the one appended there"
            found.add(offset)
    for key, offset in newest.items():
        if offset >= log.start and offset not in found and appended[offset][1] is not None:
            return f"the newest record of key {key!r} (offset {offset}) is gone"
    return ""


def _producers_differ(partition: Partition, log: Log) -> str:
    states = partition.states()
    for producer, (epoch, sent) in log.sent.items():
        state = states.get(producer)
        if state is None:
            return f"producer {producer} is forgotten"
        held = [(one.first_sequence, one.base_offset, one.last_offset) for one in state.sent]
        if state.epoch != epoch or held != sent:
            return f"producer {producer} is {state.epoch} {held}, promised {epoch} {sent}"
        if state.transaction != log.open.get(producer, -1):
            return f"producer {producer}'s transaction begins at {state.transaction}"
    aborted = [tuple(entry)[:3] for entry in partition.aborted_transactions(log.start)]
    promised = [entry for entry in log.aborted if entry[2] >= log.start]
    if log.compact:  # compaction takes the records of aborted transactions, and with them the need to tell of them
        ends = {(entry[0], entry[2]): entry[1] for entry in promised}
        promised = [entry for entry in aborted if ends.get((entry[0], entry[2]), entry[1] + 1) <= entry[1]]
    if aborted != promised:
        return f"aborted transactions {aborted}, promised {promised}"
    visible = partition.read(log.start, 1 << 20, committed=True)
    last = max((batch.last_offset for buffer in visible.buffers for batch in wire.split(buffer)), default=-1)
    if last >= min(log.open.values(), default=log.end):
        return f"read_committed shows offset {last} of an open transaction"
    return ""


def indexes_differ(store: Store) -> str:
    """Whether an index is not what the log says it should be."""
    for partition in store.partitions():
        for segment in partition.segments:
            segment.load_indexes()
            segment.flush()
            fresh = Segment(store.files, segment.folder, segment.base, size=segment.size, born=False)
            fresh.rebuild_indexes()
            if segment is not partition.segments[-1]:
                fresh.seal()
            if wrong := _lies(segment):
                return f"{segment.path('')}: {wrong}"
            for name in ("offsets", "times"):
                if getattr(segment, name).dump() != getattr(fresh, name).dump():
                    return f"{segment.path('')}: the index of {name} differs from a rebuilt one"
    return ""


def _lies(segment: Segment) -> str:
    """Whether an index entry says something untrue of the log."""
    places: dict[int, int] = {}
    newest: dict[int, int] = {}
    position, top = 0, -1
    for info, _ in segment.infos():
        places[position] = info.last_offset
        if info.max_timestamp > top:
            top = info.max_timestamp
            newest[top] = info.last_offset
        position += info.size
    for relative, position in zip(segment.offsets.offsets, segment.offsets.positions, strict=True):
        if places.get(position) != relative + segment.base:
            return f"the offset index has {relative + segment.base} at {position}"
    for timestamp, relative in zip(segment.times.timestamps, segment.times.offsets, strict=True):
        if newest.get(timestamp) != relative + segment.base:
            return f"the time index has {timestamp} at offset {relative + segment.base}"
    return ""


_PLACE = struct.Struct(">qii")


def placed(raw: bytes, base: int, epoch: int) -> bytes:
    """A batch as it must stand in the log."""
    return _PLACE.pack(base, len(raw) - 12, epoch) + raw[16:]
