"""The scheduler against what was promised: order of the lines, nothing lost, nothing after its commit, bounded."""

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client import positions
from broker.client.policy import Order
from broker.client.records import Record, TopicPartition
from broker.client.scheduling import Scheduler, Task

PLACES = [TopicPartition("a", 0), TopicPartition("a", 1)]
WINDOW = 6
BATCH = 3
KEYS = st.sampled_from([None, b"", b"x", b"y", b"z"])


class Members(RuleBasedStateMachine):
    """One member after another reads a log; each may vanish at any moment, leaving only what it committed."""

    @initialize(order=st.sampled_from(Order))
    def begin(self, order: Order) -> None:
        self.order = order
        self.now = 0.0
        self.log: dict[TopicPartition, list[Record]] = {place: [] for place in PLACES}
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.finished: dict[TopicPartition, set[int]] = {place: set() for place in PLACES}
        """By anybody, ever."""
        self.durable: dict[TopicPartition, set[int]] = {place: set() for place in PLACES}
        """What some commit has said."""
        self.moved: dict[tuple[TopicPartition, int], int] = defaultdict(int)
        self.start()

    def start(self) -> None:
        self.scheduler = Scheduler(self.order, WINDOW)
        self.out: list[Task] = []
        self.paused: set[TopicPartition] = set()
        self.reading: dict[TopicPartition, int] = {}
        for place in PLACES:
            self.own(place)

    def own(self, place: TopicPartition) -> None:
        known = positions.read(*self.committed[place]) if place in self.committed else None
        self.scheduler.assign(place, known)
        self.paused.discard(place)
        upto = known.next if known else 0
        self.reading[place] = next(
            (i for i, record in enumerate(self.log[place]) if record.offset >= upto), len(self.log[place])
        )

    # --- the world

    @rule(place=st.sampled_from(PLACES), keys=st.lists(KEYS, min_size=1, max_size=5), gap=st.integers(0, 2))
    def produce(self, place: TopicPartition, keys: list[bytes | None], gap: int) -> None:
        log = self.log[place]
        for key in keys:
            # compaction and transaction markers leave gaps
            offset = (log[-1].offset + 1 if log else 0) + gap
            log.append(Record(place.topic, place.partition, offset, 0, key, b""))
        self.top_up(place)

    @rule(place=st.sampled_from(PLACES), later=st.sampled_from([0.0, 0.0, 5.0]))
    def read(self, place: TopicPartition, later: float) -> None:
        if place in self.paused:
            return
        at = self.reading[place]
        for record in self.log[place][at : at + BATCH]:
            fresh = self.scheduler.read(record, self.now + later if later else 0.0)
            assert fresh is not (record.offset in self.durable[place] and place in self.committed)
        self.reading[place] = min(at + BATCH, len(self.log[place]))
        self.pace()

    def pace(self) -> None:
        stop, go = self.scheduler.flow()
        self.paused = (self.paused | set(stop)) - set(go)

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # --- work

    @rule(most=st.integers(1, 4))
    def take(self, most: int) -> None:
        for _ in range(most):
            task = self.scheduler.take(self.now)
            if task is not None:
                self.hand_out(task)

    def hand_out(self, task: Task) -> None:
        record = task.record
        assert task.not_before <= self.now
        assert record.offset not in self.durable[record.origin], "handled after it was committed"
        for other in self.out:
            if other.lane.live:
                assert not self.wait_for_each_other(other.record, record), "two of one line at once"
        for earlier in self.log[record.origin]:
            if earlier.offset >= record.offset:
                break
            if self.wait_for_each_other(earlier, record):
                assert earlier.offset in self.finished[record.origin], "overtaken"
        self.out.append(task)

    def wait_for_each_other(self, one: Record, other: Record) -> bool:
        if one.origin != other.origin or self.order is Order.NONE:
            return False
        return self.order is Order.PARTITION or (one.key is not None and one.key == other.key)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        task = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        if self.scheduler.finish(task):
            self.finished[task.record.origin].add(task.record.offset)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), wait=st.sampled_from([0.0, 3.0]))
    def fail(self, data: st.DataObject, wait: float) -> None:
        task = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        task.not_before = self.now + wait
        self.scheduler.again(task)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), works=st.booleans())
    def move(self, data: st.DataObject, works: bool) -> None:
        """The copy and the position in one transaction; where it fails the record stays out."""
        task = self.out[data.draw(st.integers(0, len(self.out) - 1))]
        if not task.lane.live:
            return
        told = self.scheduler.positions(also=[task])
        if not works:
            return
        record = task.record
        assert set(told) == {record.origin}
        self.moved[record.origin, record.offset] += 1
        assert self.moved[record.origin, record.offset] == 1, "moved twice"
        self.finished[record.origin].add(record.offset)
        self.settle(told)
        self.out.remove(task)
        assert self.scheduler.finish(task)

    @rule(works=st.sampled_from([True, True, False]))
    def commit(self, works: bool) -> None:
        told = self.scheduler.positions()
        if works:
            self.settle(told)
        else:
            self.scheduler.uncommitted(told)

    def settle(self, told: dict[TopicPartition, positions.Position]) -> None:
        for place, position in told.items():
            offsets = {r.offset for r in self.log[place]}
            said = {offset for offset in offsets if offset < position.next} | (position.ahead & offsets)
            assert said <= self.finished[place], "committed but not finished"
            assert said >= self.durable[place], "a commit took back what another had said"
            self.durable[place] = said
            self.committed[place] = position.next, position.metadata()

    # --- the group

    @rule(sure=st.sampled_from([False, False, False, True]))
    def crash(self, sure: bool) -> None:
        if sure:
            self.start()

    @rule(place=st.sampled_from(PLACES), sure=st.sampled_from([False, False, True]))
    def lose_and_get_back(self, place: TopicPartition, sure: bool) -> None:
        if not sure:
            return
        self.scheduler.halt([place])
        self.settle(self.scheduler.positions([place]))
        self.scheduler.drop([place])
        assert self.scheduler.out([place]) == 0
        self.own(place)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for lane in self.scheduler._lanes.values():
            # one batch may come after the window is full
            assert len(lane.tasks) < WINDOW + BATCH + len(lane.already)
            assert sum(len(line.tasks) for line in lane.lines.values()) <= len(lane.tasks)

    def teardown(self) -> None:
        """Whatever happened: who only goes on finishes everything, and each line in order."""
        if not hasattr(self, "order"):
            return
        for task in self.out:
            self.scheduler.finish(task)
            if task.lane.live:
                self.finished[task.record.origin].add(task.record.offset)
        self.out = []
        for _ in range(1000):
            self.now += 10
            while (task := self.scheduler.take(self.now)) is not None:
                self.scheduler.finish(task)
                self.finished[task.record.origin].add(task.record.offset)
            for place in PLACES:
                self.top_up(place)
            if all(self.reading[p] == len(self.log[p]) for p in PLACES) and self.scheduler.next_due() is None:
                break
        self.settle(self.scheduler.positions())
        for place in PLACES:
            assert self.durable[place] == {record.offset for record in self.log[place]}, "lost"

    def top_up(self, place: TopicPartition) -> None:
        self.pace()
        if place not in self.paused:
            at = self.reading[place]
            for record in self.log[place][at : at + BATCH]:
                self.scheduler.read(record)
            self.reading[place] = min(at + BATCH, len(self.log[place]))
            self.pace()


