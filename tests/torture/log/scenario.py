"""A seeded life of a store on the simulated disk, cut short again and again.

Every operation of the disk can be the one at which the power goes: in the journal, in a segment, between a checkpoint's
writes, inside recovery itself. While one "thread" writes, the other goes on (`Disk.before`). After each cut
several of the states it may have left are recovered by the real code and compared with the `World`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.log.backup import BackupRefused, backup, restore
from broker.log.config import LogConfig
from broker.log.failures import CorruptLog, DuplicateSequence
from broker.log.flush import Flush
from broker.log.journal import Kind
from broker.log.partition import Partition, Staged
from broker.log.store import Store, StoreConfig
from broker.wire import batch as wire
from tests.fakes.disk import Disk, PowerCut
from tests.torture.log.world import Event, Violation, World, differences, indexes_differ, log_differs, placed

CONFIG = StoreConfig(
    journal_file_bytes=6 << 10,
    checkpoint_bytes=1 << 40,
    checkpoint_entries=1 << 40,
    checkpoint_ms=1 << 60,
    tail_bytes=24 << 10,
    min_free_bytes=0,
)
ROOT = "/data"
TARGET = "/backup"
START_TIME = 1_700_000_000_000


@dataclass(slots=True)
class Totals:
    """What a run did."""

    cuts: int = 0
    states: int = 0
    acknowledged: int = 0  # records
    records: int = 0  # acknowledged ones looked for after a cut, each time anew
    operations: int = 0
    backups: int = 0
    distinct: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"power cuts {self.cuts:,} · crash states {self.states:,} (distinct {len(self.distinct):,}) · "
            f"acknowledged records {self.acknowledged:,}, looked for {self.records:,} times · "
            f"operations {self.operations:,} · backups restored {self.backups:,}"
        )


@dataclass(slots=True)
class Sender:
    """An idempotent or transactional producer of one partition, as a client would keep it."""

    producer: int
    epoch: int = 0
    sequence: int = 0
    open: bool = False
    last: tuple[bytes, int, int] | None = None  # raw batch, base offset, last offset


class Scenario:
    """One seed's life."""

    def __init__(
        self,
        seed: int,
        totals: Totals | None = None,
        *,
        states_per_cut: int = 6,
        batch: int = 12,
        focus: Mapping[str, int] | None = None,
        topics: Sequence[str] = ("plain", "compact"),
        keys: int = 12,
    ) -> None:
        """`focus`: how often a step is to be taken, by its name; `topics`: the kinds there are; `keys`: how many."""
        self._keys = keys
        self._focus = focus or {}
        self._topics = topics
        self.chance = random.Random(seed)
        self.totals = totals or Totals()
        self.disk = Disk()
        self.world = World()
        self.now = START_TIME
        self.staged: list[Event] = []
        self.flying: list[Event] = []
        self.senders: dict[tuple[bytes, int], list[Sender]] = {}
        self.next_producer = 1
        self.next_topic = 0
        self.busy = False
        self.store: Store
        self._states_per_cut = states_per_cut
        self._batch = batch
        self._flush_out: Flush | None = None  # begun and not yet written
        self._backup_may_be: list[World] = []  # while one runs: what it may hold

    # -- life and death

    def run(self, cuts: int) -> Totals:
        """Live through that many power cuts. Raises Violation."""
        self._open(self.disk)
        for _ in range(cuts):
            self._live()
        return self.totals

    def _live(self) -> None:
        disk = self.disk
        disk.cut_at = disk.operations + self.chance.randrange(1, 220)
        try:
            while True:
                self._step()
        except PowerCut:
            pass
        self.totals.operations += disk.operations
        self.totals.cuts += 1
        outcomes = [self.world]
        if self.flying:
            outcomes.append(self.world.with_events(self.flying))
        self._survive(disk, outcomes)

    def _survive(self, disk: Disk, outcomes: list[World]) -> None:
        """Recover several of the states the cut may have left; go on with the last."""
        disk.before = disk.reading = None
        if self.flying and self._backup_may_be:
            self._backup_may_be.append(outcomes[-1])
        for number in range(self._states_per_cut):
            state = disk.after_cut(self.chance)
            self._look_at_backup(state, whole=False)
            self.totals.states += 1
            self.totals.distinct.add(state.fingerprint())
            if self.chance.random() < 0.3:
                state = self._cut_recovery(state)
            self._open(state)
            self._check(outcomes)
            if number + 1 < self._states_per_cut:
                continue
            self.disk = state
        self.staged, self.flying = [], []
        self._backup_may_be = []
        self._flush_out = None
        self.busy = False
        self._forget_senders()

    def _cut_recovery(self, state: Disk) -> Disk:
        """The power goes again while the store recovers."""
        state.cut_at = self.chance.randrange(1, 30)
        try:
            self._open(state)
        except PowerCut:
            state = state.after_cut(self.chance)
            self.totals.cuts += 1
            self.totals.distinct.add(state.fingerprint())
            return state
        self.store.abandon()
        state.cut_at = 0
        state.locks.clear()
        return state

    def _open(self, disk: Disk) -> None:
        self.store = Store.open(ROOT, self.now, files=disk, config=CONFIG, salt=lambda: self.chance.getrandbits(64))
        for partition in self.store.partitions():
            self._configure(partition)
        self._tap(self.store)

    def _tap(self, store: Store) -> None:
        """Hear of log starts that retention moved."""
        stage = store.stage

        def tapped(staged: Staged) -> int:
            if staged.kind == Kind.START:
                key = staged.partition.topic_id, staged.partition.index
                if staged.base > staged.partition.high_watermark:
                    raise Violation("the log's start moved beyond what is durable")
                self.staged.append(Event("start", key, staged.base))
            return stage(staged)

        store.stage = tapped  # type: ignore[method-assign]  # a test's ear

    def _configure(self, partition: Partition) -> None:
        compact = partition.topic.startswith("compact")
        partition.config = LogConfig(
            segment_bytes=1500 if compact else (14_000, 2500)[partition.index],
            cleanup_policy=frozenset(("compact",) if compact else ("delete",)),
            retention_bytes=(60_000, 15_000)[partition.index],
            min_cleanable_dirty_ratio=0.0,
            delete_retention_ms=50_000,
            message_timestamp_after_max_ms=1 << 60,
        )

    def _check(self, outcomes: list[World]) -> None:
        store = self.store
        if store.recovery.damage:
            raise Violation(f"a power cut was taken for corruption: {store.recovery.damage[0]}")
        wrongs = []
        for world in reversed(outcomes):
            wrong = differences(store, world)
            if not wrong:
                self.world = world
                self.totals.records += world.records
                break
            wrongs.append(wrong)
        else:
            raise Violation(" / ".join(reversed(wrongs)))
        if self.chance.random() < 0.25 and (wrong := indexes_differ(store)):
            raise Violation(wrong)
        if not store.health().ok:
            raise Violation(store.health().reason)

    def _forget_senders(self) -> None:
        """Producers begin where the log says they are."""
        self.senders = {key: senders for key, senders in self.senders.items() if key in self.world.logs}
        for key, senders in self.senders.items():
            log = self.world.logs[key]
            for sender in senders:
                epoch, sent = log.sent.get(sender.producer, (0, []))
                sender.epoch = max(epoch, 0)
                sender.open = sender.producer in log.open
                sender.last = None
                sender.sequence = (sent[-1][0] + sent[-1][2] - sent[-1][1] + 1) if sent else 0

    # -- steps

    def _look(self) -> None:
        """What readers may see is what was acknowledged, no more."""
        partition = self._any()
        log = self.world.logs.get((partition.topic_id, partition.index))
        end = log.end if log is not None else 0
        if partition.high_watermark != end:
            raise Violation(f"readers may see up to {partition.high_watermark}, acknowledged is {end}")
        stable = min(log.open.values(), default=end) if log is not None else 0
        if partition.last_stable_offset != stable:
            raise Violation(f"read_committed may see up to {partition.last_stable_offset}, stable is {stable}")
        settled = partition.log_end_offset == partition.high_watermark
        if log is not None and settled and self.chance.random() < 0.03 and (wrong := log_differs(partition, log)):
            raise Violation(f"{partition.folder}, running: {wrong}")

    def _step(self) -> None:
        self.now += self.chance.randrange(0, 400)
        steps: list[tuple[int, Callable[[], None]]] = [
            (30, self._append),
            (14, self._send),
            (6, self._repeat),
            (6, self._end_transaction),
            (26, self._group),
            (2, self._delete_records),
            (3 if len(self.store._parts) < 7 else 0, self._create),
            (1 if len(self.store._parts) > 3 else 0, self._delete),
            (4, self._checkpoint),
            (3, self._maintain),
            (1, self._tick),
            (1, self._restart),
            (3, self._backup),
            (8, self._flush),
        ]
        if not list(self.store.partitions()):
            self._create()
            return
        self._look()
        weights = [self._focus.get(call.__name__, weight) if weight else 0 for weight, call in steps]
        calls = [call for _, call in steps]
        self.chance.choices(calls, weights)[0]()

    def _any(self) -> Partition:
        return self.chance.choice(list(self.store.partitions()))

    def _next(self, key: tuple[bytes, int]) -> int:
        """The offset that is next by the promises made so far."""
        end = self.world.logs[key].end if key in self.world.logs else 0
        for event in (*self.flying, *self.staged):
            if event.key == key and event.kind == "records":
                end = event.base + event.count
        return end

    def _records(self, *, keyed: bool = False) -> list[wire.Record]:
        chance = self.chance
        count = chance.randrange(1, self._batch)
        key = (lambda: b"key-%d" % chance.randrange(self._keys)) if keyed else (lambda: None)
        return [
            wire.Record(
                slot,
                self.now + chance.randrange(-50, 50),
                key(),
                None if keyed and chance.random() < 0.2 else chance.randbytes(chance.choice((3, 20, 90))),
                (),
            )
            for slot in range(count)
        ]

    def _append(self) -> None:
        partition = self._any()
        compact = partition.config.compact
        records = self._records(keyed=compact)
        raw = wire.build(records)
        key = partition.topic_id, partition.index
        base = self._next(key)
        appended = partition.append(wire.validate(raw, 1 << 20), self.now)
        if appended.base_offset != base:
            raise Violation(f"an append was given offset {appended.base_offset} where {base} was next")
        data = placed(raw, base, partition.leader_epoch)
        self.staged.append(Event("records", key, base, len(records), data))

    def _sender(self, partition: Partition) -> Sender:
        senders = self.senders.setdefault((partition.topic_id, partition.index), [])
        if len(senders) < 3:
            senders.append(Sender(self.next_producer))
            self.next_producer += 1
        return self.chance.choice(senders)

    def _send(self) -> None:
        partition = self._any()
        sender = self._sender(partition)
        transactional = sender.open or sender.producer % 2 == 0
        records = self._records(keyed=partition.config.compact)
        raw = wire.build(
            records,
            producer_id=sender.producer,
            producer_epoch=sender.epoch,
            base_sequence=sender.sequence,
            transactional=transactional,
        )
        key = partition.topic_id, partition.index
        base = self._next(key)
        appended = partition.append(wire.validate(raw, 1 << 20), self.now)
        if appended.duplicate or appended.base_offset != base:
            raise Violation(f"a new batch was given offset {appended.base_offset} where {base} was next")
        self.staged.append(
            Event(
                "records",
                key,
                base,
                len(records),
                placed(raw, base, partition.leader_epoch),
                producer=sender.producer,
                epoch=sender.epoch,
                sequence=sender.sequence,
                transactional=transactional,
            )
        )
        sender.sequence += len(records)
        sender.open = transactional
        sender.last = (raw, base, appended.last_offset)

    def _repeat(self) -> None:
        """A retry of a batch that was appended already."""
        partition = self._any()
        for sender in self.senders.get((partition.topic_id, partition.index), []):
            if sender.last is None or (not sender.open and sender.producer % 2 == 0):
                continue
            raw, base, last = sender.last
            try:
                again = partition.append(wire.validate(raw, 1 << 20), self.now)
            except DuplicateSequence:
                continue
            if (again.base_offset, again.last_offset, again.duplicate) != (base, last, True):
                raise Violation(f"a repeated batch was appended again, at {again.base_offset}")

    def _end_transaction(self) -> None:
        partition = self._any()
        for sender in self.senders.get((partition.topic_id, partition.index), []):
            if not sender.open:
                continue
            commit = self.chance.random() < 0.5
            key = partition.topic_id, partition.index
            base = self._next(key)
            partition.append_control(sender.producer, sender.epoch, commit=commit, coordinator_epoch=0, now=self.now)
            raw = wire.marker(sender.producer, sender.epoch, commit=commit, coordinator_epoch=0, timestamp=self.now)
            self.staged.append(
                Event(
                    "records",
                    key,
                    base,
                    1,
                    placed(raw, base, partition.leader_epoch),
                    producer=sender.producer,
                    epoch=sender.epoch,
                    marker="commit" if commit else "abort",
                )
            )
            sender.open = False
            sender.last = None
            return

    def _group(self) -> None:
        group = self.store.take_group()
        if group is None:
            return
        self.flying, self.staged = self.staged, []
        self.disk.before = self._meanwhile if not self.busy else None
        group.write()
        self.disk.before = None
        if group.error is not None:
            raise Violation(f"a write failed: {group.error}")
        if self.chance.random() < 0.5:
            group.vouch()
        self.store.complete(group, write=self.chance.random() < 0.5)
        for event in self.flying:  # from here on it is acknowledged
            self.world.take(event)
            self.totals.acknowledged += event.count
        self.flying = []
        if self._backup_may_be:
            self._backup_may_be.append(self.world.copied())

    def _meanwhile(self, kind: str, path: str) -> None:
        """While a group is written, the owner's thread stages more."""
        if self.chance.random() < 0.3:
            before, self.disk.before = self.disk.before, None
            self._append()
            self.disk.before = before

    def _delete_records(self) -> None:
        partition = self._any()
        if partition.high_watermark > partition.log_start_offset:
            partition.delete_records_before(
                self.chance.randrange(partition.log_start_offset, partition.high_watermark + 1)
            )

    def _create(self) -> None:
        topic_id = self.chance.randbytes(16)
        name = self.chance.choice(self._topics)
        self.next_topic += 1
        for index in range(self.chance.randrange(1, 3)):
            partition = self.store.create(f"{name}-{self.next_topic}", topic_id, index, LogConfig())
            self._configure(partition)
            self.staged.append(Event("create", (topic_id, index), compact=partition.config.compact))

    def _delete(self) -> None:
        partition = self._any()
        self.store.delete(partition.topic_id, partition.index)
        self.staged.append(Event("delete", (partition.topic_id, partition.index)))
        if self.chance.random() < 0.5:  # the checkpoint overtakes the deletion
            self._checkpoint()

    def _checkpoint(self) -> None:
        if self.busy:
            return
        checkpoint = self.store.begin_checkpoint(self.now)
        while not checkpoint.capture(1):
            if self.chance.random() < 0.3:
                self._append()
            if self.chance.random() < 0.2:
                self._group()
        records = self.store.checkpoint_records(checkpoint)
        self.busy = True
        self.disk.before = self._during
        checkpoint.write(records)
        self.disk.before = None
        self.busy = False
        if checkpoint.error is not None:
            raise Violation(f"a checkpoint failed: {checkpoint.error!r}")
        self.store.finish_checkpoint(checkpoint, self.now)

    def _during(self, kind: str, path: str) -> None:
        """While a checkpoint is written, appends and groups go on."""
        before, self.disk.before = self.disk.before, None
        if self.chance.random() < 0.12:
            self._append()
        if self.chance.random() < 0.12:
            self._group()
        self.disk.before = before

    def _maintain(self) -> None:
        if self.chance.random() < 0.6:
            self._checkpoint()
        for _ in self.store.maintain(self.now):
            if self.chance.random() < 0.1:
                self._append()
        self._group()
        for _ in self.store.maintain(self.now):
            pass

    def _flush(self) -> None:
        """Tails go to their segments in a thread of their own: begun here, written at any later moment."""
        if self._flush_out is None:
            self._flush_out = self.store.begin_flush(everything=self.chance.random() < 0.7)
            if self.chance.random() < 0.6:
                return
        flush, self._flush_out = self._flush_out, None
        if flush is None:
            return
        self.disk.before = self._while_flushing
        flush.write()
        self.disk.before = None
        if flush.error is not None:
            raise Violation(f"a flush failed: {flush.error!r}")
        self.store.finish_flush(flush)

    def _while_flushing(self, kind: str, path: str) -> None:
        """While a flush is written, everything else goes on."""
        before, self.disk.before = self.disk.before, None
        does = self.chance.choices(
            (None, self._append, self._group, self._checkpoint, self._maintain, self._delete),
            (60, 12, 12, 4, 4, 1 if len(self.store._parts) > 3 else 0),
        )[0]
        if does is not None and list(self.store.partitions()):
            does()
        if list(self.store.partitions()):
            self._look()
        self.disk.before = before

    def _tick(self) -> None:
        self.store.tick(self.now)

    def _restart(self) -> None:
        """A clean stop and start, or a kill -9 (which forgets nothing the disk was told)."""
        if self.chance.random() < 0.5:
            group = self.store.take_group()
            if group is not None:
                self.flying, self.staged = self.staged, []
                group.write()
                self.store.complete(group)
            for event in self.flying:
                self.world.take(event)
            self.flying = []
            if self._flush_out is not None:
                self._flush_out.write()
                self.store.finish_flush(self._flush_out)
                self._flush_out = None
            self.store.close(self.now)
            self._open(self.disk)
            if not self.store.recovery.clean:
                raise Violation("a clean stop was not seen as one")
        else:
            self.staged, self.flying = [], []
            self._flush_out = None
            self.store.abandon()
            self._open(self.disk)
            self._forget_senders()
        self._check([self.world])

    # -- backups

    def _backup(self) -> None:
        """A copy taken while the store goes on: as of one moment between its beginning and its end."""
        disk = self.disk
        self._backup_may_be = [self.world.copied()]
        disk.before = disk.reading = self._beside
        backup(disk, ROOT, TARGET, self.now, wait=lambda: None)
        disk.before = disk.reading = None
        self._look_at_backup(disk.after_cut(self.chance), whole=True)  # it is durable once it is done
        self._look_at_backup(disk, whole=True)
        self._backup_may_be = []
        self.totals.backups += 1

    def _beside(self, kind: str, path: str) -> None:
        """While a backup reads and writes, the store does everything it does."""
        disk = self.disk
        disk.before = disk.reading = None
        does = self.chance.choices(
            (None, self._append, self._group, self._checkpoint, self._maintain, self._delete_records),
            (60, 12, 12, 4, 3, 3),
        )[0]
        if does is not None and list(self.store.partitions()):
            does()
        disk.before = disk.reading = self._beside

    def _look_at_backup(self, disk: Disk, *, whole: bool) -> None:
        """A finished backup comes back as one of the worlds it may hold; one that is not finished says so."""
        if TARGET.strip("/") not in disk.root.live:
            if whole:
                raise Violation("a finished backup is gone")
            return
        other = Disk()
        other.root.put(TARGET.strip("/"), copy.deepcopy(disk.root.live[TARGET.strip("/")]))
        for names in (disk.root.live, disk.root.durable):
            names.pop(TARGET.strip("/"), None)
        disk.root.pending = [change for change in disk.root.pending if change[0] != TARGET.strip("/")]
        if not self._backup_may_be:
            return
        if self.chance.random() < 0.2:
            other.cut_at = other.operations + self.chance.randrange(1, 40)
        try:
            restore(other, TARGET, ROOT)
        except (BackupRefused, CorruptLog):
            if whole:
                raise
            return
        except PowerCut:
            other = other.after_cut(self.chance)
            if not other.exists(f"{ROOT}/checkpoint"):
                return
        other.cut_at = 0
        store = Store.open(ROOT, self.now, files=other, config=CONFIG, salt=lambda: self.chance.getrandbits(64))
        if store.recovery.damage:
            raise Violation(f"a restored backup is damaged: {store.recovery.damage[0]}")
        wrongs = [differences(store, world) for world in self._backup_may_be]
        if all(wrongs):
            raise Violation(f"a restored backup: {' / '.join(wrongs)}")
        store.abandon()
