"""Checkpoints, indexes, compaction, retention, backups and the flushes of segments."""

from __future__ import annotations

from typing import Any

from crc32c import crc32c

from broker.log import backup as backups
from broker.log import batches, cleaner, compaction, remains
from broker.log import checkpoint as checkpoints
from broker.log.checkpoint import Checkpoint
from broker.log.index import OffsetIndex, TimeIndex
from broker.log.journal import Journal
from broker.log.partition import Partition
from broker.log.segment import Segment
from broker.log.store import Group, Store
from tests.fakes.disk import Disk, DiskFile
from tests.torture.log import scenario
from tests.torture.log.mutants.registry import Patch, mutant, without
from tests.torture.log.scenario import TARGET


@mutant
def forget_to_sync_a_partitions_folder(patch: Patch) -> None:
    without(patch, Checkpoint, "_sync", "sync_folder", "")


@mutant
def forget_to_sync_segments_at_a_checkpoint(patch: Patch) -> None:
    without(patch, Checkpoint, "_sync", "datasync", ".log")


@mutant
def forget_to_sync_indexes_at_a_checkpoint(patch: Patch) -> None:
    without(patch, Checkpoint, "_sync", "datasync", "index")


@mutant
def forget_to_sync_producer_snapshots(patch: Patch) -> None:
    without(patch, Checkpoint, "_sync", "datasync", ".producers")


@mutant
def rename_an_unsynced_checkpoint(patch: Patch) -> None:
    def hasty(files: Disk, root: str, state: Any) -> None:
        file = files.open(f"{root}/checkpoint.new", create=True)
        file.truncate(0)
        file.write(0, [checkpoints.pack(state)])
        files.rename(f"{root}/checkpoint.new", f"{root}/checkpoint")
        files.sync_folder(root)

    patch.setattr(checkpoints, "replace", hasty)


@mutant
def drop_the_journal_before_the_checkpoint_is_in_place(patch: Patch) -> None:
    write = Checkpoint.write

    def hasty(self: Checkpoint, records: Any) -> None:
        self._journal.drop_before(self.position["sequence"])
        write(self, records)

    patch.setattr(Checkpoint, "write", hasty)


@mutant
def place_the_checkpoint_after_what_was_captured(patch: Patch) -> None:
    write = Checkpoint.write

    def late(self: Checkpoint, records: Any) -> None:
        self.position = {"sequence": self._journal.sequence, "position": self._journal.position}
        write(self, records)

    patch.setattr(Checkpoint, "write", late)


@mutant
def forget_partitions_whose_deletion_is_not_durable(patch: Patch) -> None:
    def hasty(self: Store, checkpoint: Checkpoint) -> Any:
        return {key: record for key, record in {**self._records, **checkpoint.records}.items() if key in self._parts}

    patch.setattr(Store, "checkpoint_records", hasty)


@mutant
def build_on_a_journal_that_was_only_read(patch: Patch) -> None:
    patch.setattr(remains.Remains, "settle", lambda self: None)


@mutant
def build_on_a_frame_that_only_vouches(patch: Patch) -> None:
    vouch = Journal.vouch

    def trusting(self: Journal) -> None:
        vouch(self)
        self.durable = self.position

    patch.setattr(Journal, "vouch", trusting)


@mutant
def place_the_checkpoint_after_a_frame_that_only_vouches(patch: Patch) -> None:
    complete = Store.complete

    def late(self: Store, group: Group) -> Any:
        moved = complete(self, group)
        self._applied_at["position"] = self._journal.position
        return moved

    patch.setattr(Store, "complete", late)


@mutant
def index_one_offset_too_far(patch: Patch) -> None:
    append = OffsetIndex.append
    patch.setattr(OffsetIndex, "append", lambda self, offset, position: append(self, offset + 1, position))


@mutant
def index_the_wrong_time(patch: Patch) -> None:
    append = TimeIndex.append
    patch.setattr(TimeIndex, "append", lambda self, timestamp, offset: append(self, timestamp + 1, offset))


@mutant
def read_from_the_batch_after(patch: Patch) -> None:
    original = batches.find
    patch.setattr(batches, "find", lambda data, offset: original(data, offset + 1))


@mutant
def compact_away_the_newest(patch: Patch) -> None:
    def stays(self: Any, record: Any, horizon: Any) -> bool:
        return bool(self._newest.get(record.key, -1) != record.offset)

    patch.setattr(compaction._Rewriter, "_stays", stays)


