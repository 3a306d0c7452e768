"""Compaction: of each key the newest record stays, at its offset (`cleanup.policy=compact`).

Rules, Kafka's. Only closed segments are touched, and only such as are synced, older than `min.compaction.lag.ms`, and
before the first open transaction. A batch keeps its offsets whatever is taken out of it. Records of aborted
transactions go. A tombstone (null value), and a marker whose transaction has no records left, is first given
a delete horizon (`delete.retention.ms` from now, KIP-534) and goes in a later round once that has passed. An
empty batch stays if it is the last thing known of a producer, so that its sequence is.

Crash safety. A LOOSE entry in the journal says first that offsets may be missing. Each segment is rewritten into
`<base>.log.cleaned`, synced, and renamed over the old file; before that its indexes are removed, so that a segment
never stands beside indexes of other bytes (missing ones are rebuilt). Small neighbours are merged: `<base>.merge`,
durable before the rename, names the segments the new file swallows, its size and its CRC, so that recovery
knows whether to remove them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from broker.log.batches import CONTROL, DELETE_HORIZON, TRANSACTIONAL, Info
from broker.log.checkpoint import HOLD
from broker.log.files import Files
from broker.log.partition import Partition
from broker.log.segment import LOG, RELATIVE_MAX, SUFFIXES, Segment, stem
from broker.wire import batch as wire

if TYPE_CHECKING:
    from broker.log.store import Store

CLEANED: Final = ".log.cleaned"
MERGE: Final = ".merge"
_KEYS: Final = 1_000_000  # a round's map holds no more
_KEY_BYTES: Final = 64 << 20
_STEP_BYTES: Final = 256 << 10


def compact(store: Store, partition: Partition, now: int) -> Iterator[None]:
    """One round over a partition, if enough of it is dirty."""
    segments = _cleanable(store, partition, now)
    if not segments or not _due(partition, segments, now):
        return
    if partition.loose_offset <= partition.cleaned_offset:
        # first the word that offsets may be missing below, durable by the next round; then the deed
        partition.stage_loose(partition.segments[len(segments)].base)
        return
    segments = [segment for segment in segments if segment.base < partition.loose_offset]
    if not segments or segments[-1].base < partition.cleaned_offset:  # retention was quicker
        partition.cleaned_offset = partition.loose_offset
        return
    newest: dict[bytes, int] = {}
    end = yield from _newest(partition, segments, newest)
    cleaned = [segment for segment in segments if segment.base < end]
    rewriter = _Rewriter(partition, newest, now)
    for run in _runs(cleaned, partition.config.segment_bytes):
        done = yield from _rewrite(store, partition, run, rewriter)
        if partition.deleted or not done:
            return
    partition.cleaned_offset = end
    partition.dirty = True
    store.note_change()


def _cleanable(store: Store, partition: Partition, now: int) -> list[Segment]:
    """The closed, synced, settled, old enough segments, from the first on."""
    synced = store.synced_segments.get((partition.topic_id, partition.index), 0)
    lag = partition.config.min_compaction_lag_ms
    out: list[Segment] = []
    for slot, segment in enumerate(partition.segments[:-1]):
        segment.load_indexes()
        end = partition.segments[slot + 1].base
        young = lag > 0 and segment.max_timestamp > now - lag
        if segment.dirty or segment.base >= synced or end > partition.last_stable_offset or young:
            break
        out.append(segment)
    return out


def _due(partition: Partition, segments: Sequence[Segment], now: int) -> bool:
    config = partition.config
    dirty = [segment for segment in segments if segment.base >= partition.cleaned_offset]
    if not dirty:
        return False
    total = sum(segment.size for segment in segments) or 1
    ratio = sum(segment.size for segment in dirty) / total
    waited = dirty[0].first_timestamp >= 0 and now - dirty[0].first_timestamp > config.max_compaction_lag_ms
    return ratio >= config.min_cleanable_dirty_ratio or waited


def _newest(partition: Partition, segments: Sequence[Segment], newest: dict[bytes, int]) -> Generator[None, None, int]:
    """Fill the map from key to newest offset over the dirty segments; gives the offset up to which it is whole."""
    held = read = 0
    aborted = _AbortedReader(partition)
    for segment in segments:
        if segment.base < partition.cleaned_offset:
            continue
        if len(newest) > _KEYS or held > _KEY_BYTES:
            return segment.base
        for info, data in segment.infos():
            read += info.size
            if read > _STEP_BYTES:
                read = 0
                yield
            if info.attributes & CONTROL or aborted.dropped(info):
                continue
            for record in wire.records(_batch(data, info)):
                if record.key is not None:
                    held += 0 if record.key in newest else len(record.key)
                    newest[record.key] = record.offset
    return partition.segments[len(segments)].base


def _batch(data: bytes, info: Info) -> wire.Batch:
    return wire.split(memoryview(data)[info.position : info.position + info.size])[0]


def _runs(segments: Sequence[Segment], limit: int) -> Iterator[list[Segment]]:
    """Neighbours that fit one segment together."""
    run: list[Segment] = []
    size = 0
    for segment in segments:
        if run and (size + segment.size > limit or segment.base - run[0].base > RELATIVE_MAX // 2):
            yield run
            run, size = [], 0
        run.append(segment)
        size += segment.size
    if run:
        yield run


class _AbortedReader:
    """Which batches belong to aborted transactions, walking the log in order."""

    def __init__(self, partition: Partition) -> None:
        self._coming = sorted(partition.aborted_transactions(), key=lambda entry: entry.first_offset)
        self._at = 0
        self._running: dict[int, int] = {}  # producer -> last offset of its aborted transaction

    def dropped(self, info: Info) -> bool:
        """Whether this batch's records are an aborted transaction's."""
        while self._at < len(self._coming) and self._coming[self._at].first_offset <= info.last_offset:
            entry = self._coming[self._at]
            self._running[entry.producer_id] = entry.last_offset
            self._at += 1
        if not info.attributes & TRANSACTIONAL or info.attributes & CONTROL:
            return False
        return info.base_offset <= self._running.get(info.producer_id, -1)


class _Rewriter:
    """Decides what stays of each batch, over a whole round."""

    def __init__(self, partition: Partition, newest: dict[bytes, int], now: int) -> None:
        self._newest = newest
        self._now = now
        self._horizon = now + partition.config.delete_retention_ms
        self._aborted = _AbortedReader(partition)
        self._last_of_producers = {state.sent[-1].last_offset for state in partition.states().values() if state.sent}
        self._alive: set[int] = set()  # producers whose running transaction has records left

    def kept(self, data: bytes, info: Info) -> bytes | None:
        """The bytes that stand for this batch from now on; None when nothing does."""
        whole = data[info.position : info.position + info.size]
        dropped = self._aborted.dropped(info)
        if info.attributes & CONTROL:
            return self._marker(whole, info)
        batch = wire.split(whole)[0]
        records = list(wire.records(batch))
        horizon = info.base_timestamp if info.attributes & DELETE_HORIZON else None
        staying = [] if dropped else [record for record in records if self._stays(record, horizon)]
        if staying and info.attributes & TRANSACTIONAL:
            self._alive.add(info.producer_id)
        if not staying and info.last_offset not in self._last_of_producers:
            return None
        if horizon is None and any(record.value is None for record in staying):
            horizon = self._horizon
        elif len(staying) == len(records):
            return whole
        return self._built(batch, info, staying, horizon)

    def _stays(self, record: wire.Record, horizon: int | None) -> bool:
        if record.key is None or self._newest.get(record.key, -1) > record.offset:
            return False
        return record.value is not None or horizon is None or self._now < horizon

    def _marker(self, whole: bytes, info: Info) -> bytes | None:
        if info.producer_id in self._alive:
            self._alive.discard(info.producer_id)
            return whole
        if not info.attributes & DELETE_HORIZON:
            batch = wire.split(whole)[0]
            return self._built(batch, info, list(wire.records(batch)), self._horizon)
        return whole if self._now < info.base_timestamp else None

    def _built(self, batch: wire.Batch, info: Info, records: list[wire.Record], horizon: int | None) -> bytes:
        return wire.build(
            records,
            base_offset=info.base_offset,
            last_offset=info.last_offset,
            leader_epoch=info.leader_epoch,
            compression=batch.compression,
            producer_id=info.producer_id,
            producer_epoch=info.producer_epoch,
            base_sequence=info.base_sequence,
            transactional=bool(info.attributes & TRANSACTIONAL),
            control=bool(info.attributes & CONTROL),
            append_time=info.max_timestamp if batch.log_append_time else None,
            delete_horizon=horizon,
        )


def _rewrite(
    store: Store, partition: Partition, run: list[Segment], rewriter: _Rewriter
) -> Generator[None, None, bool]:
    """Put one cleaned segment in the place of a run of them. False if that can't be now.

    Then nothing behind may be cleaned either: a marker or tombstone there still counts for what stays here.
    """
    files, first = store.files, run[0]
    path = f"{partition.path}/{stem(first.base)}"
    out = files.open(path + CLEANED, create=True)
    out.truncate(0)
    size = read = crc = 0
    same = len(run) == 1
    for segment in run:
        for info, data in segment.infos():
            kept = rewriter.kept(data, info)
            if kept is not None:
                same = same and kept == data[info.position : info.position + info.size]
                out.write(size, [kept])
                crc = crc32c(kept, crc)
                size += len(kept)
            else:
                same = False
            read += info.size
            if read > _STEP_BYTES:
                read = 0
                yield
    there = not partition.buried and all(segment in partition.segments for segment in run)
    if same or not there:
        with contextlib.suppress(OSError):
            files.remove(path + CLEANED)
        return there
    hold = files.lock(f"{store.folder}/{HOLD}")
    if hold is None:  # a backup is copying these files
        files.remove(path + CLEANED)
        return False
    try:
        if not size and run[0] is not partition.segments[0]:
            _remove(files, partition, run)
            return True
        out.datasync()
        _swap(files, partition, run, size, crc)
        _take_over(files, partition, run, size)
    finally:
        hold.release()
    yield
    return True


def _remove(files: Files, partition: Partition, run: list[Segment]) -> None:
    """Nothing is left of them."""
    files.remove(run[0].path(CLEANED))
    slot = partition.segments.index(run[0])
    partition.replace_segments(slot, len(run), [])
    for segment in run:
        segment.remove()


def _swap(files: Files, partition: Partition, run: list[Segment], size: int, crc: int) -> None:
    """The cleaned file takes the place of the run's, whatever happens in between."""
    first = run[0]
    if len(run) > 1:
        note = files.open(first.path(MERGE), create=True)
        about = {"v": 1, "size": size, "crc": crc, "swallows": [segment.base for segment in run[1:]]}
        note.truncate(0)
        note.write(0, [json.dumps(about).encode()])
        note.datasync()
    for suffix in SUFFIXES[1:]:
        files.remove(first.path(suffix))
    files.sync_folder(partition.path)
    files.rename(first.path(CLEANED), first.path(LOG))
    files.sync_folder(partition.path)
    for segment in run[1:]:
        segment.remove()
    files.sync_folder(partition.path)
    files.remove(first.path(MERGE))


