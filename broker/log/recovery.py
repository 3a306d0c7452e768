"""Opening a store: what the last checkpoint says, then the journal from there on.

1. Each partition is cut back to its checkpoint: what its segments hold beyond is in the journal too, and only the
   journal says what of it was acknowledged.
2. The journal's frames are replayed, in order. A capture may hold more than the journal position of its checkpoint:
   entries below a partition's end are passed over.
3. The journal ends at the first frame that is not whole. If something vouches for that frame (a later frame, a later
   file), acknowledged data is damaged: it is told loudly, nothing is cut, the segments' own tails are
   taken in where they hold what the journal lost, and what is still missing is a gap that reads refuse.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broker.log import checkpoint as marks
from broker.log import producers
from broker.log.checkpoint import Record
from broker.log.compaction import finish_merges
from broker.log.config import LogConfig
from broker.log.durable import Gap
from broker.log.failures import CorruptLog, UnknownFormat
from broker.log.files import Files
from broker.log.journal import FIRST_POSITION, ROLL_FIRST, Entry, Journal, Kind, Scan, sequence_of
from broker.log.partition import Partition, Staged, Stager
from broker.log.producers import Producer
from broker.log.remains import Key, Remains
from broker.log.salvage import Salvage
from broker.log.segment import LOG, SUFFIXES, Segment, stem

METADATA: Final = "partition.metadata"
DELETED: Final = ".deleted"


@dataclass(slots=True)
class Found:
    """What recovery found and made."""

    journal: Journal
    partitions: dict[Key, Partition] = field(default_factory=dict)
    records: dict[Key, Record] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    clean: bool = False
    files: int = 0  # journal files that were replayed
    entries: int = 0
    bytes: int = 0
    cut_bytes: int = 0


def write_metadata(files: Files, partition: Partition) -> None:
    """Kafka's `partition.metadata`. Raises OSError."""
    file = files.open(f"{partition.path}/{METADATA}", create=True)
    topic_id = base64.urlsafe_b64encode(partition.topic_id).decode().rstrip("=")
    file.write(0, [f"version: 0\ntopic_id: {topic_id}".encode()])


def recover(store: Stager, files: Files, root: str, journal_bytes: int, salt: Callable[[], int]) -> Found:
    """Everything under `root`, ready to serve. Raises OSError, UnknownFormat."""
    return _Recovery(store, files, root).run(journal_bytes, salt)


