"""Upkeep: retention by time and size, compaction, removal of deleted partitions' files.

Everything is done in small steps (generators), so that the owner's thread is never held for long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.log.compaction import compact
from broker.log.partition import Partition

if TYPE_CHECKING:
    from broker.log.store import Store


def maintain(store: Store, doomed: list[str], now: int) -> Iterator[None]:
    """One round over everything."""
    for partition in store.partitions():  # a copy: they may come and go between steps
        if partition.config.delete and not partition.deleted:
            retain(partition, now)
            yield
        if partition.config.compact and not partition.deleted:
            yield from compact(store, partition, now)
    while doomed:
        yield from _remove_folder(store, doomed.pop())


def retain(partition: Partition, now: int) -> None:
    """Move the log's start past the segments that retention gives up; their files go once that is durable."""
    config = partition.config
    segments = partition.segments
    total = sum(segment.size for segment in segments)
    start = -1
    for slot, segment in enumerate(segments):
        segment.load_indexes()
        last = slot + 1 == len(segments)
        expired = config.retention_ms >= 0 and 0 <= segment.max_timestamp < now - config.retention_ms
        too_large = 0 <= config.retention_bytes <= total - segment.size
        if not segment.size or not (expired or too_large):
            break
        if last:
            if not expired or partition.log_end_offset != partition.high_watermark:
                break
            partition.stage_roll()
            start = partition.high_watermark
            break
        total -= segment.size
        start = segments[slot + 1].base
    if start > partition.log_start_offset:
        partition.delete_records_before(min(start, partition.high_watermark))


def _remove_folder(store: Store, name: str) -> Iterator[None]:
    path = f"{store.folder}/{name}"
    for entry in store.files.list(path):
        store.files.remove(f"{path}/{entry}")
        yield
    with contextlib.suppress(FileNotFoundError):
        store.files.remove_folder(path)
