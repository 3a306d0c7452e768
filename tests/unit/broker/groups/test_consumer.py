from __future__ import annotations

import dataclasses

import pytest

from broker.groups.consumer_state import ConsumerBeat, ConsumerHeartbeat
from broker.groups.coordinator import GroupCoordinator
from broker.groups.directory import OffsetCommitCall, OffsetFetchCall
from broker.groups.offsets import Commit
from broker.groups.ports import StateUnwritable
from broker.wire.errors import ErrorCode
from tests.unit.broker.groups.world import KeptConfigs, KeptLog, KeptTopics, counting


class World:
    def __init__(self) -> None:
        self.now = 1_000
        self.log = KeptLog()
        self.topics = KeptTopics(t=4, tt=2, u=1, __secret=1)
        self.configs = KeptConfigs()
        self.groups = GroupCoordinator(log=self.log, topics=self.topics, configs=self.configs, new_id=counting())

    def beat(self, member: str, epoch: int = 0, **changes: object) -> ConsumerBeat:
        call = ConsumerHeartbeat(group_id="g", member_id=member, member_epoch=epoch)
        if epoch == 0:
            call = dataclasses.replace(call, rebalance_timeout_ms=10_000, topics=frozenset({"t"}), owned=frozenset())
        return self.groups.consumer_heartbeat(dataclasses.replace(call, **changes), self.now)

    def indexes(self, beat: ConsumerBeat, topic: str = "t") -> list[int]:
        found = self.topics.topic(topic)
        assert found is not None and beat.assignment is not None
        return sorted(i for t, i in beat.assignment if t == found.id)

    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.groups.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.groups.tick(self.now)
        self.now = end


def test_the_first_member_gets_everything_at_once() -> None:
    world = World()
    beat = world.beat("a")
    assert (beat.error, beat.epoch, world.indexes(beat)) == (ErrorCode.NONE, 1, [0, 1, 2, 3])
    assert world.beat("a", 1).assignment is None, "nothing new is not told again"


def test_a_second_member_waits_until_the_first_has_given_up_its_share() -> None:
    world = World()
    everything = world.beat("a").assignment
    newcomer = world.beat("b")
    assert (newcomer.epoch, newcomer.assignment) == (2, frozenset())
    assert newcomer.interval_ms < 5_000, "who waits asks more often"
    told = world.beat("a", 1)
    assert (told.epoch, len(told.assignment or ())) == (1, 2), "gives up, in its old epoch"
    assert world.beat("b", 2).assignment is None
    assert world.beat("a", 1, owned=everything).epoch == 1, "it has not given up yet"
    moved = world.beat("a", 1, owned=told.assignment)
    assert moved.epoch == 2
    got = world.beat("b", 2)
    assert got.assignment == (everything or frozenset()) - (told.assignment or frozenset())
    assert world.groups.describe_consumers("g").state == "Stable"


def test_epochs_fence() -> None:
    world = World()
    world.beat("a")
    assert world.beat("a", 2).error is ErrorCode.FENCED_MEMBER_EPOCH
    assert world.beat("x", 1).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.beat("a", 1).error is ErrorCode.NONE
    assert world.beat("a", 0).epoch == 1, "joining again is allowed"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"group_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -3}, ErrorCode.INVALID_REQUEST),
        ({"member_epoch": -2}, ErrorCode.INVALID_REQUEST),
        ({"topics": None}, ErrorCode.INVALID_REQUEST),
        ({"owned": None}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"assignor": "sticky"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"regex": "(", "topics": None}, ErrorCode.INVALID_REGULAR_EXPRESSION),
    ],
)
def test_what_is_not_a_heartbeat_is_refused(changes: dict[str, object], error: ErrorCode) -> None:
    world = World()
    assert world.beat("a", **changes).error is error
    assert world.log.records == []


def test_a_pattern_finds_topics_as_they_come_and_never_internal_or_hidden_ones() -> None:
    world = World()
    beat = world.beat("a", topics=None, regex=".*t.*", may_see=lambda name: name != "tt")
    assert (world.indexes(beat), world.indexes(beat, "tt")) == ([0, 1, 2, 3], [])
    world.topics.put("ticks", 2)
    told = world.beat("a", 1, owned=beat.assignment)
    assert world.indexes(told, "ticks") == [0, 1]


def test_a_static_member_comes_back_to_what_it_had() -> None:
    world = World()
    world.beat("a", instance_id="i")
    other = world.beat("a2", instance_id="i")
    assert other.error is ErrorCode.UNRELEASED_INSTANCE_ID
    assert world.beat("a", -2, instance_id="i").epoch == -2
    back = world.beat("a2", instance_id="i")
    assert (back.epoch, world.indexes(back)) == (1, [0, 1, 2, 3])
    assert world.beat("a", 1, instance_id="i").error is ErrorCode.FENCED_INSTANCE_ID


def test_silence_and_partitions_not_given_up_in_time_end_a_membership() -> None:
    world = World()
    world.beat("a")
    epoch = world.beat("b").epoch
    world.beat("a", 1)
    for _ in range(12):
        world.pass_time(1_000)
        epoch = world.beat("b", epoch).epoch
        last = world.beat("a", 1)
    assert last.error is ErrorCode.UNKNOWN_MEMBER_ID, "ten seconds to give up were over"
    world.configs.by_group["g"] = {"consumer.session.timeout.ms": "6000"}
    world.beat("b", epoch)
    world.pass_time(6_001)
    assert world.groups.describe_consumers("g").state == "Empty"


def test_offsets_are_committed_and_fetched_under_the_members_epoch() -> None:
    world = World()
    world.beat("a")

    def commit(member: str, epoch: int, **more: object) -> ErrorCode:
        call = OffsetCommitCall(
            group_id="g", member_id=member, generation_or_epoch=epoch, commits=(Commit("t", 0, 3, -1, ""),)
        )
        return world.groups.commit_offsets(dataclasses.replace(call, **more), world.now)[0]

    assert commit("a", 1) is ErrorCode.NONE
    assert commit("a", 0) is ErrorCode.STALE_MEMBER_EPOCH
    assert commit("a", 1, epoch_aware=False) is ErrorCode.UNSUPPORTED_VERSION
    assert commit("x", 1) is ErrorCode.UNKNOWN_MEMBER_ID

    def fetch(member: str | None, epoch: int) -> ErrorCode:
        call = OffsetFetchCall(group_id="g", places=(("t", 0),), member_id=member, member_epoch=epoch)
        return world.groups.fetch_offsets(call).error

    assert fetch("a", 1) is ErrorCode.NONE
    assert fetch(None, -1) is ErrorCode.NONE
    assert fetch("a", 7) is ErrorCode.STALE_MEMBER_EPOCH
    assert fetch("x", 1) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_change_that_cannot_be_written_is_told_to_nobody() -> None:
    world = World()
    world.log.broken = True
    with pytest.raises(StateUnwritable):
        world.beat("a")
    world.log.broken = False
    assert world.groups.describe_consumers("g").members == ()
    assert world.beat("a").epoch == 1


def test_topics_that_grow_make_a_new_epoch() -> None:
    world = World()
    beat = world.beat("a")
    world.topics.put("t", 6)
    told = world.beat("a", 1, owned=beat.assignment)
    assert (told.epoch, world.indexes(told)) == (2, [0, 1, 2, 3, 4, 5])
