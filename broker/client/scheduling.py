"""Whose turn it is: the order of handling, without threads, clocks or consumers.

Theory of operation
-------------------
A *lane* is one assigned partition: its records from the first unfinished one on, as they were read. A *line* is a
queue of records of one lane that wait for each other: the whole lane (Order.PARTITION), the records of one key
(Order.KEY), or one record alone (Order.NONE; and records without a key). The head of a line is given out by `take` once
it is due; the line rests until the head is finished, or due again.

Invariants
* Of one line, one record at a time is out, and in the order of offsets.
* What is committed (`positions`) covers finished records only; everything read and not finished lies above `next` and
  is not among those ahead of it.
* A lane is `full` at `window` records, finished ones beyond the first unfinished one included: then nothing more
  should be read of it until its oldest record is finished.
* A lane that was dropped is dead: what its records that are still out come to changes nothing.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from broker.client.policy import Order
from broker.client.positions import Position
from broker.client.records import Record, TopicPartition


class Task:
    """One record on its way. `failures` and `not_before` are the caller's to set before `again`."""

    __slots__ = ("failures", "finished", "lane", "line", "not_before", "record")

    def __init__(self, record: Record, lane: "Lane", not_before: float) -> None:
        self.record = record
        self.lane = lane
        self.line: Line | None = None
        self.not_before = not_before
        self.failures = 0
        self.finished = False


class Line:
    """Records that wait for each other; the first is the one whose turn it is."""

    __slots__ = ("key", "lane", "tasks")

    def __init__(self, lane: "Lane", key: bytes | None) -> None:
        self.lane = lane
        self.key = key
        self.tasks: deque[Task] = deque()


class Lane:
    """One assigned partition. `next` is -1 until something is known to be finished."""

    __slots__ = (
        "already",
        "changed",
        "halted",
        "last",
        "lines",
        "live",
        "next",
        "order",
        "out",
        "partition",
        "paused",
        "tasks",
    )

    def __init__(self, partition: TopicPartition, order: Order, already: frozenset[int]) -> None:
        self.partition = partition
        self.order = order
        self.already = already
        self.tasks: deque[Task] = deque()
        self.lines: dict[bytes, Line] = {}
        self.next = -1
        self.last = -1
        self.out = 0
        self.live = True
        self.halted = False
        self.paused = False
        self.changed = False

    def position(self, also: frozenset[Task] = frozenset()) -> Position | None:
        """What may be committed, were `also` finished; None while there is nothing to say."""
        upto, tasks = self.next, iter(self.tasks)
        for task in tasks:
            if not (task.finished or task in also):
                if upto < 0:
                    upto = task.record.offset
                break
            upto = task.record.offset + 1
        ahead = {task.record.offset for task in tasks if task.finished or task in also}
        ahead.update(offset for offset in self.already if offset > self.last)
        if upto < 0 or (self.next < 0 and not ahead and upto == self._first()):
            return None
        return Position(upto, frozenset(ahead))

    def _first(self) -> int:
        return self.tasks[0].record.offset if self.tasks else -1


