from __future__ import annotations

import dataclasses

import pytest

from broker.groups.classic_calls import Join, Joined, Leaver, Sync, Synced
from broker.groups.coordinator import GroupCoordinator
from broker.groups.directory import OffsetCommitCall, OffsetFetchCall
from broker.groups.offsets import Commit
from broker.groups.ports import Reply
from broker.wire.errors import ErrorCode
from tests.unit.broker.groups.world import KeptConfigs, KeptLog, KeptTopics, counting


class World:
    def __init__(self, log: KeptLog | None = None) -> None:
        self.log = log or KeptLog()
        self.now = 1_000_000
        self.groups = GroupCoordinator(log=self.log, topics=KeptTopics(t=4), configs=KeptConfigs(), new_id=counting())
        for key, value in self.log.records:
            self.groups.replay(key, value)
        self.groups.resume(self.now)

    def restarted(self) -> World:
        return World(self.log)

    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.groups.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.groups.tick(self.now)
        self.now = end

    def join(self, member_id: str = "", *, instance: str | None = None, **changes: object) -> Reply[Joined]:
        call = Join(
            group_id="g",
            member_id=member_id,
            instance_id=instance,
            client_id="c",
            client_host="/127.0.0.1",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=30_000,
            protocol_type="consumer",
            protocols=(("range", b"r"),),
        )
        return self.groups.join(dataclasses.replace(call, **changes), self.now)

    def sync(self, joined: Joined, **assignments: bytes) -> Reply[Synced]:
        return self.groups.sync(
            Sync(
                group_id="g",
                generation_id=joined.generation_id,
                member_id=joined.member_id,
                instance_id=None,
                protocol_type=None,
                protocol_name=None,
                assignments=tuple((k.replace("_", "-"), v) for k, v in assignments.items()),
            ),
            self.now,
        )

    def heartbeat(self, joined: Joined, generation: int | None = None) -> ErrorCode:
        return self.groups.heartbeat(
            "g", joined.member_id, None, joined.generation_id if generation is None else generation, self.now
        )

    def admitted(self) -> Reply[Joined]:
        """A dynamic member's two-step entry."""
        refused = self.join().value
        assert refused.error is ErrorCode.MEMBER_ID_REQUIRED
        return self.join(refused.member_id)

    def stable(self, count: int) -> list[Joined]:
        replies = [self.admitted() for _ in range(count)]
        self.pass_time(200)
        joined = [reply.value for reply in replies]
        leader = next(j for j in joined if j.leader == j.member_id)
        syncs = [self.sync(j) for j in joined if j is not leader]
        assignments = {j.member_id: j.member_id.encode() for j in joined}
        own = self.groups.sync(
            Sync(
                group_id="g",
                generation_id=leader.generation_id,
                member_id=leader.member_id,
                instance_id=None,
                protocol_type="consumer",
                protocol_name="range",
                assignments=tuple(assignments.items()),
            ),
            self.now,
        )
        assert own.value.assignment == leader.member_id.encode()
        assert all(s.value.error is ErrorCode.NONE for s in syncs)
        return joined

    def state(self) -> str:
        return self.groups.describe_group("g").state


def test_a_dynamic_member_is_first_given_its_id_and_then_let_in_after_the_initial_delay() -> None:
    world = World()
    refused = world.join().value
    assert refused.error is ErrorCode.MEMBER_ID_REQUIRED
    assert refused.member_id.startswith("c-")
    reply = world.join(refused.member_id)
    world.pass_time(99)
    assert not reply.done
    world.pass_time(1)
    assert reply.value.error is ErrorCode.NONE
    assert reply.value.leader == reply.value.member_id == refused.member_id
    assert reply.value.generation_id == 1
    assert [m.member_id for m in reply.value.members] == [refused.member_id]


def test_an_old_client_is_let_in_without_a_second_join() -> None:
    world = World()
    reply = world.join(require_member_id=False)
    world.pass_time(100)
    assert reply.value.error is ErrorCode.NONE


def test_members_of_one_generation_learn_one_leader_and_only_it_sees_the_others() -> None:
    world = World()
    joined = world.stable(3)
    assert len({j.leader for j in joined}) == 1
    assert sorted(len(j.members) for j in joined) == [0, 0, 3]
    assert world.state() == "Stable"


def test_each_arrival_in_the_initial_delay_extends_it() -> None:
    world = World()
    first = world.admitted()
    world.pass_time(60)
    second = world.admitted()
    world.pass_time(60)
    assert not first.done
    world.pass_time(80)
    assert first.done and second.done
    assert first.value.generation_id == second.value.generation_id