class _Recovery:
    """One opening."""

    def __init__(self, store: Stager, files: Files, root: str) -> None:
        self._store = store
        self._files = files
        self._root = root
        self._parts: dict[Key, Partition] = {}
        self._records: dict[Key, Record] = {}
        self._producers: dict[Key, dict[int, Producer]] = {}
        self._salvage = Salvage(files)
        self._journal: Remains
        self._complaints: dict[Key, list[str]] = {}
        self._doomed: list[str] = []
        self._entries = 0
        self._bytes = 0
        self._clean = False
        self._position = FIRST_POSITION  # where the checkpoint ends
        self._sequence = 1
        self._unknown: dict[Key, None] = {}  # partitions entries speak of that are not there

    def run(self, journal_bytes: int, salt: Callable[[], int]) -> Found:
        names = self._files.list(self._root)
        self._files.remove(f"{self._root}/{marks.NAME}.new")
        state = self._checkpoint(names)
        sequences = sorted(number for name in names if (number := sequence_of(name)) is not None)
        live = [number for number in sequences if number >= self._sequence]
        left = self._journal = Remains(
            self._files, self._root, live, sequence=self._sequence, position=self._position, lost=state is None
        )
        self._salvage.damage.extend(left.damage)
        self._clean = self._clean and not left.broken
        if state is not None:
            for record in state["partitions"]:
                self._restore(record)
            if left.broken:
                self._adopt(names)
        for found in left.scans:
            self._replay(found)
        for topic_id, index in self._unknown:
            self._salvage.damage.append(f"journal: entries of partition {topic_id.hex()}-{index}, which is not there")
        for complaints in self._complaints.values():
            self._salvage.damage.extend(complaints)
        left.settle()
        for name in names:
            if name.endswith(DELETED):
                self._doomed.append(name)
        self._strays(names)
        for partition in self._parts.values():
            if partition.segments[0].base > partition.log_start_offset:
                self._salvage.hole(partition)
            if not partition.dirty:
                continue
            for segment in partition.drop_segments():
                segment.remove()
            partition.revert()
        journal = Journal(
            self._files,
            self._root,
            file_bytes=journal_bytes,
            sequence=max([self._sequence, *(number + 1 for number in sequences)]),
            position=left.position,
            salt=salt,
            spares=[name for name in names if name.startswith("spare-")],
        )
        return Found(
            journal=journal,
            partitions=self._parts,
            records=self._records,
            doomed=self._doomed,
            damage=self._salvage.damage,
            clean=self._clean,
            files=len(live),
            entries=self._entries,
            bytes=self._bytes,
            cut_bytes=left.cut,
        )

    # -- the checkpoint

    def _checkpoint(self, names: list[str]) -> Record | None:
        """The checkpoint's content; a first one is made for a folder that holds nothing. None when it is lost."""
        if marks.NAME in names:
            path = f"{self._root}/{marks.NAME}"
            try:
                state = marks.parse(self._files.open(path).read(0, self._files.size_of(path)))
            except CorruptLog as error:
                self._lost(str(error))
                return None
            self._clean = bool(state["clean"])
            self._sequence, self._position = state["journal"]["sequence"], state["journal"]["position"]
            return state
        if any(sequence_of(name) is not None for name in names) or self._folders(names):
            self._lost("the checkpoint is missing")
            return None
        state = {"clean": True, "journal": {"sequence": 1, "position": FIRST_POSITION}, "partitions": []}
        marks.replace(self._files, self._root, state)
        self._clean = True
        return state

    def _folders(self, names: list[str]) -> list[str]:
        return [
            name
            for name in names
            if not name.endswith(DELETED) and self._files.exists(f"{self._root}/{name}/{METADATA}")
        ]

    def _lost(self, why: str) -> None:
        """Without a checkpoint: every segment is read and checked, and the whole journal replayed."""
        self._salvage.damage.append(f"{why}; everything was read and checked instead")
        names = self._files.list(self._root)
        self._sequence = min((number for name in names if (number := sequence_of(name)) is not None), default=1)
        self._adopt(names)

    def _adopt(self, names: list[str]) -> None:
        """Partitions of which only their folders tell: what their segments hold is read and checked."""
        known = {partition.folder for partition in self._parts.values()}
        for name in self._folders(names):
            if name in known:
                continue
            path = f"{self._root}/{name}/{METADATA}"
            text = self._files.open(path).read(0, 4096).decode(errors="replace")
            encoded = text.rpartition("topic_id: ")[2].strip()
            try:
                topic_id = base64.urlsafe_b64decode(encoded + "==")
            except ValueError:
                topic_id = b""
            topic, _, index = name.rpartition("-")
            if len(topic_id) != 16 or not index.isdigit():
                self._salvage.damage.append(f"{name}: {METADATA} is damaged; the partition is not served")
                continue
            partition = self._make(topic, topic_id, int(index), name)
            bases = self._bases(partition)
            if not bases:
                partition.begin()
            for base in bases:
                self._salvage.take_segment(partition, base)
            partition.dirty = True
            partition.resume(partition.rebuild_producers(partition.high_watermark))

    # -- partitions

    def _make(self, topic: str, topic_id: bytes, index: int, folder: str) -> Partition:
        partition = Partition(
            self._store,
            self._files,
            self._root,
            topic=topic,
            topic_id=topic_id,
            index=index,
            folder=folder,
            config=LogConfig(),
        )
        self._parts[topic_id, index] = partition
        return partition

    def _bases(self, partition: Partition) -> list[int]:
        """Segments on disk; indexes whose log is gone, and a cleaner's unfinished work, are swept away."""
        finish_merges(self._files, partition.path, self._files.list(partition.path))
        names = self._files.list(partition.path)
        bases = []
        for name in names:
            start, dot, suffix = name.partition(".")
            if dot + suffix == LOG and start.isdigit():
                bases.append(int(start))
        for name in names:
            start, dot, suffix = name.partition(".")
            if (dot + suffix in SUFFIXES and start.isdigit() and int(start) not in bases) or name.endswith(
                (".cleaned", marks.NEW)
            ):
                self._files.remove(f"{partition.path}/{name}")
        return bases

    def _restore(self, record: Record) -> None:
        """One partition as it was at the checkpoint."""
        key = (bytes.fromhex(record["id"]), int(record["index"]))
        partition = self._make(record["topic"], *key, record["folder"])
        self._records[key] = record
        if not self._files.exists(partition.path):
            self._complain(partition, f"{partition.path} is gone")
            partition.begin(start=record["end"])
            return
        tails: list[tuple[int, bytes]] = []
        active, size = int(record["segment"]), int(record["size"])
        bases = self._bases(partition)
        for base in [base for base in bases if base > active]:
            if self._journal.broken:
                tails.append((base, self._salvage.saved(partition, base, 0)))
            for suffix in reversed(SUFFIXES):
                self._files.remove(f"{partition.path}/{stem(base)}{suffix}")
        for base in [base for base in bases if base < active]:
            length = self._files.size_of(f"{partition.path}/{stem(base)}{LOG}")
            partition.segments.append(Segment(self._files, partition.path, base, size=length, born=False))
        if active in bases:
            size = self._trim(partition, active, size, tails)
            partition.segments.append(
                Segment(self._files, partition.path, active, size=size, born=False, saved=record["saved"])
            )
        else:
            # its file goes only when the log's start has come to its end; the word for that may be older than the
            # checkpoint, since removal waits for the next roll
            moved = max(int(record["start"]), self._journal.start_of(key))
            if size and moved < int(record["end"]):
                self._complain(partition, f"{partition.path}/{stem(active)}{LOG} is gone")
            start = int(record["end"]) if size else active
            partition.segments.append(Segment(self._files, partition.path, start))
            partition.segments[-1].dirty = True
        partition.log_start_offset = int(record["start"])
        partition.high_watermark = int(record["end"])
        partition.epochs = [(int(epoch), int(start)) for epoch, start in record["epochs"]]
        partition.leader_epoch = partition.epochs[-1][0]
        partition.cleaned_offset = int(record["cleaned"])
        partition.loose_offset = int(record["loose"])
        partition.gaps = [Gap(*gap) for gap in record["gaps"]]
        partition.resume(self._states(partition, record))
        for base, data in tails:
            self._salvage.take_tail(partition, base, data)

    def _trim(self, partition: Partition, base: int, size: int, tails: list[tuple[int, bytes]]) -> int:
        """Cut the growing segment to its checkpointed size; gives the bytes it really has."""
        path = f"{partition.path}/{stem(base)}{LOG}"
        length = self._files.size_of(path)
        if length > size:
            if self._journal.broken:
                tails.insert(0, (base, self._salvage.saved(partition, base, size)))
            self._files.open(path).truncate(size)
        elif length < size:
            self._complain(partition, f"{path} has {length} bytes where the checkpoint says {size}")
            return length
        return size

    def _states(self, partition: Partition, record: Record) -> dict[int, Producer]:
        """The producers at the checkpoint: from the snapshot, or from the batches when that is not to be had."""
        if record["producers"] is None:
            return {}
        path = f"{partition.path}/{record['producers']:020d}{marks.SNAPSHOT}"
        try:
            return producers.load(self._files.open(path).read(0, self._files.size_of(path)))
        except (CorruptLog, FileNotFoundError) as error:
            self._complain(partition, f"{path}: {error}; worked out from the batches again")
            return partition.rebuild_producers(int(record["end"]))

    # -- damage

    def _complain(self, partition: Partition, what: str) -> None:
        """Told of unless the journal says that the partition was deleted after all."""
        self._complaints.setdefault((partition.topic_id, partition.index), []).append(what)

    # -- the journal

    def _replay(self, found: Scan) -> None:
        for frame in self._journal.frames(found):
            for entry in frame.parse():
                self._entry(entry)
                self._entries += 1
            self._bytes += len(frame.payload)
            self._clean = False

    def _entry(self, entry: Entry) -> None:
        key = (entry.topic_id, entry.partition)
        partition = self._parts.get(key)
        if entry.kind == Kind.CREATE:
            if partition is None:
                self._create(key, entry)
            return
        if partition is None:
            if entry.kind == Kind.DELETE:
                self._unknown.pop(key, None)
            else:
                self._unknown[key] = None
            return
        if entry.kind == Kind.DELETE:
            self._delete(key, partition)
            return
        staged = Staged(
            partition, entry.kind, entry.base_offset, bytes(entry.data), roll=bool(entry.flags & ROLL_FIRST)
        )
        if entry.kind in (Kind.RECORDS, Kind.ROLL) and entry.base_offset < partition.high_watermark:
            return
        if entry.kind == Kind.EPOCH and int.from_bytes(entry.data, "big") <= partition.leader_epoch:
            return
        if entry.kind == Kind.RECORDS and entry.base_offset > partition.high_watermark:
            self._salvage.gap(partition, entry.base_offset)
            staged.roll = True
        partition.replay(staged)
        if partition.active.tail_bytes > 1 << 20:
            partition.active.flush()

    def _create(self, key: Key, entry: Entry) -> None:
        about = json.loads(bytes(entry.data))
        if about["v"] != 1:
            raise UnknownFormat(f"journal: a creation of format {about['v']}; this version reads up to 1")
        partition = self._make(about["topic"], *key, about["folder"])
        for base in self._bases(partition):
            for suffix in reversed(SUFFIXES):
                self._files.remove(f"{partition.path}/{stem(base)}{suffix}")
        partition.begin(epoch=about["epoch"])
        partition.dirty = True
        self._files.make_folder(partition.path)
        write_metadata(self._files, partition)

    def _delete(self, key: Key, partition: Partition) -> None:
        partition.deleted = True
        del self._parts[key]
        self._records.pop(key, None)
        self._complaints.pop(key, None)
        name = f"{key[0].hex()}-{key[1]}{DELETED}"
        if self._files.exists(partition.path) and not self._files.exists(f"{self._root}/{name}"):
            self._files.rename(partition.path, f"{self._root}/{name}")
        self._doomed.append(name)

    def _strays(self, names: list[str]) -> None:
        """Folders of partitions nobody knows: made, and never durable. One that holds data is kept and told of."""
        known = {partition.folder for partition in self._parts.values()}
        for name in self._folders(names):
            if name in known:
                continue
            path = f"{self._root}/{name}"
            if any(entry.endswith(LOG) and self._files.size_of(f"{path}/{entry}") for entry in self._files.list(path)):
                self._salvage.damage.append(f"{name} belongs to no partition; kept as stray-{name}")
                self._files.rename(path, f"{self._root}/stray-{name}")
            else:
                self._doomed.append(name)