@mutant
def let_aborted_records_supersede(patch: Patch) -> None:
    dropped = compaction._AbortedReader.dropped
    original = compaction._newest

    def blind(partition: Any, segments: Any, newest: Any) -> Any:
        patch.setattr(compaction._AbortedReader, "dropped", lambda self, info: False)
        end = yield from original(partition, segments, newest)
        patch.setattr(compaction._AbortedReader, "dropped", dropped)
        return end

    patch.setattr(compaction, "_newest", blind)


@mutant
def swap_in_an_unsynced_segment(patch: Patch) -> None:
    sync = DiskFile.datasync

    def lazy(self: DiskFile) -> None:
        if not self._path.endswith(".cleaned"):
            sync(self)

    patch.setattr(DiskFile, "datasync", lazy)


@mutant
def compact_what_is_not_stable(patch: Patch) -> None:
    original = compaction._cleanable

    def bold(store: Any, partition: Partition, now: int) -> Any:
        stable, partition.last_stable_offset = partition.last_stable_offset, partition.high_watermark
        found = original(store, partition, now)
        partition.last_stable_offset = stable
        return found

    patch.setattr(compaction, "_cleanable", bold)
    patch.setattr(compaction._AbortedReader, "dropped", lambda self, info: bool(info.attributes & 16))


@mutant
def retain_less_than_was_asked(patch: Patch) -> None:
    retain = cleaner.retain

    def greedy(partition: Partition, now: int) -> None:
        retain(partition, now)
        if len(partition.segments) > 2 and partition.config.delete:
            partition.segments.pop(0)

    patch.setattr(cleaner, "retain", greedy)


@mutant
def believe_the_checkpoint_about_a_segment_that_went(patch: Patch) -> None:
    patch.setattr(remains.Remains, "start_of", lambda self, key: 0)


@mutant
def drop_files_a_running_backup_needs(patch: Patch) -> None:
    lock = Disk.lock

    def free(self: Disk, path: str, *, shared: bool = False) -> Any:
        self.locks.discard(f"/data/{checkpoints.HOLD}")
        return lock(self, path, shared=shared)

    patch.setattr(Disk, "lock", free)


@mutant
def copy_the_journal_of_a_backup_first(patch: Patch) -> None:
    read, journal = backups._checkpoint, backups._journal

    def early(files: Disk, folder: str) -> Any:
        copy = backups._Copy(files, folder, TARGET)
        journal(copy, read(files, folder)["journal"]["sequence"])
        return read(files, folder)

    patch.setattr(backups, "_checkpoint", early)
    patch.setattr(backups, "_journal", lambda copy, sequence: None)
    finish = backups._Copy.finish

    def listed(self: Any, manifest: Any) -> Any:
        for name in self.port.list(TARGET):
            if name.startswith("journal-"):
                data = self.port.open(f"{TARGET}/{name}").read(0, 1 << 30)
                self.files[name] = (len(data), crc32c(data))
        return finish(self, manifest)

    patch.setattr(backups._Copy, "finish", listed)


@mutant
def finish_a_backup_before_it_is_durable(patch: Patch) -> None:
    sync = DiskFile.datasync

    def lazy(self: DiskFile) -> None:
        if not self._path.startswith(TARGET):
            sync(self)

    patch.setattr(DiskFile, "datasync", lazy)


@mutant
def restore_the_checkpoint_first(patch: Patch) -> None:
    def hasty(files: Disk, source: str, folder: str) -> Any:
        listed = backups.check(files, source)
        copy = backups._Copy(files, source, folder)
        copy.file(checkpoints.NAME)
        files.sync_folder(folder)
        files.sync_folder("/")
        for path in listed:
            if "/" in path:
                copy.folder(path.rpartition("/")[0])
            if path != checkpoints.NAME:
                copy.file(path)
        for path in listed:
            files.sync_folder(f"{folder}/{path.rpartition('/')[0]}".rstrip("/"))
        files.sync_folder(folder)

    patch.setattr(scenario, "restore", hasty)


@mutant
def let_go_of_a_tail_before_it_is_written(patch: Patch) -> None:
    waiting = Segment.waiting

    def hasty(self: Segment) -> Any:
        found = waiting(self)
        self.wrote(self.size)
        return found

    patch.setattr(Segment, "waiting", hasty)


@mutant
def let_go_of_what_came_during_a_flush(patch: Patch) -> None:
    wrote = Segment.wrote
    patch.setattr(Segment, "wrote", lambda self, end: wrote(self, self.size))