def test_a_newcomer_makes_the_others_rejoin_and_waits_for_them() -> None:
    world = World()
    (old,) = world.stable(1)
    new = world.admitted()
    assert world.heartbeat(old) is ErrorCode.REBALANCE_IN_PROGRESS
    assert not new.done
    again = world.join(old.member_id)
    assert again.value.generation_id == new.value.generation_id == 2


def test_a_member_that_does_not_rejoin_in_time_is_dropped_and_one_in_mid_join_never_is() -> None:
    world = World()
    (old,) = world.stable(1)
    new = world.admitted()
    world.pass_time(9_000)
    assert world.heartbeat(old) is ErrorCode.REBALANCE_IN_PROGRESS
    world.pass_time(9_000)
    assert world.heartbeat(old) is ErrorCode.REBALANCE_IN_PROGRESS
    assert not new.done
    world.pass_time(9_000)
    assert world.heartbeat(old) is ErrorCode.REBALANCE_IN_PROGRESS
    world.pass_time(3_000)
    assert new.value.error is ErrorCode.NONE
    assert [m.member_id for m in new.value.members] == [new.value.member_id]
    assert world.heartbeat(old, 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_second_rebalance_during_the_first_sync_answers_the_waiting_followers() -> None:
    world = World()
    first, second = world.admitted(), world.admitted()
    world.pass_time(200)
    follower = next(r.value for r in (first, second) if r.value.leader != r.value.member_id)
    waiting = world.sync(follower)
    assert not waiting.done
    world.admitted()
    assert waiting.value.error is ErrorCode.REBALANCE_IN_PROGRESS
    assert world.state() == "PreparingRebalance"


def test_a_repeated_join_in_the_same_generation_gets_the_same_answer() -> None:
    world = World()
    reply = world.admitted()
    world.pass_time(100)
    again = world.join(reply.value.member_id)
    assert again.value == reply.value


def test_a_leader_that_joins_again_starts_a_rebalance_and_a_follower_does_not() -> None:
    world = World()
    joined = world.stable(2)
    leader = next(j for j in joined if j.leader == j.member_id)
    follower = next(j for j in joined if j is not leader)
    assert world.join(follower.member_id).value.generation_id == 1
    assert world.state() == "Stable"
    assert not world.join(leader.member_id).done
    assert world.state() == "PreparingRebalance"


def test_silence_ends_the_session_and_rebalances_the_others() -> None:
    world = World()
    alive, silent = world.stable(2)
    world.pass_time(6_000)
    assert world.heartbeat(alive) is ErrorCode.NONE
    world.pass_time(4_000)
    assert world.heartbeat(silent) is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.heartbeat(alive) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_member_that_never_syncs_is_dropped_when_the_rebalance_time_is_up() -> None:
    world = World()
    first, second = world.admitted(), world.admitted()
    world.pass_time(200)
    leader = next(r.value for r in (first, second) if r.value.leader == r.value.member_id)
    follower = next(r.value for r in (first, second) if r.value.leader != r.value.member_id)
    world.sync(leader)
    for _ in range(7):
        world.pass_time(5_000)
        world.heartbeat(leader)
        last = world.heartbeat(follower)
    assert last is ErrorCode.UNKNOWN_MEMBER_ID


def test_wrong_generation_and_unknown_members_are_told() -> None:
    world = World()
    (member,) = world.stable(1)
    assert world.heartbeat(member, 7) is ErrorCode.ILLEGAL_GENERATION
    assert world.sync(dataclasses.replace(member, generation_id=7)).value.error is ErrorCode.ILLEGAL_GENERATION
    assert world.sync(dataclasses.replace(member, member_id="x")).value.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.join("x").value.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.groups.heartbeat("none", "x", None, 1, world.now) is ErrorCode.UNKNOWN_MEMBER_ID
    assert (
        world.groups.join(
            Join(
                group_id="",
                member_id="",
                instance_id=None,
                client_id="c",
                client_host="h",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=1,
                protocol_type="consumer",
                protocols=(("range", b""),),
            ),
            world.now,
        ).value.error
        is ErrorCode.INVALID_GROUP_ID
    )
    assert world.join(session_timeout_ms=5).value.error is ErrorCode.INVALID_SESSION_TIMEOUT


def test_the_protocol_most_members_prefer_is_chosen_among_those_all_speak() -> None:
    world = World()
    orders = [("a", "b", "c"), ("b", "a"), ("b", "a", "c")]
    replies = []
    for order in orders:
        member_id = world.join(protocols=tuple((n, b"") for n in order)).value.member_id
        replies.append(world.join(member_id, protocols=tuple((n, b"") for n in order)))
    world.pass_time(300)
    assert {r.value.protocol_name for r in replies} == {"b"}
    assert world.join(protocols=(("z", b""),)).value.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert world.join(protocol_type="connect").value.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() -> None:
    world = World()
    first = world.join(instance="i1")
    second = world.join(instance="i2")
    world.pass_time(300)
    leader = next(r.value for r in (first, second) if r.value.leader == r.value.member_id)
    other = next(r.value for r in (first, second) if r.value is not leader)
    name = "i1" if other is first.value else "i2"
    world.sync(leader)
    world.sync(other)
    back = world.join(instance=name).value
    assert back.error is ErrorCode.NONE
    assert back.generation_id == other.generation_id
    assert back.member_id != other.member_id
    assert world.state() == "Stable"
    assert (
        world.groups.heartbeat("g", other.member_id, name, other.generation_id, world.now)
        is ErrorCode.FENCED_INSTANCE_ID
    )
    assert world.join(other.member_id, instance=name).value.error is ErrorCode.FENCED_INSTANCE_ID


@pytest.mark.parametrize("knows_skip", [True, False])
def test_a_returning_static_leader_is_kept_from_assigning_anew(knows_skip: bool) -> None:
    world = World()
    reply = world.join(instance="i1")
    world.pass_time(200)
    world.sync(reply.value)
    back = world.join(instance="i1", skip_assignment=knows_skip).value
    assert back.generation_id == 1
    if knows_skip:
        assert back.skip_assignment and back.leader == back.member_id and len(back.members) == 1
    else:
        assert back.leader == reply.value.member_id and back.members == ()


def test_a_static_member_that_is_away_keeps_its_place_until_its_session_ends() -> None:
    world = World()
    reply = world.join(instance="i1")
    world.pass_time(200)
    world.sync(reply.value)
    newcomer = world.admitted()
    assert not newcomer.done
    world.pass_time(10_000)
    assert newcomer.value.error is ErrorCode.NONE
    assert len(newcomer.value.members) == 1


def test_leaving_in_a_batch_answers_each_member() -> None:
    world = World()
    one, two = world.stable(2)
    error, results = world.groups.leave(
        "g",
        [
            Leaver(member_id=one.member_id, instance_id=None),
            Leaver(member_id="x", instance_id=None),
            Leaver(member_id="", instance_id="nobody"),
            Leaver(member_id=two.member_id, instance_id=None),
        ],
        world.now,
    )
    assert error is ErrorCode.NONE
    assert [code for _, code in results] == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.NONE,
    ]
    assert world.state() == "Empty"


