"""The checkpoint: up to where each segment is synced, and from where the journal must be replayed.

File `checkpoint`, format 1: a line `SLUICE-CHECKPOINT 1 <CRC-32C of the rest, 8 hex digits>` and a JSON object:
`clean` (nothing needs replay), `journal` {sequence, position}, `partitions`: per partition its topic, id, index,
folder, `start`, `end` (offsets), `segment` (base of the last segment), `size` (its valid bytes),
`saved` (entries of its three index files), `epochs`, `gaps`, `cleaned` (compacted up to that
offset), `loose` (allowed up to that one), `producers` (offset of its snapshot file or null).

Taking one: capture each dirty partition (between appends, a few at a time: replay passes over what a capture already
holds), then, in another thread, sync what was captured, replace the file, and drop the journal before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from crc32c import crc32c

from broker.log import producers
from broker.log.failures import CorruptLog, UnknownFormat
from broker.log.files import File, Files
from broker.log.journal import Journal
from broker.log.partition import Partition
from broker.log.segment import Segment

NAME: Final = "checkpoint"
HOLD: Final = "hold"  # locked by a running backup: nothing may be dropped
_MARK: Final = b"SLUICE-CHECKPOINT"
_VERSION: Final = 1
SNAPSHOT: Final = ".producers"
NEW: Final = ".new"

Record = dict[str, Any]


def pack(state: Record) -> bytes:
    """The file's bytes."""
    body = json.dumps(state, separators=(",", ":")).encode()
    return b"%s %d %08x\n%s" % (_MARK, _VERSION, crc32c(body), body)


def parse(data: bytes) -> Record:
    """The file's content. Raises CorruptLog, UnknownFormat."""
    line, _, body = data.partition(b"\n")
    words = line.split(b" ")
    if len(words) != 3 or words[0] != _MARK or not words[1].isdigit():
        raise CorruptLog("the checkpoint is damaged: its first line is none")
    if int(words[1]) != _VERSION:
        raise UnknownFormat(f"the checkpoint has format {int(words[1])}; this version reads up to {_VERSION}")
    if b"%08x" % crc32c(body) != words[2]:
        raise CorruptLog("the checkpoint is damaged: it fails its CRC")
    state = json.loads(body)
    if not isinstance(state, dict):
        raise CorruptLog("the checkpoint is damaged: it holds no object")
    return state


def replace(files: Files, root: str, state: Record) -> None:
    """Put a new checkpoint in the old one's place, durably. Raises OSError."""
    file = files.open(f"{root}/{NAME}.new", create=True)
    data = pack(state)
    file.truncate(0)
    file.write(0, [data])
    file.datasync()
    files.rename(f"{root}/{NAME}.new", f"{root}/{NAME}")
    files.sync_folder(root)


@dataclass(slots=True)
class Captured:
    """What one partition's capture leaves to do in the other thread, and how to take it back."""

    partition: Partition
    logs: list[File] = field(default_factory=list)
    indexes: list[tuple[str, int, bytes]] = field(default_factory=list)
    snapshot: tuple[str, bytes] | None = None
    born: bool = False
    undo: list[tuple[Segment, tuple[int, int, int], bool]] = field(default_factory=list)


def capture(partition: Partition, standing: Record | None) -> tuple[Record, Captured]:
    """What the partition is now, and what must be synced for that to be durable. Raises OSError (full disk).

    `standing`: what the checkpoint in force says of it; a snapshot that it leans on is never written over.
    """
    todo = Captured(partition)
    for segment in partition.segments:
        if segment.dirty:
            segment.flush()
    for segment in partition.segments:
        if not segment.dirty:
            continue
        saved = (segment.offsets.saved, segment.times.saved, segment.transactions.saved)
        todo.undo.append((segment, saved, segment.born))
        todo.logs.append(segment.file())
        todo.indexes.extend(segment.unsaved())
        todo.born = todo.born or segment.born or any(not count for count in saved)
        segment.born = segment.dirty = False
    active = partition.active
    states = partition.states()
    record: Record = {
        "topic": partition.topic,
        "id": partition.topic_id.hex(),
        "index": partition.index,
        "folder": partition.folder,
        "start": partition.log_start_offset,
        "end": partition.high_watermark,
        "segment": active.base,
        "size": active.size,
        "saved": active.saved(),
        "epochs": partition.epochs,
        "gaps": partition.gaps,
        "cleaned": partition.cleaned_offset,
        "loose": partition.loose_offset,
        "producers": partition.high_watermark if states else None,
    }
    if states and (standing is None or standing["producers"] != partition.high_watermark):
        name = f"{partition.high_watermark:020d}{SNAPSHOT}"
        todo.snapshot = (f"{partition.path}/{name}", producers.dump(states.items()))
    partition.dirty = False
    return record, todo


