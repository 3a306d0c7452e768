"""The store: every partition of one data folder, behind one journal.

A group's life: partitions `stage` entries; `take_group` closes a group (one at a time is out); `Group.write` puts it in
the journal and syncs it, in whatever thread; `complete` applies it, or takes everything staged back. The shell
(broker.server.commit) drives this; `settle` does it all at once for tests and tools.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from broker.log import cleaner, recovery
from broker.log.checkpoint import Checkpoint, Record
from broker.log.config import LogConfig
from broker.log.durable import DurableLog
from broker.log.failures import (
    PartitionExists,
    StorageFailure,
    StorageFatal,
    StorageFull,
    StorageUnwritable,
    StoreClosed,
    UnknownPartition,
)
from broker.log.files import Files, Lock, RealFiles, make_root, take_folder
from broker.log.flush import Flush
from broker.log.group import Group
from broker.log.health import Health, Recovery, Trouble, failure_from
from broker.log.journal import Journal, Kind
from broker.log.partition import Partition, Staged
from broker.log.segment import TAIL_BYTES, Segment

__all__ = ["Group", "Health", "Recovery", "Store", "StoreConfig"]

_GROUP_BYTES: Final = 8 << 20  # a larger one makes everybody wait, and falls out of every cache
_MANY_FILES: Final = 3
_SETTLE_MS: Final = 5000
DELETED: Final = ".deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """What the store does with the disk; defaults for a server."""

    journal_file_bytes: int = 64 << 20
    checkpoint_bytes: int = 256 << 20
    checkpoint_entries: int = 100_000
    checkpoint_ms: int = 30_000
    tail_bytes: int = 16 << 20  # memory for batches that wait to be written to their segments
    min_free_bytes: int = 16 << 20  # applications' records are refused below this, so that deleting still works
    producer_expiration_ms: int = 24 * 60 * 60 * 1000


class Store:
    """Every partition under one folder. Owned by one thread; make it with `Store.open`."""

    def __init__(self, folder: str, files: Files, config: StoreConfig, salt: Callable[[], int]) -> None:
        self.folder = folder
        self.files = files
        self.config = config
        self.on_staged: Callable[[], None] | None = None  # called at the first append after `take_group`
        self.position = 0  # of the newest staged entry
        self.durable = 0  # every entry up to here is applied
        self.recovery: Recovery
        self._salt = salt
        self._parts: dict[tuple[bytes, int], Partition] = {}
        self._leaving: dict[tuple[bytes, int], Partition] = {}  # their deletion is staged and not yet durable
        self._folders: set[str] = set()
        self._records: dict[tuple[bytes, int], Record] = {}  # the newest checkpoint's
        self._staged: list[Staged] = []
        self._out: Group | None = None
        self._journal: Journal
        self._lock: Lock | None = None
        self._waiting: dict[DurableLog, None] = {}  # their tails are to be written
        self._tails = 0  # bytes applied since the last flush of everything
        self._room = 0  # bytes of free space at the last look, less what was staged since
        self._flush: Flush | None = None  # the one that is out
        self._since_bytes = 0
        self._since_entries = 0
        self._since_time = 0
        self._checkpoint: Checkpoint | None = None
        self._checkpoint_again = 0
        self._applied_at: dict[str, int] = {}
        self._trouble = Trouble()
        self._closed = False
        self._doomed: list[str] = []  # folders of deleted partitions

    # -- opening

    @classmethod
    def open(
        cls,
        folder: str,
        now: int,
        *,
        files: Files | None = None,
        config: StoreConfig | None = None,
        salt: Callable[[], int] | None = None,
    ) -> Store:
        """Open (making it if need be) and recover. `now` in ms. Raises FolderInUse, UnknownFormat, StorageFailure."""
        files = files or RealFiles()
        store = cls(folder, files, config or StoreConfig(), salt or (lambda: int.from_bytes(os.urandom(8), "big")))
        make_root(files, folder)
        store._lock = take_folder(files, folder)
        try:
            found = recovery.recover(store, files, folder, store.config.journal_file_bytes, store._salt)
            store._parts = found.partitions
            store._folders = {part.folder for part in store._parts.values()}
            store._records = found.records
            store._journal = found.journal
            store._applied_at = {"sequence": found.journal.sequence + 1, "position": found.journal.position}
            store._doomed = list(found.doomed)
            store._trouble.damaged(found.damage)
            store._since_entries, store._since_bytes, store._since_time = found.entries, found.bytes, now
            if not found.clean:
                # at the next look: a process that crashes again and again must not replay more and more
                store._since_time = now - store.config.checkpoint_ms
            store.recovery = Recovery(
                clean=found.clean,
                partitions=len(store._parts),
                replayed_entries=found.entries,
                replayed_bytes=found.bytes,
                cut_bytes=found.cut_bytes,
                damage=tuple(found.damage),
            )
            if found.entries:
                # soon after it serves, so that the next start reads less
                store._since_time = now - store.config.checkpoint_ms + min(_SETTLE_MS, store.config.checkpoint_ms)
            if not found.clean:
                for partition in store._parts.values():
                    if partition.dirty:
                        partition.stage_epoch(partition.leader_epoch + 1)
                store.settle()
            if found.files >= _MANY_FILES:  # one unclean start after another: not once more
                with contextlib.suppress(StorageFailure):
                    store.checkpoint(now)
        except OSError as error:
            store._lock.release()
            raise StorageUnwritable(f"{folder} can't be opened: {error}") from error
        except BaseException:
            store._lock.release()
            raise
        return store

    # -- partitions

    def create(self, topic: str, topic_id: bytes, index: int, config: LogConfig) -> Partition:
        """Make a partition; durable with the next group, in order with appends. Raises PartitionExists."""
        self.admit(records=False)
        if (topic_id, index) in self._parts:
            raise PartitionExists(f"{topic}-{index} is in the store already")
        folder = f"{topic}-{index}"
        if folder in self._folders or self.files.exists(f"{self.folder}/{folder}"):
            folder = f"{topic_id.hex()}-{index}"
        partition = self._new(topic, topic_id, index, folder, config)
        partition.begin()
        try:
            make_folder(self.files, partition)
        except OSError as error:
            raise failure_from(error) from error
        self._parts[topic_id, index] = partition
        self._folders.add(folder)
        self.stage(Staged(partition, Kind.CREATE, 0, partition.creation()))
        return partition

    def _new(self, topic: str, topic_id: bytes, index: int, folder: str, config: LogConfig) -> Partition:
        return Partition(
            self, self.files, self.folder, topic=topic, topic_id=topic_id, index=index, folder=folder, config=config
        )

    def delete(self, topic_id: bytes, index: int) -> int:
        """Delete a partition; gives the journal position. Its files go in the background, a crash half-way included."""
        self.admit(records=False)
        partition = self.partition(topic_id, index)
        partition.deleted = True
        self._leaving[topic_id, index] = self._parts.pop((topic_id, index))
        return self.stage(Staged(partition, Kind.DELETE, 0))

    def partition(self, topic_id: bytes, index: int) -> Partition:
        """That partition. Raises UnknownPartition."""
        try:
            return self._parts[topic_id, index]
        except KeyError:
            raise UnknownPartition from None

    def partitions(self) -> Iterable[Partition]:
        """All of them."""
        return list(self._parts.values())

    # -- the partitions' side (Stager)

    def admit(self, *, records: bool) -> None:
        """Raise StorageFull (of applications' records only), StorageFatal, StoreClosed when nothing can be staged."""
        if self._closed:
            raise StoreClosed
        if self._trouble.fatal:
            raise StorageFatal(self._trouble.fatal)
        if records and self._room < self.config.min_free_bytes:
            self._look_for_space()
        problems = self._trouble.problems
        if records and problems:
            if "space" in problems:
                raise StorageFull(problems["space"])
            if "segment" in problems and self._tails > 4 * self.config.tail_bytes:
                raise StorageFull(problems["segment"])

    def stage(self, staged: Staged) -> int:
        """Put it in the journal's order; gives its position."""
        self._room -= 2 * len(staged.data)  # in the journal and in its segment
        self.position += 1
        staged.position = self.position
        self._staged.append(staged)
        if len(self._staged) == 1 and self.on_staged is not None:
            self.on_staged()
        return self.position

    def grew(self, log: DurableLog) -> None:
        """A tail has grown large enough to be written."""
        self._waiting[log] = None

    def damaged(self, what: str) -> None:
        """Corruption was found; tell of it until the process ends."""
        self._trouble.damaged([what])

    # -- groups

    def take_group(self) -> Group | None:
        """Close the group of what is staged; None when there is nothing, or a group is still out."""
        if self._out is not None or not self._staged:
            return None
        staged, total, count = self._staged, 0, 0
        for entry in staged:
            total += len(entry.data)
            count += 1
            if total > _GROUP_BYTES:
                break
        self._staged = staged[count:]
        self._out = Group(self._journal, staged[:count])
        return self._out

    @property
    def pending(self) -> bool:
        """Whether something is staged and in no group yet."""
        return bool(self._staged)

    @property
    def writing(self) -> bool:
        """Whether a group is out."""
        return self._out is not None

    def complete(self, group: Group, *, write: bool = True) -> dict[Partition, None]:
        """Apply a written group; gives the partitions whose high watermark moved. A failure takes all staged back.

        `write`: tails that are due go to their segments here; without, the caller sees to it (`begin_flush`).
        """
        self._out = None
        if group.error is not None:
            self._revert(group)
            return {}
        self._trouble.healed("journal")
        moved: dict[Partition, None] = {}
        size = 0
        for staged in group.staged:
            partition = staged.partition
            partition.apply(staged)
            size += len(staged.data)
            if staged.kind == Kind.RECORDS:
                moved[partition] = None
            elif staged.kind == Kind.DELETE:
                self._bury(partition)
            elif staged.kind == Kind.START:
                self._remove(partition.drop_segments())
        self.durable = group.position
        # not the journal's `position`: a frame that only vouches may be behind it, and the next file begins before that
        self._applied_at = {"sequence": self._journal.sequence, "position": self._journal.durable}
        self._since_bytes += size
        self._since_entries += len(group.staged)
        self._tails += size + 250 * len(group.staged)
        if write:
            self.flush()
        return moved

    def settle(self) -> None:
        """Make everything staged durable, here and now. Raises the failure if that can't be."""
        while (group := self.take_group()) is not None:
            group.write()
            self.complete(group)
            failure = self.failure_of(group.position)
            if failure is not None:
                raise failure

    def failure_of(self, position: int) -> StorageFailure | None:
        """Why that position never became durable; None when nothing of the kind is known."""
        return self._trouble.failure_of(position)

    def _revert(self, group: Group) -> None:
        error = group.error
        assert error is not None
        trouble = self._trouble
        if group.fatal:
            trouble.fatal = f"fdatasync of the journal failed ({error.strerror}): no acknowledgement until a restart"
            failure: StorageFailure = StorageFatal(trouble.fatal)
        else:
            failure = failure_from(error)
            trouble.problems["journal"] = str(failure)
        undone = group.staged + self._staged
        self._staged = []
        trouble.lost(self.durable + 1, self.position, failure)
        for partition in {staged.partition for staged in undone}:
            partition.revert()
        for staged in reversed(undone):
            if staged.kind == Kind.CREATE:
                self._parts.pop((staged.partition.topic_id, staged.partition.index), None)
                staged.partition.deleted = True
                self._bury(staged.partition)
            elif staged.kind == Kind.DELETE and staged.partition.segments:
                staged.partition.deleted = False
                key = staged.partition.topic_id, staged.partition.index
                self._parts[key] = self._leaving.pop(key)

    def _bury(self, partition: Partition) -> None:
        """A deleted partition: out of the way at once, removed later."""
        partition.deleted = partition.buried = True
        self._leaving.pop((partition.topic_id, partition.index), None)
        self._records.pop((partition.topic_id, partition.index), None)
        self._waiting.pop(partition, None)
        name = f"{partition.topic_id.hex()}-{partition.index}{DELETED}"
        with contextlib.suppress(OSError):
            self.files.rename(partition.path, f"{self.folder}/{name}")
            self._doomed.append(name)
        self._folders.discard(partition.folder)
        partition.segments = partition.segments[-1:]

    def _remove(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            with contextlib.suppress(OSError):  # what stays is swept away when the store opens
                segment.remove()

    # -- segments and checkpoints

    def begin_flush(self, *, everything: bool = False) -> Flush | None:
        """The tails that are due: the large ones, or all when they take much memory. None: no need, or one is out.

        `Flush.write` puts them in their segments, in whatever thread; then `finish_flush`.
        """
        everything = everything or self._tails > self.config.tail_bytes
        if self._flush is not None or not (everything or self._waiting):
            return None
        targets: list[DurableLog] = list(self._waiting)
        if everything:
            targets = [part for part in self._parts.values() if part.dirty]
        self._flush = Flush(targets, covers=self._tails if everything else 0)
        return self._flush

    def finish_flush(self, flush: Flush) -> None:
        """It was written, or failed: then what it left is tried again at the next look."""
        self._flush = None
        flush.settle()
        if flush.error is not None:
            self._trouble.problems["segment"] = f"a segment can't be written: {flush.error.strerror}"
            return
        for partition in flush.partitions:
            if not any(segment.tail_bytes >= TAIL_BYTES for segment in partition.segments):  # it grew meanwhile
                self._waiting.pop(partition, None)
        self._trouble.healed("segment")
        self._tails -= flush.covers

    def flush(self) -> None:
        """Write the tails that are due, here and now."""
        if (flush := self.begin_flush()) is not None:
            flush.write()
            self.finish_flush(flush)
        elif self._flush is None:
            self._trouble.healed("segment")

    @property
    def behind(self) -> bool:
        """Whether so much waits for the flush that is out that no group should follow before it is done."""
        return self._flush is not None and self._tails > 4 * self.config.tail_bytes

    def checkpoint_due(self, now: int) -> bool:
        """Whether it is time for one."""
        if self._checkpoint is not None or self._trouble.fatal:
            return False
        if not self._since_entries or now < self._checkpoint_again:
            return False
        return (
            self._since_bytes >= self.config.checkpoint_bytes
            or self._since_entries >= self.config.checkpoint_entries
            or not 0 <= now - self._since_time < self.config.checkpoint_ms
        )

    def begin_checkpoint(self, now: int) -> Checkpoint:
        """Begin one: capture it to the end, `write` it anywhere, then `finish_checkpoint`."""
        parts = [*self._parts.values(), *self._leaving.values()]
        checkpoint = Checkpoint(self.files, self.folder, self._journal, parts, self._records)
        checkpoint.position = dict(self._applied_at)
        self._checkpoint = checkpoint
        self._since_bytes = self._since_entries = 0
        self._since_time = now
        return checkpoint

    def checkpoint_records(self, checkpoint: Checkpoint) -> dict[tuple[bytes, int], Record]:
        """What its file is to hold: the new captures and the standing ones."""
        there = self._parts.keys() | self._leaving.keys()
        return {key: record for key, record in {**self._records, **checkpoint.records}.items() if key in there}

    def finish_checkpoint(self, checkpoint: Checkpoint, now: int) -> None:
        """It was written, or failed: then it is tried again after a second."""
        self._checkpoint = None
        if checkpoint.error is None:
            self._records = self.checkpoint_records(checkpoint)
            self._trouble.healed("checkpoint")
            return
        checkpoint.undo()
        self._since_entries += 1
        self._since_time = now - self.config.checkpoint_ms
        self._checkpoint_again = now + 1000
        if checkpoint.fatal:
            why = f"sync of a segment failed ({checkpoint.error.strerror}): no acknowledgement until a restart"
            self._trouble.fatal = why
        else:
            why = f"no checkpoint can be written: {checkpoint.error.strerror}"
            self._trouble.problems["checkpoint"] = why

    def checkpoint(self, now: int, *, clean: bool = False) -> None:
        """A whole checkpoint, here and now. Raises StorageFailure."""
        checkpoint = self.begin_checkpoint(now)
        checkpoint.clean = clean
        if clean:  # nothing is to be replayed: the next process begins a file of its own
            checkpoint.position["sequence"] = self._journal.sequence + 1
        try:
            while not checkpoint.capture(1000):
                pass
        except OSError as error:
            checkpoint.error = error
        else:
            checkpoint.write(self.checkpoint_records(checkpoint))
        self.finish_checkpoint(checkpoint, now)
        if checkpoint.error is not None:
            raise failure_from(checkpoint.error) from checkpoint.error

    # -- upkeep

    def tick(self, now: int) -> None:
        """Once a second or so: is there space, do waiting writes go through now, which producers are long silent."""
        self._look_for_space()
        if "segment" in self._trouble.problems:
            self.flush()
        for partition in self._parts.values():
            partition.expire_producers(now - self.config.producer_expiration_ms)

    def _look_for_space(self) -> None:
        """What is under way counts as written: a fast producer fills a small disk between two ticks."""
        try:
            free = self.files.free(self.folder)
        except OSError:
            free = self.config.min_free_bytes
        under_way = [*self._staged, *(() if self._out is None else self._out.staged)]
        self._room = free - self._tails - 2 * sum(len(each.data) for each in under_way)
        if self._room < self.config.min_free_bytes:
            self._trouble.problems["space"] = f"the disk is nearly full: {free >> 20} MiB free"
            self._journal.drop_spares()
        else:
            self._trouble.healed("space")

    def maintain(self, now: int) -> Iterator[None]:
        """Retention, compaction, removal of deleted files, in small steps. Run it to its end, once a minute or so."""
        yield from cleaner.maintain(self, self._doomed, now)

    def note_change(self) -> None:
        """Something changed that only a checkpoint keeps: there is to be one."""
        self._since_entries += 1

    @property
    def synced_segments(self) -> dict[tuple[bytes, int], int]:
        """Base of the last checkpoint's growing segment per partition: those before it are synced and final."""
        return {key: int(record["segment"]) for key, record in self._records.items()}

    def health(self) -> Health:
        """What the disk lets us do right now."""
        return self._trouble.health()

    def close(self, now: int) -> None:
        """Make everything durable, checkpoint, and leave the mark of a clean shutdown. Raises StorageFailure."""
        if self._closed:
            return
        try:
            if not self._trouble.fatal:
                self.settle()
                self.checkpoint(now, clean=True)
        finally:
            self._closed = True
            if self._lock is not None:
                self._lock.release()

    def abandon(self) -> None:
        """Let go without writing anything, as a crash would."""
        self._closed = True
        if self._lock is not None:
            self._lock.release()


def make_folder(files: Files, partition: Partition) -> None:
    """A partition's folder and Kafka's `partition.metadata` in it; durable with the next checkpoint."""
    files.make_folder(partition.path)
    recovery.write_metadata(files, partition)
