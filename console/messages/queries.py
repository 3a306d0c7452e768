"""Reading records for people: a page of them from either end, an offset or a time, filtered by text.

Theory. A search walks ranges of offsets, each read by a plain consumer that belongs to no group and commits nothing.
Forward it reads on from a position per partition; backward ("newest") it reads growing ranges that end where the last
began, and shows them newest first. It stops when the page is full, at the end of the log, or at its deadline, and says
how many records and bytes it looked at; the cursor is where it stopped, so that going on costs nothing twice.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from console import deadline, kafka

LIMIT = 50
DEADLINE_SECONDS = 5.0
FIRST_RANGE = 200


class BadQuery(ValueError):
    """The address asks for something that is not a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    topic: str
    start: str = "newest"  # newest, oldest, offset, time
    offset: int = 0
    since: int = 0  # epoch ms
    partition: int | None = None
    text: str = ""
    within: str = "any"  # any, key, value, header
    cursor: Mapping[int, int] = field(default_factory=dict)
    limit: int = LIMIT

    @property
    def backward(self) -> bool:
        return self.start == "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    records: Sequence[kafka.Record]
    scanned: int
    bytes: int
    seconds: float
    cursor: Mapping[int, int]  # where to go on; empty at the end of the log
    complete: bool  # the log's end was reached
    trouble: str = ""

    @property
    def cursor_text(self) -> str:
        return ",".join(f"{partition}:{offset}" for partition, offset in sorted(self.cursor.items()))


def parsed_cursor(text: str) -> dict[int, int]:
    try:
        pairs = [part.split(":") for part in text.split(",") if part]
        return {int(partition): int(offset) for partition, offset in pairs}
    except ValueError as error:
        raise BadQuery(text) from error


def newest(topic: str, partitions: int, limit: int) -> Found:
    """The last records of a topic, quickly or not at all: for the topic's page."""
    if not partitions:
        return Found(records=(), scanned=0, bytes=0, seconds=0, cursor={}, complete=True)
    query = Query(topic=topic, limit=limit)
    answers = deadline.gather({"found": lambda: search(query, partitions, seconds=1.2)}, 1.5)
    found = answers["found"]
    if found is None:
        trouble = answers.missing.get("found", "")
        return Found(records=(), scanned=0, bytes=0, seconds=0, cursor={}, complete=False, trouble=trouble)
    return found  # type: ignore[no-any-return]  # what the call above gave


def search(query: Query, partitions: int, *, seconds: float = DEADLINE_SECONDS) -> Found:
    """One page. `partitions` is how many the topic has."""
    began = time.monotonic()
    wanted = range(partitions) if query.partition is None else [query.partition]
    places = [kafka.TopicPartition(query.topic, index) for index in wanted if index < partitions]
    cluster = kafka.admin()
    starts = _offsets(cluster.offsets(places, kafka.types.At.EARLIEST))
    ends = _offsets(cluster.offsets(places, kafka.types.At.LATEST, committed_only=True))
    walk = _Walk(query, starts, ends, began + seconds)
    if query.backward:
        walk.backward()
    else:
        found = _offsets(cluster.offsets(places, query.since)) if query.start == "time" else {}
        walk.forward(found)
    ordered = sorted(walk.matches, key=lambda r: (r.timestamp, r.offset), reverse=query.backward)
    page, cursor = walk.page(ordered)
    return Found(
        records=page,
        scanned=walk.scanned,
        bytes=walk.bytes,
        seconds=time.monotonic() - began,
        cursor=cursor,
        complete=not cursor,
    )


def one(topic: str, partition: int, offset: int) -> kafka.Record | None:
    """The record at exactly this place; None when retention or compaction took it."""
    reader = kafka.consumer(fetch_wait=0.1)
    try:
        place = kafka.TopicPartition(topic, partition)
        reader.assign({place: offset})
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for record in reader.poll(1, 0.3):
                return record if record.offset == offset else None
        return None
    finally:
        reader.close()


def _offsets(found: Mapping[Any, Any]) -> dict[int, int]:
    return {place.partition: one.offset for place, one in found.items() if not one.error and one.offset >= 0}