def test_a_restart_finds_the_stable_generation_again() -> None:
    world = World()
    joined = world.stable(2)
    after = world.restarted()
    assert after.groups.describe_group("g") == world.groups.describe_group("g")
    assert [after.heartbeat(j) for j in joined] == [ErrorCode.NONE, ErrorCode.NONE]
    assert after.sync(joined[0]).value.assignment == joined[0].member_id.encode()


def test_an_assignment_that_cannot_be_written_is_heard_by_nobody() -> None:
    world = World()
    reply = world.admitted()
    world.pass_time(100)
    world.log.broken = True
    assert world.sync(reply.value).value.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert world.state() == "CompletingRebalance"
    world.log.broken = False
    assert world.sync(reply.value).value.error is ErrorCode.NONE


def test_offsets_are_taken_from_the_current_generation_or_from_outside_an_empty_group() -> None:
    world = World()
    commit = (Commit("t", 0, 5, 2, "note"),)

    def call(**changes: object) -> ErrorCode:
        return world.groups.commit_offsets(
            dataclasses.replace(OffsetCommitCall(group_id="g", commits=commit), **changes), world.now
        )[0]

    assert call(generation_or_epoch=3, member_id="x") is ErrorCode.GROUP_ID_NOT_FOUND
    assert call(generation_or_epoch=3, member_id="x", epoch_aware=False) is ErrorCode.ILLEGAL_GENERATION
    assert call() is ErrorCode.NONE
    (member,) = world.stable(1)
    assert call() is ErrorCode.UNKNOWN_MEMBER_ID
    assert call(generation_or_epoch=1, member_id=member.member_id) is ErrorCode.NONE
    assert call(generation_or_epoch=2, member_id=member.member_id) is ErrorCode.ILLEGAL_GENERATION
    assert (
        call(generation_or_epoch=1, member_id=member.member_id, commits=(Commit("t", 0, 6, -1, "x" * 5000),))
        is ErrorCode.OFFSET_METADATA_TOO_LARGE
    )
    for coordinator in (world.groups, world.restarted().groups):
        fetched = coordinator.fetch_offsets(OffsetFetchCall(group_id="g", places=(("t", 0), ("t", 1))))
        kept = fetched.offsets[0].committed
        assert kept is not None
        assert (kept.offset, kept.leader_epoch, kept.metadata) == (5, 2, "note")
        assert fetched.offsets[1].committed is None


