"""What is written to `__sluice_inbox`, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import MalformedRecord
from gateway.ports import Message, PublishProperties
from gateway.sessions import entries
from gateway.sessions.entries import (
    Entry,
    chunk_key,
    decode_chunk,
    decode_header,
    decode_single,
    encode_chunk,
    encode_single,
)

SAME = ("topic", "payload", "qos", "properties", "expires_at", "sender", "origin")


@st.composite
def entry(draw: st.DrawFn, number: int = 9) -> Entry:
    properties = PublishProperties(
        content_type="x", correlation_data=draw(st.binary()), user=(("a", draw(st.text(max_size=3))),)
    )
    found = Entry(
        Message(
            draw(st.text(min_size=1, max_size=9).filter(lambda text: "\x00" not in text)),
            draw(st.binary(max_size=20)),
            draw(st.integers(0, 2)),
            properties=draw(st.just(properties) | st.none()),
            expires_at=draw(st.none() | st.floats(1, 2e9)),
            sender=draw(st.none() | st.text(min_size=1, max_size=4)),
            origin=draw(st.none() | st.tuples(st.sampled_from("tu"), st.integers(0, 3), st.integers(0, 2**62))),
        ),
        draw(st.integers(1, 2)),
        draw(st.booleans()),
        draw(st.lists(st.integers(1, 268_435_455), max_size=3).map(tuple)),
        number=number,
    )
    found.packet_id = draw(st.integers(1, 0xFFFF))
    found.released = draw(st.booleans())
    return found


def same(one: Entry, other: Entry) -> None:
    for name in SAME:
        assert getattr(one.message, name) == getattr(other.message, name), name
    for name in ("qos", "retain", "identifiers", "number", "size"):
        assert getattr(one, name) == getattr(other, name), name


@settings(deadline=None)
@given(entry())
def test_a_single_survives_its_record(given: Entry) -> None:
    again, origin = decode_single(9, encode_single(given))
    assert again is not None and origin == given.message.origin
    same(again, given)
    assert (again.packet_id, again.released) == (given.packet_id, given.released)


@settings(deadline=None)
@given(st.lists(entry(), min_size=1, max_size=8), st.booleans())
def test_a_chunk_survives_its_record(given: list[Entry], under_way: bool) -> None:
    for number, each in enumerate(given):
        each.number = 2**60 + number * number
    value = encode_chunk(2**60 - 1, given, claim=4, under_way=under_way)
    header = decode_header(value)
    assert (header.count, header.top, header.claim) == (len(given), given[-1].number, 4)
    assert header.size == sum(each.size for each in given) and header.under_way == under_way
    origins = [each.message.origin for each in given if each.message.origin is not None]
    assert set(header.last) == {max(each for each in origins if each[:2] == place[:2]) for place in origins}
    ends = [each.message.expires_at for each in given]
    assert header.expires == (0 if None in ends else max(end for end in ends if end is not None))
    again, missing = decode_chunk(2**60 - 1, value)
    assert missing == []
    for one, other in zip(given, again, strict=True):
        same(one, other)
        assert (other.packet_id, other.released) == ((one.packet_id, one.released) if under_way else (0, False))


def test_a_large_payload_is_referred_to_unless_it_is_under_way_or_has_no_record() -> None:
    large = b"x" * (entries.INLINE + 1)
    known = Entry(Message("t", large, 1, origin=("topic", 0, 5)), 1, False, (), number=1)
    unknown = Entry(Message("t", large, 1), 1, False, (), number=2)
    value = encode_chunk(1, [known, unknown])
    (first, second), ((lacking, size),) = decode_chunk(1, value)
    assert lacking is first and size == first.size == len(large) and first.message.payload == b""
    assert second.message.payload == large and len(value) < 2 * len(large)
    assert decode_chunk(1, encode_chunk(1, [known], under_way=True))[1] == []
    single, _ = decode_single(1, encode_single(known))
    assert single is not None and single.message.payload == large


def test_a_message_is_encoded_once_however_many_sessions_take_it() -> None:
    message = Message("t", b"x", 1)
    encode_chunk(1, [Entry(message, 1, False, (), number=1)])
    assert message.frames is not None
    (kept,) = message.frames.values()
    encode_chunk(7, [Entry(message, 1, False, (), number=7)])
    assert list(message.frames.values()) == [kept]


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"v":1}', b'{"v":2,"done":true}', b'{"v":1,"origin":[1]}'])
def test_an_unreadable_single_is_named(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_single(1, value)


@settings(deadline=None)
@given(st.binary() | st.sampled_from([b"\n", b"{}\n[]", b"[]\n", b'{"v":2,"n":1}\n', b'{"v":3}\n[]']))
def test_an_unreadable_chunk_is_named(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_header(value)
    with pytest.raises(MalformedRecord):
        decode_chunk(1, value)


def test_what_release_1_wrote_is_read() -> None:
    value = b'{"v":1,"qos":1,"origin":["t",0,4],"topic":"a","payload":"eA==","message_qos":1,"retain":false}'
    found, origin = decode_single(3, value)
    assert found is not None and found.message.payload == b"x" and origin == ("t", 0, 4)


def test_keys_sort_by_number_within_a_client_and_lie_in_its_range() -> None:
    numbers = (1, 9, 10, 255, 4096)
    keys = [key for number in numbers for key in (entries.single_key("a/b c", number), chunk_key("a/b c", number))]
    assert keys == sorted(keys)
    assert [entries.parse_key(key) for key in keys] == [
        ("a/b c", number, is_chunk) for number in numbers for is_chunk in (False, True)
    ]
    low, high = entries.keys_of("a/b c")
    others = [chunk_key(name, 1) for name in ("a/b", "a/b ", "a/b c!", "a/b c ", "a/b d")]
    assert all(low <= key < high for key in keys) and not any(low <= key < high for key in others)
    for key in (b"no number", b"\x000", b"a\x00x", b"a\x00b\x000"):
        with pytest.raises(MalformedRecord):
            entries.parse_key(key)
