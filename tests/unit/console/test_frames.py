"""The picture's way through `__sluice_metrics`: whatever goes in comes out, and a gap is never papered over."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.snapshot import Cluster, Feature, Group, Node, Picture, Topic, Totals
from console.snapshot.frames import Assembler, Notice, UnknownVersion, delta, keyframe, notice

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12)
maybe = st.none() | st.integers(0, 2**53)
topics = st.builds(Topic, name=names, partitions=st.integers(0, 100), messages=maybe, lag=maybe, last=maybe)
groups = st.builds(
    Group, name=names, state=names, members=st.none() | st.integers(0, 9), topics=st.lists(names, max_size=3).map(tuple)
)
pictures = st.builds(
    Picture,
    at=st.integers(1, 2**45),
    totals=st.builds(Totals, lag=maybe, devices=maybe),
    topics=st.lists(topics, max_size=6).map(lambda rows: {row.name: row for row in rows}),
    groups=st.lists(groups, max_size=6).map(lambda rows: {row.name: row for row in rows}),
    traffic=st.dictionaries(names, st.dictionaries(names, maybe, max_size=3), max_size=4),
    trouble=st.text(max_size=10),
)


def fed(assembler: Assembler, records: list[bytes]) -> object:
    news = None
    for record in records:
        news = assembler.feed(record)
    return news


@given(st.lists(pictures, min_size=1, max_size=5))
def test_a_reader_that_misses_nothing_holds_what_was_published(shown: list[Picture]) -> None:
    reader = Assembler()
    assert fed(reader, list(keyframe(shown[0], "e", 0))) == shown[0]
    for sequence, (old, new) in enumerate(itertools.pairwise(shown), 1):
        assert reader.feed(delta(old, new, "e", sequence)) == new


def test_a_large_picture_is_cut_into_parts_and_put_together() -> None:
    picture = Picture(
        at=5,
        topics={f"t{n}": Topic(name=f"t{n}", partitions=n) for n in range(1234)},
        groups={f"g{n}": Group(name=f"g{n}", lag=n) for n in range(77)},
        cluster=Cluster(
            open_doors=("mqtt", "kafka"),
            id="x",
            nodes=(Node(id=1, host="h", port=2),),
            features={"acls": Feature(available=False, reason="off")},
        ),
    )
    records = list(keyframe(picture, "e", 3))
    assert len(records) == 3
    assert max(map(len, records)) < 100_000
    reader = Assembler()
    assert [reader.feed(record) for record in records[:-1]] == [None, None]
    assert reader.feed(records[-1]) == picture


def test_a_reader_that_missed_a_delta_waits_for_the_next_keyframe() -> None:
    first = Picture(at=1, topics={"a": Topic(name="a", messages=1)})
    second, third = replace(first, at=2), replace(first, at=3, topics={"a": Topic(name="a", messages=9)})
    reader = Assembler()
    fed(reader, list(keyframe(first, "e", 0)))
    assert reader.feed(delta(second, third, "e", 2)) is None
    assert reader.feed(delta(third, third, "e", 3)) is None
    assert fed(reader, list(keyframe(third, "e", 4))) == third


def test_deltas_of_another_monitor_are_not_mixed_in() -> None:
    first = Picture(at=1)
    reader = Assembler()
    fed(reader, list(keyframe(first, "one", 0)))
    assert reader.feed(delta(first, replace(first, at=2), "two", 1)) is None


def test_a_reader_that_starts_in_the_middle_of_a_keyframe_waits() -> None:
    picture = Picture(at=5, topics={f"t{n}": Topic(name=f"t{n}") for n in range(1000)})
    _, second = keyframe(picture, "e", 0)
    reader = Assembler()
    assert reader.feed(second) is None
    again = list(keyframe(picture, "e", 1))
    assert fed(reader, again) == picture


def test_notices_pass_at_any_time_and_unknown_versions_are_refused_loudly() -> None:
    reader = Assembler()
    assert reader.feed(notice("topic", "a", "deleted", 1)) == Notice(what="topic", name="a", verb="deleted")
    with pytest.raises(UnknownVersion):
        reader.feed(b'{"v": 99, "kind": "key"}')


def test_fields_of_a_newer_monitor_are_ignored() -> None:
    (record,) = keyframe(Picture(at=1, topics={"a": Topic(name="a")}), "e", 0)
    newer = record.replace(b'{"name":"a"}', b'{"name":"a","colour":"red"}')
    assert newer != record
    picture = Assembler().feed(newer)
    assert isinstance(picture, Picture)
    assert picture.topics["a"] == Topic(name="a")
