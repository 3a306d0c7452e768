"""Ways to break the log, each a small change of the real code. The crash simulator must see every one of them.

Some are classics (acknowledge before the fsync), some are mistakes that were really made while it was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from crc32c import crc32c

from broker.log import backup as backups
from broker.log import batches, cleaner, compaction, producers, recovery, remains
from broker.log import checkpoint as checkpoints
from broker.log import journal as journals
from broker.log.checkpoint import Checkpoint
from broker.log.index import OffsetIndex, TimeIndex, TransactionIndex
from broker.log.journal import FRAME_HEADER, Frame, Journal, Kind
from broker.log.partition import Partition
from broker.log.segment import Segment
from broker.log.store import Group, Store
from tests.fakes.disk import Disk, DiskFile
from tests.torture.log import scenario
from tests.torture.log.scenario import TARGET

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}
COMPACTION: dict[str, Any] = {"topics": ("compact",), "focus": {"_maintain": 12, "_end_transaction": 10, "_delete": 0}}
BACKUPS: dict[str, Any] = {"focus": {"_backup": 40, "_maintain": 10}}
# What to do more of where a mistake shows only in a rare corner.
FOCUS: dict[str, dict[str, Any]] = {
    "believe_a_torn_frame": {"batch": 60, "focus": {"_append": 60, "_group": 40, "_backup": 0, "_flush": 0}},
    "compact_away_the_newest": COMPACTION,
    "compact_what_is_not_stable": COMPACTION,
    "let_aborted_records_supersede": {
        "topics": ("compact",),
        "keys": 90,
        "focus": {"_end_transaction": 70, "_maintain": 15, "_delete": 0, "_delete_records": 0, "_create": 1},
    },
    "swap_in_an_unsynced_segment": COMPACTION,
    "retain_less_than_was_asked": {"topics": ("plain",), "focus": {"_maintain": 15}},
    "drop_files_a_running_backup_needs": BACKUPS,
    "copy_the_journal_of_a_backup_first": BACKUPS,
    "believe_the_checkpoint_about_a_segment_that_went": {"topics": ("plain",), "focus": {"_delete_records": 25}},
    "finish_a_backup_before_it_is_durable": BACKUPS,
    "restore_the_checkpoint_first": BACKUPS,
    "forget_partitions_whose_deletion_is_not_durable": {"focus": {"_delete": 20, "_create": 20, "_group": 15}},
}


def mutant(break_it: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS[break_it.__name__] = break_it
    return break_it


def _without(patch: Patch, target: type, name: str, what: str, where: str) -> None:
    """Inside `target.name`, the disk's `what` on paths that contain `where` does nothing."""
    inside: list[bool] = []
    original = getattr(target, name)

    def entered(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside.append(True)
        try:
            return original(self, *args, **kwargs)
        finally:
            inside.pop()

    patch.setattr(target, name, entered)
    if what == "datasync":
        sync = DiskFile.datasync

        def maybe_sync(self: DiskFile) -> None:
            if not (inside and where in self._path):
                sync(self)

        patch.setattr(DiskFile, "datasync", maybe_sync)
    else:
        folder = Disk.sync_folder

        def maybe_folder(self: Disk, path: str) -> None:
            if not inside:
                folder(self, path)

        patch.setattr(Disk, "sync_folder", maybe_folder)


@mutant
def acknowledge_before_the_fsync(patch: Patch) -> None:
    def sync(self: Journal) -> None:
        self.durable = self.position

    patch.setattr(Journal, "sync", sync)


@mutant
def drop_a_batch_on_its_way_to_the_segment(patch: Patch) -> None:
    append = Segment.append

    def lossy(self: Segment, data: bytes, base: int, infos: Any, interval: int) -> None:
        if base % 11 != 5:
            append(self, data, base, infos, interval)

    patch.setattr(Segment, "append", lossy)


@mutant
def drop_an_entry_on_its_way_to_the_journal(patch: Patch) -> None:
    write = Group.write

    def lossy(self: Group) -> None:
        whole = self.staged
        self.staged = [staged for staged in whole if staged.position % 13 or staged.kind != Kind.RECORDS] or whole
        write(self)
        self.staged = whole

    patch.setattr(Group, "write", lossy)


@mutant
def append_a_repeated_batch_again(patch: Patch) -> None:
    patch.setattr(producers, "repeated", lambda *args: None)
    patch.setattr(producers, "_check", lambda *args: None)


@mutant
def swap_the_order_in_a_group(patch: Patch) -> None:
    write = Group.write

    def swapped(self: Group) -> None:
        whole = self.staged
        self.staged = whole[::-1]
        write(self)
        self.staged = whole

    patch.setattr(Group, "write", swapped)


@mutant
def give_an_offset_twice(patch: Patch) -> None:
    append = Partition.append

    def twice(self: Partition, batches: Any, now: int, **kwargs: Any) -> Any:
        if self.log_end_offset > 20 and now % 7 == 0:
            self.log_end_offset -= 1
        return append(self, batches, now, **kwargs)

    patch.setattr(Partition, "append", twice)


@mutant
def move_the_high_watermark_before_it_is_durable(patch: Patch) -> None:
    stage = Partition._stage_records

    def early(self: Partition, *args: Any, **kwargs: Any) -> int:
        position = stage(self, *args, **kwargs)
        self.high_watermark = self.log_end_offset
        return position

    patch.setattr(Partition, "_stage_records", early)


@mutant
def let_read_committed_see_open_transactions(patch: Patch) -> None:
    def high(self: Partition) -> None:
        self.last_stable_offset = self.high_watermark

    patch.setattr(Partition, "settle_stable", high)


@mutant
def skip_the_replay_of_the_journal(patch: Patch) -> None:
    patch.setattr(recovery._Recovery, "_replay", lambda self, found: None)


@mutant
def replay_no_deletion(patch: Patch) -> None:
    patch.setattr(recovery._Recovery, "_delete", lambda self, key, partition: None)


@mutant
def replay_no_move_of_the_start(patch: Patch) -> None:
    replay = Partition.replay

    def deaf(self: Partition, staged: Any) -> None:
        if staged.kind != Kind.START:
            replay(self, staged)

    patch.setattr(Partition, "replay", deaf)


@mutant
def forget_the_producers_at_a_restart(patch: Patch) -> None:
    resume = Partition.resume
    patch.setattr(Partition, "resume", lambda self, states: resume(self, {}))


@mutant
def remember_one_batch_of_a_producer(patch: Patch) -> None:
    patch.setattr(producers, "REMEMBERED", 1)
    follow = producers.follow

    def short(state: Any, **kwargs: Any) -> Any:
        return follow(state, **kwargs)._replace(sent=follow(state, **kwargs).sent[-1:])

    patch.setattr(producers, "follow", short)


@mutant
def forget_aborted_transactions(patch: Patch) -> None:
    patch.setattr(TransactionIndex, "append", lambda self, entry: None)


@mutant
def lose_the_transaction_index_at_a_checkpoint(patch: Patch) -> None:
    patch.setattr(TransactionIndex, "dump", lambda self, start=0: b"")


@mutant
def keep_what_lies_beyond_the_checkpoint(patch: Patch) -> None:
    def keep(self: Any, partition: Partition, base: int, size: int, tails: Any) -> int:
        return int(self._files.size_of(f"{partition.path}/{base:020d}.log"))

    patch.setattr(recovery._Recovery, "_trim", keep)


@mutant
def believe_a_torn_frame(patch: Patch) -> None:
    def gullible(data: Any, at: int, base: int, sequence: int, salt: int | None) -> Frame | None:
        if len(data) - at < FRAME_HEADER.size:
            return None
        magic, _, size, entries, seq, position, durable, _ = FRAME_HEADER.unpack_from(data, at)
        end = at + FRAME_HEADER.size + size
        if magic != journals.FRAME_MAGIC or seq != sequence or position != base + at or end > len(data):
            return None
        return Frame(position, base + end, durable, entries, memoryview(data)[at + FRAME_HEADER.size : end])

    patch.setattr(journals, "parse_frame", gullible)


@mutant
def believe_frames_of_a_recycled_file(patch: Patch) -> None:
    def gullible(data: Any, at: int, base: int, sequence: int, salt: int | None) -> Frame | None:
        if len(data) - at < FRAME_HEADER.size:
            return None
        magic, _, size, entries, _, _, durable, _ = FRAME_HEADER.unpack_from(data, at)
        end = at + FRAME_HEADER.size + size
        if magic != journals.FRAME_MAGIC or end > len(data):
            return None
        return Frame(base + at, base + end, durable, entries, memoryview(data)[at + FRAME_HEADER.size : end])

    patch.setattr(journals, "parse_frame", gullible)


@mutant
def write_a_group_in_two_frames(patch: Patch) -> None:
    write = Journal.write

    def split(self: Journal, buffers: Any, entries: int) -> None:
        if entries < 2:
            write(self, buffers, entries)
            return
        first = 2 if len(buffers) > 1 and len(buffers[1]) != len(buffers[0]) else 1
        write(self, buffers[:first], 1)
        write(self, buffers[first:], entries - 1)

    patch.setattr(Journal, "write", split)


@mutant
def forget_to_sync_the_folder_of_a_new_journal_file(patch: Patch) -> None:
    _without(patch, Journal, "_rotate", "sync_folder", "")


@mutant
def forget_to_sync_a_partitions_folder(patch: Patch) -> None:
    _without(patch, Checkpoint, "_sync", "sync_folder", "")


@mutant
def forget_to_sync_segments_at_a_checkpoint(patch: Patch) -> None:
    _without(patch, Checkpoint, "_sync", "datasync", ".log")


@mutant
def forget_to_sync_indexes_at_a_checkpoint(patch: Patch) -> None:
    _without(patch, Checkpoint, "_sync", "datasync", "index")


@mutant
def forget_to_sync_producer_snapshots(patch: Patch) -> None:
    _without(patch, Checkpoint, "_sync", "datasync", ".producers")


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
