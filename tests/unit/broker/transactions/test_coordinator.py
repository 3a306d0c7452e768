from __future__ import annotations

import contextlib
import dataclasses

from broker.groups.ports import StateUnwritable
from broker.transactions.coordinator import Init, Producer, ProducerIdNeeded, TransactionCoordinator
from broker.transactions.state import LAST_EPOCH, TransactionState
from broker.wire.errors import ErrorCode
from tests.unit.broker.groups.world import KeptLog


class KeptOutcomes:
    """Remembers markers and settled offsets; `failing` counts down to a full disk."""

    def __init__(self) -> None:
        self.markers: list[tuple[tuple[str, int], int, int, bool]] = []
        self.settled: list[tuple[str, int, bool]] = []
        self.failing = -1

    def _maybe_fail(self) -> None:
        if self.failing == 0:
            raise StateUnwritable
        self.failing -= 1

    def mark(self, place: tuple[str, int], producer_id: int, epoch: int, *, commit: bool, now: int) -> None:
        self._maybe_fail()
        self.markers.append((place, producer_id, epoch, commit))

    def settle(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        self._maybe_fail()
        self.settled.append((group_id, producer_id, commit))


class World:
    def __init__(self, log: KeptLog | None = None, outcomes: KeptOutcomes | None = None, now: int = 1_000_000) -> None:
        self.log = log or KeptLog()
        self.outcomes = outcomes or KeptOutcomes()
        self.now = now
        self.ids = 100
        self.coordinator = TransactionCoordinator(log=self.log, outcomes=self.outcomes)
        for key, value in self.log.records:
            self.coordinator.replay(key, value)
        self.coordinator.resume(now)

    def restarted(self) -> World:
        return World(self.log, self.outcomes, self.now)

    def init(self, producer: Producer | None = None, timeout_ms: int = 60_000) -> Producer:
        call = Init(transactional_id="x", timeout_ms=timeout_ms)
        if producer is not None:
            call = Init(
                transactional_id="x", timeout_ms=timeout_ms, producer_id=producer.producer_id, epoch=producer.epoch
            )
        try:
            return self.coordinator.init(call, None, self.now)
        except ProducerIdNeeded:
            self.ids += 1
            return self.coordinator.init(call, self.ids, self.now)

    def add(self, producer: Producer, *places: tuple[str, int], groups: tuple[str, ...] = ()) -> ErrorCode:
        return self.coordinator.add(
            "x", producer.producer_id, producer.epoch, partitions=places, groups=groups, now=self.now
        )

    def end(self, producer: Producer, *, commit: bool = True, bump: bool = False) -> Producer:
        self.ids += 1
        return self.coordinator.end(
            "x", producer.producer_id, producer.epoch, commit=commit, bump=bump, fresh_id=self.ids, now=self.now
        )

    def state(self) -> TransactionState:
        found = self.coordinator.transaction("x")
        assert found is not None
        return found.state

    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.coordinator.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.coordinator.tick(self.now)
        self.now = end


def test_a_committed_transaction_marks_its_partitions_settles_its_groups_and_completes() -> None:
    world = World()
    producer = world.init()
    assert world.add(producer, ("t", 0), ("t", 1)) is ErrorCode.NONE
    assert world.add(producer, groups=("g",)) is ErrorCode.NONE
    assert world.end(producer).error is ErrorCode.NONE
    assert world.outcomes.markers == [(("t", i), producer.producer_id, 0, True) for i in (0, 1)]
    assert world.outcomes.settled == [("g", producer.producer_id, True)]
    assert world.state() is TransactionState.COMPLETE_COMMIT
    assert world.restarted().state() is TransactionState.COMPLETE_COMMIT
    assert world.end(producer).error is ErrorCode.NONE, "the same end once more is a repeat"
    assert world.end(producer, commit=False).error is ErrorCode.INVALID_TXN_STATE


def test_a_new_incarnation_fences_the_old_and_aborts_what_it_left_open() -> None:
    world = World()
    old = world.init()
    world.add(old, ("t", 0))
    new = world.init()
    assert new.producer_id == old.producer_id
    assert new.epoch > old.epoch
    assert [m[3] for m in world.outcomes.markers] == [False]
    assert world.outcomes.markers[0][2] > old.epoch, "the marker's epoch keeps late batches of the old one out"
    assert world.add(old, ("t", 0)) is ErrorCode.PRODUCER_FENCED
    assert world.end(old).error is ErrorCode.PRODUCER_FENCED
    assert world.init(old).error is ErrorCode.PRODUCER_FENCED
    assert world.add(new, ("t", 0)) is ErrorCode.NONE


def test_a_producer_that_names_itself_keeps_its_id_and_may_repeat_the_call() -> None:
    world = World()
    first = world.init()
    second = world.init(first)
    assert (second.producer_id, second.epoch) == (first.producer_id, first.epoch + 1)
    assert world.init(first) == second
    assert world.restarted().init(first) == second
    assert world.init(second).epoch == second.epoch + 1
    assert world.init(first).error is ErrorCode.PRODUCER_FENCED


def test_an_unnamed_newcomer_leaves_the_old_epoch_no_way_back() -> None:
    world = World()
    first = world.init()
    world.init()
    assert world.init(first).error is ErrorCode.PRODUCER_FENCED


def test_time_outs_are_validated() -> None:
    world = World()
    assert world.init(timeout_ms=0).error is ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert world.init(timeout_ms=900_001).error is ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert world.init(timeout_ms=900_000).error is ErrorCode.NONE


def test_a_transaction_out_of_time_is_aborted_under_a_bumped_epoch_also_after_a_restart() -> None:
    for restart in (False, True):
        world = World()
        producer = world.init(timeout_ms=5_000)
        world.add(producer, ("t", 0))
        world.pass_time(4_999)
        assert world.outcomes.markers == []
        if restart:
            world = world.restarted()
        world.pass_time(2)
        assert world.outcomes.markers == [(("t", 0), producer.producer_id, 1, False)]
        assert world.state() is TransactionState.COMPLETE_ABORT
        assert world.add(producer, ("t", 0)) is ErrorCode.PRODUCER_FENCED
        assert world.end(producer).error is ErrorCode.PRODUCER_FENCED


def test_an_end_that_was_cut_short_is_finished_after_a_restart() -> None:
    world = World()
    producer = world.init()
    world.add(producer, ("t", 0), ("t", 1), groups=("g",))
    world.outcomes.failing = 1
    with contextlib.suppress(StateUnwritable):
        world.end(producer)
    assert world.state() is TransactionState.PREPARE_COMMIT
    assert world.end(producer).error is ErrorCode.CONCURRENT_TRANSACTIONS
    assert world.end(producer, commit=False).error is ErrorCode.INVALID_TXN_STATE
    assert world.add(producer, ("t", 0)) is ErrorCode.CONCURRENT_TRANSACTIONS
    assert world.init().error is ErrorCode.CONCURRENT_TRANSACTIONS
    world.outcomes.failing = -1
    after = world.restarted()
    assert after.state() is TransactionState.COMPLETE_COMMIT
    assert {m[0] for m in after.outcomes.markers} == {("t", 0), ("t", 1)}
    assert after.outcomes.settled == [("g", producer.producer_id, True)]


def test_an_end_that_was_cut_short_is_finished_when_the_disk_has_room_again() -> None:
    world = World()
    producer = world.init()
    world.add(producer, ("t", 0))
    world.outcomes.failing = 0
    with contextlib.suppress(StateUnwritable):
        world.end(producer)
    world.pass_time(2_000)
    assert world.state() is TransactionState.PREPARE_COMMIT
    world.outcomes.failing = -1
    world.pass_time(2_000)
    assert world.state() is TransactionState.COMPLETE_COMMIT
    assert world.end(producer).error is ErrorCode.NONE


def test_version_two_bumps_the_epoch_with_each_end_and_marks_with_it() -> None:
    world = World()
    producer = world.init()
    world.add(producer, ("t", 0))
    ended = world.end(producer, bump=True)
    assert (ended.producer_id, ended.epoch) == (producer.producer_id, 1)
    assert world.outcomes.markers[-1][2] == 1
    assert world.end(producer, bump=True) == ended, "a repeat under the epoch before the bump"
    assert world.end(producer, bump=True, commit=False).error is ErrorCode.PRODUCER_FENCED
    assert world.end(ended, bump=True).error is ErrorCode.INVALID_TXN_STATE, "there is nothing to commit"
    nothing = world.end(ended, bump=True, commit=False)
    assert nothing.epoch == 2, "aborting nothing is allowed and bumps"


def test_a_producer_id_is_replaced_when_its_epochs_run_out() -> None:
    world = World()
    producer = world.init()
    while producer.epoch < LAST_EPOCH:
        producer = world.init(producer)
        if producer.epoch < LAST_EPOCH - 3:
            found = world.coordinator.transaction("x")
            assert found is not None
            world.coordinator._write(dataclasses.replace(found, epoch=LAST_EPOCH - 3, last_epoch=-1), world.now)
            producer = Producer(producer_id=producer.producer_id, epoch=LAST_EPOCH - 3)
    world.add(producer, ("t", 0))
    ended = world.end(producer, bump=True)
    assert ended.producer_id != producer.producer_id
    assert ended.epoch == 0
    assert world.outcomes.markers[-1][1:3] == (producer.producer_id, LAST_EPOCH + 1)
    assert world.end(producer, bump=True) == ended
    assert world.add(ended, ("t", 0)) is ErrorCode.NONE


def test_only_the_current_producer_may_write_and_only_where_it_said() -> None:
    world = World()
    producer = world.init()

    def check(p: Producer, *places: tuple[str, int], implicit: bool = False) -> ErrorCode:
        return world.coordinator.check_produce("x", p.producer_id, p.epoch, places, implicit=implicit, now=world.now)

    assert check(producer, ("t", 0)) is ErrorCode.INVALID_TXN_STATE
    world.add(producer, ("t", 0))
    assert check(producer, ("t", 0)) is ErrorCode.NONE
    assert check(producer, ("t", 1)) is ErrorCode.INVALID_TXN_STATE
    assert check(producer, ("t", 1), implicit=True) is ErrorCode.NONE
    assert check(Producer(producer_id=7, epoch=0), ("t", 0)) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    newer = world.init()
    assert check(producer, ("t", 0), implicit=True) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert check(newer, ("t", 0)) is ErrorCode.INVALID_TXN_STATE


def test_an_id_nobody_used_for_a_week_is_forgotten() -> None:
    world = World()
    world.init()
    world.pass_time(7 * 24 * 3600 * 1000 + 1)
    assert world.coordinator.transactions() == []
    assert world.log.compacted() == []