class Scheduler:
    """The lanes of one member. Times are seconds of whatever clock the caller reads."""

    def __init__(self, order: Order, window: int) -> None:
        self._order = order
        self._window = window
        self._lanes: dict[TopicPartition, Lane] = {}
        self._ready: deque[Line] = deque()
        self._waiting: list[tuple[float, int, Line]] = []
        self._turns = itertools.count()

    # --- lanes

    def assign(self, partition: TopicPartition, position: Position | None = None, order: Order | None = None) -> None:
        """Records of this partition may come; those that `position` has ahead are finished already."""
        self._replace(partition, Lane(partition, order or self._order, position.ahead if position else frozenset()))

    def _replace(self, partition: TopicPartition, lane: Lane) -> Lane:
        self.drop([partition])
        self._lanes[partition] = lane
        return lane

    def halt(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Give nothing more out of these (None: any), until they are dropped."""
        for lane in self._some(partitions):
            lane.halted = True

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """They are somebody else's now."""
        for partition in partitions:
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                lane.live = False

    def assigned(self) -> list[TopicPartition]:
        """The partitions whose records are wanted."""
        return list(self._lanes)

    def out(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """How many records of these (None: any) are out."""
        return sum(lane.out for lane in self._some(partitions))

    def _some(self, partitions: Iterable[TopicPartition] | None) -> Iterator[Lane]:
        if partitions is None:
            yield from self._lanes.values()
        else:
            yield from (self._lanes[each] for each in partitions if each in self._lanes)

    # --- records

    def read(self, record: Record, not_before: float = 0.0) -> bool:
        """Take a record in; False where it is nobody's business here, or finished already."""
        lane = self._lanes.get(record.origin)
        if lane is None:
            return False
        if record.offset <= lane.last:
            # the partition was made anew, or somebody set it back: what was known of it no longer holds
            fresh = Lane(lane.partition, lane.order, frozenset())
            fresh.paused, fresh.halted = lane.paused, lane.halted
            lane = self._replace(record.origin, fresh)
        lane.last = record.offset
        task = Task(record, lane, not_before)
        lane.tasks.append(task)
        if record.offset in lane.already:
            task.finished = True
            self._advance(lane)
            return False
        if lane.order is Order.PARTITION or (lane.order is Order.KEY and record.key is not None):
            key = b"" if lane.order is Order.PARTITION else record.key or b""
            line = lane.lines.get(key)
            if line is None:
                line = lane.lines[key] = Line(lane, key)
        else:
            line = Line(lane, None)
        task.line = line
        line.tasks.append(task)
        if len(line.tasks) == 1:
            self._queue(line)
        return True

    def take(self, now: float) -> Task | None:
        """The next record to handle, if any is due."""
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heapq.heappop(self._waiting)[2])
        while self._ready:
            line = self._ready.popleft()
            if line.lane.live and not line.lane.halted:
                if line.tasks[0].not_before > now:
                    self._queue(line)
                    continue
                line.lane.out += 1
                return line.tasks[0]
        return None

    def next_due(self) -> float | None:
        """When `take` is worth another try although nothing happens; None: not before something does."""
        if self._ready:
            return 0.0
        return self._waiting[0][0] if self._waiting else None

    def _queue(self, line: Line) -> None:
        due = line.tasks[0].not_before
        if due <= 0:
            self._ready.append(line)
        else:
            heapq.heappush(self._waiting, (due, next(self._turns), line))

    def again(self, task: Task) -> None:
        """The task that was out is due again at its `not_before`."""
        lane, line = task.lane, task.line
        if lane.live and line is not None:
            lane.out -= 1
            self._queue(line)

    def finish(self, task: Task) -> bool:
        """The task that was out is finished; False where its lane is no longer ours."""
        lane, line = task.lane, task.line
        if not lane.live or line is None:
            return False
        lane.out -= 1
        task.finished = True
        line.tasks.popleft()
        if line.tasks:
            self._queue(line)
        elif line.key is not None:
            del lane.lines[line.key]
        self._advance(lane)
        return True

    def _advance(self, lane: Lane) -> None:
        lane.changed = True
        while lane.tasks and lane.tasks[0].finished:
            lane.next = lane.tasks.popleft().record.offset + 1

    # --- what to tell the cluster

    def positions(
        self, partitions: Iterable[TopicPartition] | None = None, also: Iterable[Task] = ()
    ) -> dict[TopicPartition, Position]:
        """What may be committed of these lanes (None: of those that changed), were `also` finished."""
        more = frozenset(also)
        lanes = {task.lane for task in more} if more else self._some(partitions)
        found: dict[TopicPartition, Position] = {}
        for lane in lanes:
            if lane.live and (more or lane.changed):
                position = lane.position(more)
                if position is not None:
                    found[lane.partition] = position
                    lane.changed = lane.changed and bool(more)
        return found

    def uncommitted(self, partitions: Iterable[TopicPartition]) -> None:
        """The positions just told could not be committed: tell them again."""
        for lane in self._some(partitions):
            lane.changed = True

    def flow(self) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Partitions to stop reading (they are full), and those to read on."""
        stop, go = [], []
        for lane in self._lanes.values():
            if not lane.paused and len(lane.tasks) >= self._window:
                lane.paused = True
                stop.append(lane.partition)
            elif lane.paused and len(lane.tasks) <= self._window // 2:
                lane.paused = False
                go.append(lane.partition)
        return stop, go
