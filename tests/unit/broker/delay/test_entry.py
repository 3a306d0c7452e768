"""A pending delivery comes back as it was written; anything else is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.delay.entry import (
    Entry,
    Position,
    UnreadableEntry,
    decode,
    decode_position,
    encode,
    encode_position,
    offset_of,
)

ENTRIES = st.builds(
    Entry,
    due=st.integers(-(2**63), 2**63 - 1),
    timestamp=st.integers(-1, 2**62),
    target=st.from_regex(r"\A[a-zA-Z0-9._-]{1,249}\Z"),
    id=st.none() | st.text(max_size=40),
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=20)), max_size=5).map(tuple),
)


@given(entry=ENTRIES)
def test_an_entry_comes_back(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(entry=ENTRIES, data=st.data())
def test_a_cut_or_lengthened_entry_is_refused(entry: Entry, data: st.DataObject) -> None:
    whole = encode(entry)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for wrong in (cut, whole + b"x"):
        with pytest.raises(UnreadableEntry):
            decode(wrong)


def test_a_newer_version_is_refused_loudly() -> None:
    entry = Entry(due=1, timestamp=1, target="t", id=None, key=None, value=None)
    with pytest.raises(UnreadableEntry, match="version 2"):
        decode(b"\x02" + encode(entry)[1:])
    with pytest.raises(UnreadableEntry, match="version 2"):
        decode_position(b'{"v":2}')


@given(offset=st.integers(0, 2**48 - 1), generation=st.integers(0, 2**14))
def test_rows_of_a_topic_made_anew_never_meet_the_old_ones(offset: int, generation: int) -> None:
    position = Position(next=offset, topic="id", generation=generation)
    assert decode_position(encode_position(position)) == position
    assert offset_of(position.row(offset)) == offset
    assert position.row(offset) != Position(generation=generation + 1).row(offset)
    assert position.row(offset) < 2**63
