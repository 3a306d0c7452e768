"""The age of the oldest unread record: known, bounded, or not known; never a guess."""

from __future__ import annotations

from console.kafka import TopicPartition
from console.monitor.ages import Ages

PLACE, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


def age(ages: Ages, committed: int, end: int | None, now: float) -> float | None:
    ends = {} if end is None else {PLACE: end}
    return ages.of({"g": {PLACE: committed}}, ends, {PLACE: 0}, now)["g"]


def test_a_record_that_was_never_looked_at_has_no_age() -> None:
    assert age(Ages(), 3, 10, 100.0) is None


def test_a_group_that_has_just_read_everything_is_not_of_unknown_age() -> None:
    ages = Ages()
    age(ages, 5, 5, 100.0)
    assert age(ages, 5, 9, 103.0) == 3.0, "what came since is no older than that"
    assert ages._next_turn() == {PLACE: ("g", 5)}, "and is looked at all the same"
    ages._known[("g", PLACE)] = (5, 101_000)
    assert age(ages, 5, 9, 104.0) == 3.0
    assert ages._next_turn() == {}


def test_an_end_that_is_not_known_is_no_sign_of_having_read_everything() -> None:
    ages = Ages()
    age(ages, 5, None, 100.0)
    assert age(ages, 5, 9, 101.0) is None


def test_nothing_is_kept_of_groups_that_are_gone() -> None:
    ages = Ages()
    ages.of({"g": {PLACE: 5}, "h": {OTHER: 2}}, {PLACE: 5, OTHER: 9}, {}, 100.0)
    ages.of({"h": {OTHER: 2}}, {OTHER: 2}, {}, 101.0)
    assert set(ages._known) == {("h", OTHER)}
    ages.of({}, {}, {}, 102.0)
    assert not ages._known