TestMembers = Members.TestCase
TestMembers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.torture
class TestMembersAtLength(Members.TestCase):
    settings = settings(max_examples=5000, stateful_step_count=100, deadline=None)


def test_a_failing_record_holds_up_its_key_and_no_other() -> None:
    scheduler = Scheduler(Order.KEY, 100)
    scheduler.assign(PLACES[0])
    for offset, key in enumerate([b"x", b"y", b"x", b"y", None, b"x"]):
        scheduler.read(Record("a", 0, offset, 0, key, b""))
    parked = scheduler.take(0.0)
    assert parked is not None
    parked.not_before = 3.0
    scheduler.again(parked)
    others = []
    while (task := scheduler.take(1.0)) is not None:
        others.append(task.record.offset)
        scheduler.finish(task)
    assert others == [1, 4, 3]
    assert scheduler.positions()[PLACES[0]] == positions.Position(0, frozenset({1, 3, 4}))
    assert scheduler.next_due() == 3.0
    behind = []
    while (task := scheduler.take(3.0)) is not None:
        behind.append(task.record.offset)
        scheduler.finish(task)
    assert behind == [0, 2, 5]


def test_a_full_partition_is_paused_and_goes_on_once_its_oldest_record_is_finished() -> None:
    scheduler = Scheduler(Order.KEY, 4)
    scheduler.assign(PLACES[0])
    for offset in range(4):
        scheduler.read(Record("a", 0, offset, 0, b"%d" % offset, b""))
    assert scheduler.flow() == ([PLACES[0]], [])
    slow = scheduler.take(0.0)
    assert slow is not None
    while (task := scheduler.take(0.0)) is not None:
        scheduler.finish(task)
    assert scheduler.flow() == ([], [])
    scheduler.finish(slow)
    assert scheduler.flow() == ([], [PLACES[0]])


def test_a_partition_that_was_made_anew_is_read_from_its_beginning() -> None:
    scheduler = Scheduler(Order.PARTITION, 4)
    scheduler.assign(PLACES[0])
    scheduler.read(Record("a", 0, 50, 0, None, b"old"))
    old = scheduler.take(0.0)
    assert old is not None
    scheduler.read(Record("a", 0, 0, 0, None, b"new"))
    assert not scheduler.finish(old)
    new = scheduler.take(0.0)
    assert new is not None
    assert new.record.value == b"new"
    scheduler.finish(new)
    assert scheduler.positions() == {PLACES[0]: positions.Position(1)}
