"""Taking in what segments hold when the journal or the checkpoint can't say what they should; and telling of it.

Only durable data ever reaches a segment, so what is whole there counts; what is cut is kept beside it; what is still
missing becomes a gap that reads refuse.
"""

from __future__ import annotations

import contextlib

from broker.log import batches
from broker.log.durable import Gap
from broker.log.failures import CorruptLog
from broker.log.files import Files
from broker.log.journal import Kind
from broker.log.partition import Partition, Staged
from broker.log.segment import LOG, Segment, stem


class Salvage:
    """What was done about damage in one opening."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.damage: list[str] = []  # told of, one line each

    def _all(self, partition: Partition, base: int, start: int) -> bytes:
        path = f"{partition.path}/{stem(base)}{LOG}"
        return self._files.open(path).read(start, self._files.size_of(path) - start)

    def saved(self, partition: Partition, base: int, start: int) -> bytes:
        """What a segment holds beyond its checkpoint, put aside before it is cut."""
        data = self._all(partition, base, start)
        self._keep(f"{partition.path}/{stem(base)}{LOG}.salvaged", data)
        return data

    def _keep(self, path: str, data: bytes) -> None:
        """Put bytes that are about to be cut where they can be found."""
        copy = self._files.open(path, create=True)
        copy.write(0, [data])
        copy.datasync()

    def take_tail(self, partition: Partition, base: int, data: bytes) -> None:
        """Take in what a segment holds beyond its checkpoint, as long as it is whole: only durable data is there."""
        first = partition.high_watermark
        at = 0
        with contextlib.suppress(CorruptLog):
            for info in batches.walk(data):
                if info.base_offset < partition.high_watermark:
                    continue
                if info.base_offset != partition.high_watermark or not batches.intact(data, info):
                    break
                roll = at == 0 and base == info.base_offset
                chunk = data[info.position : info.position + info.size]
                partition.replay(Staged(partition, Kind.RECORDS, info.base_offset, chunk, roll=roll))
                at = info.position + info.size
        if partition.high_watermark > first:
            self.damage.append(
                f"{partition.path}: offsets {first} to {partition.high_watermark - 1} taken from the segment"
            )

    def take_segment(self, partition: Partition, base: int) -> None:
        """A segment about which nothing is known: read, checked, kept up to the first bad batch."""
        if not partition.segments:
            partition.begin(start=base)
            partition.segments.clear()
            partition.epochs.clear()
        path = f"{partition.path}/{stem(base)}{LOG}"
        data = self._all(partition, base, 0)
        end, following = 0, base
        with contextlib.suppress(CorruptLog):
            for info in batches.walk(data):
                if info.base_offset < following or not batches.intact(data, info):
                    break
                end, following = info.position + info.size, info.last_offset + 1
                if info.leader_epoch > (partition.epochs[-1][0] if partition.epochs else -1):
                    partition.epochs.append((info.leader_epoch, info.base_offset))
        if end < len(data):
            self.damage.append(f"{path}: bytes {end} to {len(data)} are no batches; kept as {path}.damaged")
            self._keep(f"{path}.damaged", data[end:])
            self._files.open(path).truncate(end)
        if base > partition.high_watermark:
            self.gap(partition, base)
        partition.segments.append(Segment(self._files, partition.path, base, size=end, born=False))
        partition.segments[-1].dirty = True
        partition.high_watermark = following
        partition.epochs = partition.epochs or [(0, base)]
        partition.leader_epoch = partition.epochs[-1][0]

    def gap(self, partition: Partition, until: int) -> None:
        """Records up to `until` are lost: reads there are refused, the log goes on after them."""
        why = f"{partition.path}: offsets {partition.high_watermark} to {until - 1} are lost to corruption"
        self.damage.append(why)
        partition.gaps.append(Gap(partition.high_watermark, until, why))
        partition.high_watermark = until
        partition.settle_stable()

    def hole(self, partition: Partition) -> None:
        """The first segments are missing."""
        start, end = partition.log_start_offset, partition.segments[0].base
        why = f"{partition.path}: offsets {start} to {end - 1} are gone with their segment"
        self.damage.append(why)
        if Gap(start, end, why) not in partition.gaps:
            partition.gaps.append(Gap(start, end, why))