class Checkpoint:
    """One on its way: `capture` until it says done, `write` in another thread, then the store finishes it."""

    def __init__(
        self,
        files: Files,
        root: str,
        journal: Journal,
        partitions: Iterable[Partition],
        standing: dict[tuple[bytes, int], Record],
    ) -> None:
        self._files = files
        self._root = root
        self._journal = journal
        self._standing = standing
        self._dirty: Iterator[Partition] = iter([part for part in partitions if part.dirty])
        self.position: dict[str, int] = {}
        self.records: dict[tuple[bytes, int], Record] = {}
        self.todo: list[Captured] = []
        self.clean = False
        self.error: OSError | None = None
        self.fatal = False  # the error came from a sync

    def capture(self, limit: int) -> bool:
        """Capture up to `limit` more partitions; True when all are. Raises OSError."""
        for _ in range(limit):
            partition = next(self._dirty, None)
            if partition is None:
                return True
            if partition.buried:
                continue
            key = partition.topic_id, partition.index
            record, todo = capture(partition, self._standing.get(key))
            self.records[key] = record
            self.todo.append(todo)
        return False

    def write(self, records: dict[tuple[bytes, int], Record]) -> None:
        """Sync, replace the checkpoint file by `records`, drop old journal files. Errors are kept, not raised."""
        try:
            for todo in self.todo:
                self._sync(todo)
            self._files.sync_folder(self._root)
            state = {"clean": self.clean, "journal": self.position, "partitions": list(records.values())}
            replace(self._files, self._root, state)
            self._drop()
        except OSError as error:
            self.error = error

    def _sync(self, todo: Captured) -> None:
        path = todo.partition.path
        self.fatal = True
        for file in todo.logs:
            file.datasync()
        self.fatal = False
        try:
            for name, position, data in todo.indexes:
                self._put(name, position, data)
            if todo.snapshot is not None:
                self._put(todo.snapshot[0], 0, todo.snapshot[1])
            if todo.born or todo.snapshot is not None:
                self.fatal = True
                self._files.sync_folder(path)
            self.fatal = False
        except FileNotFoundError:  # deleted (its folder renamed) meanwhile: nothing of it is wanted
            self.fatal = False
            if not todo.partition.buried:
                raise

    def _put(self, path: str, position: int, data: bytes) -> None:
        """Write and sync. One begun anew takes its name when it is whole: nothing else tells how long it is."""
        whole = not position
        file = self._files.open(path + NEW if whole else path, create=True)
        if whole:
            file.truncate(0)
        file.write(position, [data])
        self.fatal = True
        file.datasync()
        self.fatal = False
        if whole:
            self._files.rename(path + NEW, path)

    def _drop(self) -> None:
        """What this checkpoint made needless, unless a backup is reading it."""
        free = self._files.lock(f"{self._root}/{HOLD}")
        if free is None:
            return
        try:
            self._journal.drop_before(self.position["sequence"])
            for todo in self.todo:
                if todo.snapshot is None:
                    continue
                newest = todo.snapshot[0].rpartition("/")[2]
                for name in self._files.list(todo.partition.path):
                    if name.endswith(SNAPSHOT) and name != newest:
                        self._files.remove(f"{todo.partition.path}/{name}")
        finally:
            free.release()

    def undo(self) -> None:
        """It failed: what was captured is dirty again."""
        for todo in self.todo:
            todo.partition.dirty = True
            for segment, saved, born in todo.undo:
                segment.unsave(saved)
                segment.dirty = True
                segment.born = segment.born or born
