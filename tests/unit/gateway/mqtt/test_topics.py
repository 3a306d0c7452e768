from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt.topics import (
    MAX_LEVELS,
    Retained,
    Subscriptions,
    matches,
    split_share,
    valid_filter,
    valid_name,
)

LEVEL = st.sampled_from(["a", "b", "", "long name", "$SYS", "é"])
NAMES = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(valid_name)
FILTERS = (
    st.tuples(st.lists(st.one_of(LEVEL, st.just("+")), max_size=4), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(valid_filter)
)


@pytest.mark.parametrize("topic", ["a", "/", "a//b", "$SYS/x", "sport/ü", " "])
def test_ordinary_names_are_names(topic: str) -> None:
    assert valid_name(topic)
    assert valid_filter(topic)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a#", "a\x00b", "/" * MAX_LEVELS])
def test_wildcards_nul_and_too_many_levels_are_no_names(topic: str) -> None:
    assert not valid_name(topic)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/#", "+/+/#", "/+", "+/a/+", "/#"])
def test_wildcards_may_fill_a_level_of_a_filter(topic_filter: str) -> None:
    assert valid_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+", "+a/b", "##", "#/", "a/b+/c", "\x00"])
def test_wildcards_may_not_share_a_level(topic_filter: str) -> None:
    assert not valid_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/b", (None, "a/b")),
        ("$share/g/a/b", ("g", "a/b")),
        ("$share/g//b", ("g", "/b")),
        ("$share/g", ("g", "")),
        ("$share//a", (None, "")),
        ("$share/g+/a", ("g+", "")),
        ("$share", (None, "")),
        ("$shared/x/y", (None, "$shared/x/y")),
    ],
)
def test_a_share_prefix_is_split_off_and_a_bad_one_leaves_no_filter(
    topic_filter: str, expected: tuple[str | None, str]
) -> None:
    assert split_share(topic_filter) == expected


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/#", "sport", True),
        ("sport/#", "sport/tennis/player1", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/+", "$SYS/monitor", True),
        ("a/#", "a/$SYS", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_matching_follows_the_specifications_examples(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
    tree: Subscriptions[str, int] = Subscriptions()
    tree.add(topic_filter, "s", 1)
    assert bool(tree.match(topic)) is expected
    retained: Retained[str] = Retained()
    retained.set(topic, topic)
    assert list(retained.match(topic_filter)) == ([topic] if expected else [])


@given(filters=st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=20), topic=NAMES)
def test_the_tree_finds_exactly_what_matches_one_by_one(filters: list[tuple[str, int]], topic: str) -> None:
    tree: Subscriptions[int, str] = Subscriptions()
    for topic_filter, subscriber in filters:
        tree.add(topic_filter, subscriber, topic_filter)
    found = [(value, who) for values in tree.match(topic) for who, value in values.items()]
    assert sorted(found) == sorted({entry for entry in filters if matches(entry[0], topic)})


@given(st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=20))
def test_a_tree_that_lost_every_subscription_is_as_new(filters: list[tuple[str, int]]) -> None:
    tree: Subscriptions[int, None] = Subscriptions()
    for topic_filter, subscriber in filters:
        tree.add(topic_filter, subscriber, None)
    assert tree.count == len(set(filters))
    for topic_filter, subscriber in set(filters):
        assert tree.remove(topic_filter, subscriber)
        assert not tree.remove(topic_filter, subscriber)
    assert tree.count == 0
    assert tree._root.children is None and tree._root.value is None


@given(topics=st.lists(NAMES, max_size=20), topic_filter=FILTERS)
def test_retained_look_ups_find_exactly_what_matches(topics: list[str], topic_filter: str) -> None:
    retained: Retained[str] = Retained()
    for topic in topics:
        retained.set(topic, topic)
    assert sorted(retained.match(topic_filter)) == sorted({one for one in topics if matches(topic_filter, one)})
    for topic in set(topics):
        assert retained.get(topic) == topic
        assert retained.remove(topic) == topic
    assert retained.count == 0
    assert retained._root.children is None


@given(
    changes=st.lists(st.tuples(st.booleans(), FILTERS, st.integers(0, 2)), max_size=40),
    topics=st.lists(NAMES, max_size=5),
)
def test_a_tree_is_right_whatever_came_and_went(changes: list[tuple[bool, str, int]], topics: list[str]) -> None:
    tree: Subscriptions[int, str] = Subscriptions()
    model: set[tuple[str, int]] = set()
    for adding, topic_filter, subscriber in changes:
        entry = (topic_filter, subscriber)
        if adding:
            assert tree.add(topic_filter, subscriber, topic_filter) is (entry in model)
            model.add(entry)
        else:
            assert tree.remove(topic_filter, subscriber) is (entry in model)
            model.discard(entry)
    assert tree.count == len(model)
    for topic in topics:
        found = [(value, who) for values in tree.match(topic) for who, value in values.items()]
        assert sorted(found) == sorted(entry for entry in model if matches(entry[0], topic))


@given(
    topics=st.sets(NAMES, max_size=20),
    topic_filter=FILTERS,
    changes=st.lists(st.tuples(st.booleans(), NAMES), max_size=20),
)
def test_a_look_up_finds_what_stays_while_other_topics_come_and_go(
    topics: set[str], topic_filter: str, changes: list[tuple[bool, str]]
) -> None:
    retained: Retained[str] = Retained()
    for topic in topics:
        retained.set(topic, topic)
    staying, there, found = set(topics), set(topics), []
    looking = retained.match(topic_filter)
    for adding, topic in changes:
        found += [one for one in [next(looking, None)] if one is not None]
        if adding:
            retained.set(topic, topic)
            there.add(topic)
        else:
            retained.remove(topic)
            staying.discard(topic)
    found += looking
    assert len(found) == len(set(found))
    assert {one for one in staying if matches(topic_filter, one)} <= set(found) <= there
    assert all(matches(topic_filter, one) for one in found)


def nodes(tree: object) -> int:
    """How many nodes a tree has, its root left out."""
    count, waiting = 0, [tree._root]  # type: ignore[attr-defined]
    while waiting:
        below = list((waiting.pop().children or {}).values())
        count += len(below)
        waiting += below
    return count


@pytest.mark.parametrize("deep", ["+", "x"])
def test_a_filter_adds_two_nodes_at_most_however_deep_it_is(deep: str) -> None:
    tree: Subscriptions[int, None] = Subscriptions()
    filters = ["/".join([deep] * depth + [end]) for depth in range(1, MAX_LEVELS - 1) for end in ("end", "other", "#")]
    for topic_filter in filters:
        tree.add(f"{topic_filter}", 1, None)
    alone: Subscriptions[int, None] = Subscriptions()
    for number in range(1_000):
        alone.add("/".join([deep] * 100 + [str(number)] + [deep] * 99), 1, None)
    assert nodes(tree) <= 2 * len(filters)
    assert nodes(alone) == 1_001


def test_a_publish_visits_what_matches_and_not_the_other_hundred_thousand() -> None:
    class Counting(dict[str, object]):
        looked = 0

        def get(self, key: str, default: object = None) -> object:
            Counting.looked += 1
            return super().get(key, default)

    tree: Subscriptions[int, None] = Subscriptions()
    for number in range(100_000):
        tree.add(f"plant/{number}/state", number, None)
    for topic_filter in ("plant/7/state", "plant/+/state", "#"):
        tree.add(topic_filter, -1, None)

    def instrument(node: object) -> None:
        if node.children is not None:  # type: ignore[attr-defined]
            node.children = Counting(node.children)  # type: ignore[attr-defined]

    instrument(tree._root)
    instrument(tree._root.children["plant"])  # type: ignore[index]
    assert sum(len(values) for values in tree.match("plant/7/state")) == 4
    assert Counting.looked < 12


def test_the_deepest_topic_there_can_be_is_matched_without_recursion() -> None:
    topic = "/".join("x" * MAX_LEVELS)
    tree: Subscriptions[str, None] = Subscriptions()
    tree.add(topic, "s", None)
    tree.add("/".join("+" * MAX_LEVELS), "t", None)
    assert len(tree.match(topic)) == 2