def _take_over(files: Files, partition: Partition, run: list[Segment], size: int) -> None:
    """The partition goes on with the new segment; its indexes are written with the next checkpoint.

    Its transaction index is empty: no record of a transaction that was aborted in it is left, here or before.
    """
    fresh = Segment(files, partition.path, run[0].base, size=size)
    fresh.rebuild_indexes(partition.config.index_interval_bytes)
    fresh.seal()
    fresh.dirty = True
    slot = partition.segments.index(run[0])
    partition.replace_segments(slot, len(run), [fresh])


def finish_merges(files: Files, folder: str, names: Sequence[str]) -> None:
    """Merges that a crash cut short: finish those whose file is in place, forget the others."""
    for name in names:
        if not name.endswith(MERGE):
            continue
        path = f"{folder}/{name}"
        # a torn note: its rename never happened; no log: retention took it since
        with contextlib.suppress(ValueError, KeyError, FileNotFoundError):
            about = json.loads(files.open(path).read(0, files.size_of(path)))
            log = f"{folder}/{name.removesuffix(MERGE)}{LOG}"
            size = files.size_of(log)
            if size == about["size"] and crc32c(files.open(log).read(0, size)) == about["crc"]:
                for base in about["swallows"]:
                    for suffix in SUFFIXES:
                        files.remove(f"{folder}/{stem(int(base))}{suffix}")
        files.sync_folder(folder)
        files.remove(path)
