"""A deep check of a data folder at rest: every byte that is kept is looked at.

Batches: header, CRC, offsets without a gap (where nothing was compacted), leader epoch as the checkpoint knows it.
Indexes: each entry must be true of the log; the transaction index must be what the markers say. The journal: every
frame. Snapshots, checkpoint, partition metadata: their checksums or their one right content.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from broker.log import batches, checkpoint, producers
from broker.log.config import LogConfig
from broker.log.durable import DurableLog
from broker.log.failures import CorruptLog, UnknownFormat
from broker.log.files import Files
from broker.log.index import MalformedIndex, OffsetIndex, TimeIndex, TransactionIndex
from broker.log.journal import file_name, scan, sequence_of
from broker.log.partition import Partition, Staged
from broker.log.recovery import METADATA
from broker.log.segment import LOG, OFFSETS, TIMES, TRANSACTIONS, Segment, stem


class _Silent:
    """A store for partitions that are only looked at."""

    def admit(self, *, records: bool) -> None:
        raise CorruptLog("a folder at rest takes no appends")

    def stage(self, staged: Staged) -> int:
        raise CorruptLog("a folder at rest takes no appends")

    def grew(self, log: DurableLog) -> None:
        return

    def damaged(self, what: str) -> None:
        return


def verify(files: Files, root: str) -> Iterator[str]:
    """Everything wrong with the folder, one line each. The store must be closed."""
    try:
        state = checkpoint.parse(_content(files, f"{root}/{checkpoint.NAME}"))
    except (CorruptLog, UnknownFormat, FileNotFoundError) as error:
        yield f"{root}/{checkpoint.NAME}: {error}"
        return
    yield from _journal(files, root, state)
    for record in state["partitions"]:
        yield from _partition(files, root, record)


def _content(files: Files, path: str) -> bytes:
    return files.open(path).read(0, files.size_of(path))


def _journal(files: Files, root: str, state: dict[str, Any]) -> Iterator[str]:
    for name in files.list(root):
        number = sequence_of(name)
        if number is None or number < state["journal"]["sequence"]:
            continue
        try:
            found = scan(_content(files, f"{root}/{name}"), number)
        except UnknownFormat as error:
            yield f"{root}/{name}: {error}"
            continue
        if found.base is None:
            yield f"{root}/{name}: the header is damaged"
        elif found.torn or found.later:
            yield f"{root}/{name}: damaged at position {found.end}"
    if state["clean"] and files.exists(f"{root}/{file_name(state['journal']['sequence'])}"):
        found = scan(_content(files, f"{root}/{file_name(state['journal']['sequence'])}"), state["journal"]["sequence"])
        if found.base is not None and found.end < state["journal"]["position"]:
            yield f"{root}/{file_name(found.sequence)}: ends at {found.end}, not at {state['journal']['position']}"


def _partition(files: Files, root: str, record: dict[str, Any]) -> Iterator[str]:
    partition = Partition(
        _Silent(),
        files,
        root,
        topic=record["topic"],
        topic_id=bytes.fromhex(record["id"]),
        index=record["index"],
        folder=record["folder"],
        config=LogConfig(),
    )
    encoded = base64.urlsafe_b64encode(partition.topic_id).decode().rstrip("=")
    if not files.exists(f"{partition.path}/{METADATA}"):
        yield f"{partition.path}/{METADATA} is gone"
    elif _content(files, f"{partition.path}/{METADATA}") != f"version: 0\ntopic_id: {encoded}".encode():
        yield f"{partition.path}/{METADATA} is damaged"
    if record["producers"] is not None:
        path = f"{partition.path}/{record['producers']:020d}{checkpoint.SNAPSHOT}"
        try:
            producers.load(_content(files, path))
        except (CorruptLog, UnknownFormat, FileNotFoundError) as error:
            yield f"{path}: {error}"
    partition.epochs = [(epoch, start) for epoch, start in record["epochs"]]
    partition.loose_offset = record["loose"]
    names = files.list(partition.path)
    bases = [int(name.removesuffix(LOG)) for name in names if name.endswith(LOG) and name[:20].isdigit()]
    offset = -1
    for base in bases:
        if base > record["segment"]:
            continue
        size = record["size"] if base == record["segment"] else files.size_of(f"{partition.path}/{stem(base)}{LOG}")
        segment = Segment(files, partition.path, base, size=size, born=False)
        partition.segments.append(segment)
        compacted = base < partition.loose_offset
        if not compacted and offset >= 0 and base != offset:
            yield f"{segment.path(LOG)} begins where {offset} was next"
        offset, wrongs = _segment(partition, segment, max(offset, base), compacted)
        yield from wrongs
        if wrongs:
            return
    if offset >= 0 and offset != record["end"] and partition.loose_offset < record["end"]:
        yield f"{partition.path} ends at {offset}, not at {record['end']}"
    yield from _transactions(files, partition)


def _segment(partition: Partition, segment: Segment, offset: int, compacted: bool) -> tuple[int, list[str]]:
    """(next offset, what is wrong)"""
    path = segment.path(LOG)
    ends: dict[int, int] = {}
    times: dict[int, int] = {}
    position, newest = 0, -1
    try:
        for info, data in segment.infos():
            if not batches.intact(data, info):
                return offset, [f"{path}: the batch at byte {position} fails its CRC"]
            if info.base_offset < offset or (not compacted and info.base_offset != offset):
                return offset, [f"{path}: offset {info.base_offset} at byte {position}, where {offset} was next"]
            if info.leader_epoch != partition.epoch_of(info.base_offset):
                return offset, [f"{path}: leader epoch {info.leader_epoch} at byte {position}"]
            ends[position] = info.last_offset
            if info.max_timestamp > newest:
                newest = info.max_timestamp
                times[newest] = info.last_offset
            position += info.size
            offset = info.last_offset + 1
    except CorruptLog as error:
        return offset, [str(error)]
    if position != segment.size:
        return offset, [f"{path}: bytes {position} to {segment.size} are no batches"]
    return offset, list(_indexes(segment, ends, times))


def _indexes(segment: Segment, ends: dict[int, int], times: dict[int, int]) -> Iterator[str]:
    files = segment.files
    try:
        offsets = OffsetIndex(segment.base)
        offsets.load(_content(files, segment.path(OFFSETS)), segment.size)
        for relative, position in zip(offsets.offsets, offsets.positions, strict=True):
            if ends.get(position) != relative + segment.base:
                yield f"{segment.path(OFFSETS)}: offset {relative + segment.base} at {position} is not so"
        index = TimeIndex(segment.base)
        index.load(_content(files, segment.path(TIMES)))
        for timestamp, relative in zip(index.timestamps, index.offsets, strict=True):
            if times.get(timestamp) != relative + segment.base:
                yield f"{segment.path(TIMES)}: {timestamp} at offset {relative + segment.base} is not so"
    except (MalformedIndex, FileNotFoundError) as error:
        yield f"{segment.path('')}: {error}"


def _transactions(files: Files, partition: Partition) -> Iterator[str]:
    """The transaction indexes against the markers; compaction takes records away, so there only what is left counts."""
    try:
        right = partition.ended_transactions()
    except CorruptLog as error:
        yield str(error)
        return
    for segment in partition.segments:
        path = segment.path(TRANSACTIONS)
        index = TransactionIndex()
        try:
            if files.exists(path):
                index.load(_content(files, path))
        except MalformedIndex as error:
            yield f"{path}: {error}"
            continue
        known = {entry.last_offset: entry for entry in right.get(segment.base, [])}
        for entry in index.entries:
            expected = known.pop(entry.last_offset, None)
            if expected != entry and partition.segments[0].base == 0 and segment.base >= partition.loose_offset:
                yield f"{path}: {entry} is not so"
        if known and segment.base >= partition.loose_offset:
            yield f"{path}: {len(known)} aborted transactions are missing"