class _Walk:
    """One search under way."""

    def __init__(self, query: Query, starts: Mapping[int, int], ends: Mapping[int, int], until: float) -> None:
        self.query = query
        self.starts, self.ends, self.until = starts, ends, until
        self.matches: list[kafka.Record] = []
        self.scanned = self.bytes = 0
        self._positions: dict[int, int] = {}
        self._words = query.text.casefold()

    def forward(self, found: Mapping[int, int]) -> None:
        query = self.query
        for index, end in self.ends.items():
            start = self.starts.get(index, 0)
            if query.cursor:
                at = query.cursor.get(index, end)
            elif query.start == "offset":
                at = query.offset
            elif query.start == "time":
                at = found.get(index, end)
            else:
                at = start
            self._positions[index] = min(max(at, start), end)
        ranges = {index: (at, self.ends[index]) for index, at in self._positions.items() if at < self.ends[index]}
        self._positions |= self._read(ranges, most=query.limit)

    def backward(self) -> None:
        query = self.query
        tops = {i: min(query.cursor.get(i, 0) if query.cursor else end, end) for i, end in self.ends.items()}
        length = max(query.limit, 1) if not query.text else FIRST_RANGE
        while time.monotonic() < self.until:
            ranges = {
                index: (max(self.starts.get(index, 0), top - length), top)
                for index, top in tops.items()
                if top > self.starts.get(index, 0)
            }
            if not ranges:
                break
            before = len(self.matches)
            reached = self._read(ranges)
            unfinished = [index for index, (_, top) in ranges.items() if reached[index] < top]
            if unfinished:  # the deadline: what was read of an unfinished range would be shown out of order
                self.matches = [r for r in self.matches[before:] if r.partition not in unfinished] + self.matches[
                    :before
                ]
            tops |= {index: low for index, (low, _) in ranges.items() if index not in unfinished}
            if len(self.matches) >= query.limit or unfinished:
                break
            length = min(length * 4, 50_000)
        self._positions = tops

    def page(self, ordered: list[kafka.Record]) -> tuple[list[kafka.Record], dict[int, int]]:
        """The page, and where the next one goes on."""
        limit = self.query.limit
        shown, held_back = ordered[:limit], ordered[limit:]
        positions = dict(self._positions)
        for record in held_back:  # read but not shown: the next page begins with them
            if self.query.backward:
                positions[record.partition] = max(positions[record.partition], record.offset + 1)
            else:
                positions[record.partition] = min(positions[record.partition], record.offset)
        if self.query.backward:
            left = {index: top for index, top in positions.items() if top > self.starts.get(index, 0)}
        else:
            left = {index: at for index, at in positions.items() if at < self.ends.get(index, 0)}
        return shown, positions if left else {}

    def _read(self, ranges: Mapping[int, tuple[int, int]], most: int | None = None) -> dict[int, int]:
        """Reads the ranges [from, to) and keeps what matches, up to `most` per partition. Returns the offset reached in
        each: a range is at its end when a record at or after it arrived, or the broker said that the log ends. Silence
        proves nothing.
        """
        reached = {index: low for index, (low, _) in ranges.items()}
        kept = dict.fromkeys(ranges, 0)
        open_ranges = set(ranges)
        if not ranges:
            return reached
        reader = kafka.consumer(fetch_wait=0.1, queue_kbytes=16_384, overrides={"enable.partition.eof": True})
        try:
            topic = self.query.topic
            reader.assign({kafka.TopicPartition(topic, index): low for index, (low, _) in ranges.items()})
            while open_ranges and time.monotonic() < self.until:
                for record in reader.poll(500, 0.15):
                    index, high = record.partition, ranges[record.partition][1]
                    if index not in open_ranges:
                        continue
                    if record.offset < high:
                        reached[index] = record.offset + 1
                        kept[index] += self._look_at(record)
                    if record.offset >= high - 1:
                        reached[index] = high
                        open_ranges.discard(index)
                    elif most is not None and kept[index] >= most:
                        open_ranges.discard(index)
                        reader.pause([record.origin])
                for place in reader.ends:
                    if place.partition in open_ranges:
                        reached[place.partition] = ranges[place.partition][1]
                        open_ranges.discard(place.partition)
        finally:
            reader.close()
        return reached

    def _look_at(self, record: kafka.Record) -> bool:
        """Whether the record matches, and so was kept."""
        self.scanned += 1
        self.bytes += len(record.key or b"") + len(record.value or b"")
        fits = not self._words or matches(record, self._words, self.query.within)
        if fits:
            self.matches.append(record)
        return fits


def matches(record: kafka.Record, text: str, where: str) -> bool:
    """Whether the record holds `text` (folded), anywhere or in one part of it."""
    if where in ("any", "key") and record.key and text in record.key.decode("utf-8", "replace").casefold():
        return True
    if where in ("any", "value") and record.value and text in record.value.decode("utf-8", "replace").casefold():
        return True
    if where in ("any", "header"):
        return any(
            text in name.casefold() or (value and text in value.decode("utf-8", "replace").casefold())
            for name, value in record.headers
        )
    return False