def test_offsets_of_an_open_transaction_show_when_it_commits_and_never_when_it_aborts() -> None:
    world = World()
    call = OffsetCommitCall(group_id="g", commits=(Commit("t", 0, 9, -1, ""),))
    fetch = OffsetFetchCall(group_id="g", places=(("t", 0),), require_stable=True)
    world.groups.stage_offsets(call, 77, world.now)
    for coordinator in (world.groups, world.restarted().groups):
        assert coordinator.fetch_offsets(fetch).offsets[0].error is ErrorCode.UNSTABLE_OFFSET_COMMIT
        plain = coordinator.fetch_offsets(dataclasses.replace(fetch, require_stable=False)).offsets[0]
        assert plain.error is ErrorCode.NONE and plain.committed is None
    after = world.restarted()
    after.groups.settle_offsets("g", 77, commit=False, now=after.now)
    assert after.groups.fetch_offsets(fetch).offsets[0].committed is None
    world.groups.stage_offsets(call, 77, world.now)
    world.groups.settle_offsets("g", 77, commit=True, now=world.now)
    for coordinator in (world.groups, world.restarted().groups):
        kept = coordinator.fetch_offsets(fetch).offsets[0].committed
        assert kept is not None and kept.offset == 9


def test_groups_are_listed_deleted_and_forgotten() -> None:
    world = World()
    (member,) = world.stable(1)
    assert [g.state for g in world.groups.list_groups(["stable"], ["CLASSIC"])] == ["Stable"]
    assert world.groups.list_groups(["Empty"]) == []
    assert world.groups.delete_group("g", world.now) is ErrorCode.NON_EMPTY_GROUP
    world.groups.leave("g", [Leaver(member_id=member.member_id, instance_id=None)], world.now)
    world.groups.commit_offsets(OffsetCommitCall(group_id="g", commits=(Commit("t", 0, 1, -1, ""),)), world.now)
    assert world.groups.delete_group("g", world.now) is ErrorCode.NONE
    assert world.groups.delete_group("g", world.now) is ErrorCode.GROUP_ID_NOT_FOUND
    assert world.log.compacted() == []
    assert world.restarted().groups.list_groups() == []


def test_offsets_of_a_group_nobody_is_in_expire_after_the_retention_time() -> None:
    world = World()
    (member,) = world.stable(1)
    commit = OffsetCommitCall(
        group_id="g",
        generation_or_epoch=1,
        member_id=member.member_id,
        commits=(Commit("t", 0, 1, -1, ""),),
    )
    world.groups.commit_offsets(commit, world.now)
    world.groups.leave("g", [Leaver(member_id=member.member_id, instance_id=None)], world.now)
    fetch = OffsetFetchCall(group_id="g")
    world.pass_time(6 * 24 * 3600 * 1000)
    assert len(world.groups.fetch_offsets(fetch).offsets) == 1
    world.pass_time(24 * 3600 * 1000 + 1_200_000)
    assert world.groups.fetch_offsets(fetch).offsets == ()
    assert world.groups.list_groups() == []
    assert world.log.compacted() == []


def test_offsets_in_a_deleted_topic_are_forgotten() -> None:
    world = World()
    call = OffsetCommitCall(group_id="g", commits=(Commit("t", 0, 1, -1, ""), Commit("u", 0, 1, -1, "")))
    world.groups.commit_offsets(call, world.now)
    world.groups.topic_deleted("t", world.now)
    assert [o.topic for o in world.restarted().groups.fetch_offsets(OffsetFetchCall(group_id="g")).offsets] == ["u"]
