"""When a message is too old, whatever its headers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client import Record
from gateway import contract
from gateway.delivering.expiry import interval, letter, moment
from gateway.delivering.messages import message_of
from gateway.mqtt.sender import LONGEST, Sender, publish_frame
from gateway.ports import Message, PublishProperties

FAR = 9_223_372_036_854_775_807


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1500", 1.5),
        (b"0", 0.0),
        (b"-5", -0.005),
        (b"%d" % FAR, FAR / 1000),
        (b"%d" % (FAR + 1), None),
        (b"9" * 400, None),
        (b"", None),
        (b"-", None),
        (b"1.5", None),
        (b"soon", None),
        (b"1e9", None),
        ("٣".encode(), None),
        (None, None),
    ],
)
def test_a_moment_that_makes_no_sense_is_none(value: bytes | None, expected: float | None) -> None:
    assert moment(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"5", 5), (b"0", 0), (b"4294967295", LONGEST), (b"4294967296", None), (b"-1", None), (b"x", None), (None, None)],
)
def test_an_interval_that_makes_no_sense_is_none(value: bytes | None, expected: int | None) -> None:
    assert interval(value) == expected


def record(*headers: tuple[str, bytes]) -> Record:
    return Record("t", 0, 1, 10_000, None, b"x", (("mqtt.topic", b"a"), ("mqtt.qos", b"1"), *headers))


def test_the_earlier_of_two_expiries_counts() -> None:
    def end(*headers: tuple[str, bytes]) -> float | None:
        found = message_of(record(*headers))
        assert found is not None
        return found.expires_at

    assert end() is None
    assert end((contract.H_EXPIRY, b"5")) == 15.0
    assert end(("sluice.expires.at", b"12000")) == 12.0
    assert end((contract.H_EXPIRY, b"5"), ("sluice.expires.at", b"12000")) == 12.0
    assert end((contract.H_EXPIRY, b"5"), ("sluice.expires.at", b"90000")) == 15.0
    assert end((contract.H_EXPIRY, b"nonsense"), ("sluice.expires.at", b"90000")) == 90.0
    assert end((contract.H_EXPIRY, b"5"), ("sluice.expires.at", b"?")) == 15.0


def test_a_dead_letter_says_what_expired_and_where_it_came_from() -> None:
    properties = PublishProperties(content_type="text/plain", message_expiry=3)
    topic, value, key, headers = letter(
        Message("a/b", b"x", 1, properties=properties, sender="s", origin=("t", 2, 7)), "late"
    )
    assert (topic, value, key) == ("dlq.gateway", b"x", b"late")
    found = dict(headers or [])
    assert found["mqtt.topic"] == b"a/b" and found["mqtt.client.id"] == b"s" and found["mqtt.content.type"]
    assert found["sluice.error.reason"] == "expired" and "late" in str(found["sluice.error.detail"])
    assert (found["sluice.origin.topic"], found["sluice.origin.partition"]) == ("t", "2")
    assert found["sluice.origin.offset"] == "7"


class Plain(Sender):
    """A sender of which only the frames are wanted."""

    __slots__ = ()

    def __init__(self, *, v5: bool) -> None:
        self._v5 = v5
        self._largest = 0


@given(
    st.text(min_size=1, max_size=200),
    st.integers(0, 40_000),
    st.sampled_from([0x32, 0x33, 0x34]),
    st.integers(1, 0xFFFF),
    st.booleans(),
)
def test_a_frame_with_its_packet_id_put_in_is_the_frame_made_for_it(
    topic: str, size: int, first: int, packet_id: int, v5: bool
) -> None:
    message = Message(topic, b"p" * size, first >> 1 & 3)
    sender = Plain(v5=v5)
    for each in (1, packet_id):
        assert sender._patched(message, first, each) == publish_frame(message, first, each, b"" if v5 else None)
