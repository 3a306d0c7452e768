"""What holds a group back is said only where the numbers show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from console.groups.causes import causes, written_to
from console.groups.queries import Position
from console.snapshot import Group

BEHIND = Group(name="billing", topics=("orders",), members=2, lag=1000, age=600.0, rate=5.0)
MEMBERS: list[Any] = ["one", "two"]


def position(partition: int, lag: int, *, member: Any = "one", start: int = 0) -> Position:
    return Position(topic="orders", partition=partition, committed=10, start=start, end=10 + lag, member=member)


def even(partitions: int = 4) -> list[Position]:
    return [position(number, 250) for number in range(partitions)]


def texts(group: Group, positions: list[Position], members: list[Any] | None, written: float | None) -> str:
    return " ".join(cause.text + cause.advice for cause in causes(group, positions, members, written))


def test_a_group_that_keeps_up_has_nothing_to_explain() -> None:
    assert causes(replace(BEHIND, lag=3, age=1.0), [position(0, 3)], MEMBERS, 9.0) == []
    assert causes(replace(BEHIND, lag=0), [position(0, 0)], MEMBERS, 9.0) == []


def test_without_members_nothing_else_matters() -> None:
    assert texts(BEHIND, even(), [], 50.0).startswith("Nobody reads: no consumer")
    assert "no consumer" not in texts(BEHIND, even(), None, None), "not known is not none"


def test_a_group_that_stands_points_at_the_record_it_stands_at() -> None:
    (cause,) = causes(replace(BEHIND, rate=0.0), even(), MEMBERS, 3.0)
    assert "commit nothing" in cause.text
    assert cause.at is not None
    assert cause.at.next == 10
    assert causes(replace(BEHIND, rate=0.0, age=5.0, eta=None), even(), MEMBERS, 3.0) == []


def test_more_members_are_advised_only_where_they_can_help() -> None:
    assert "more consumers can help" in texts(BEHIND, even(4), MEMBERS, 9.0)
    assert "only more partitions" in texts(BEHIND, even(2), MEMBERS, 9.0)
    assert texts(BEHIND, even(4), MEMBERS, 4.0) == "", "it catches up"
    assert texts(BEHIND, even(4), MEMBERS, None) == ""


def test_a_share_group_whose_positions_are_not_told_is_explained_by_what_is() -> None:
    share = replace(BEHIND, kind="share")
    assert texts(share, [], [], None).startswith("Nobody reads: no consumer")
    (cause,) = causes(replace(share, rate=0.0), [], MEMBERS, 3.0)
    assert "commit nothing" in cause.text
    assert cause.at is None
    assert texts(share, [], MEMBERS, 9.0) == "Records come faster (9.0 a second) than it reads (5.0 a second)."


def test_one_partition_with_most_of_the_lag_is_named() -> None:
    skewed = [position(0, 900), position(1, 50), position(2, 50)]
    assert "900 of 1,000 unread records are in one partition: orders 0." in texts(BEHIND, skewed, MEMBERS, 1.0)
    assert texts(BEHIND, [position(0, 9), position(1, 1)], MEMBERS, 1.0) == "", "too few to say"


def test_partitions_without_a_reader_and_records_that_are_gone_are_said() -> None:
    positions = [position(0, 500, member=None), position(1, 500, start=200)]
    said = texts(BEHIND, positions, MEMBERS, 1.0)
    assert "Nobody reads 1 partition" in said
    assert "Retention removed records of 1 partition" in said
    assert positions[1].next == 200


def test_what_is_written_is_known_only_when_every_topic_is() -> None:
    group = replace(BEHIND, topics=("a", "b"))
    assert written_to(group, {"a": 1.0, "b": 2.0}) == 3.0
    assert written_to(group, {"a": 1.0, "b": None}) is None
    assert written_to(replace(group, topics=()), {}) is None
