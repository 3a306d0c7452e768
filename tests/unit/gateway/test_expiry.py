"""When a message is too old, whatever its headers say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client import Record
from gateway import contract
from gateway.counters import Counters
from gateway.delivering.commands import Commands
from gateway.delivering.expiry import interval, letter, moment
from gateway.delivering.messages import message_of
from gateway.mqtt.sender import LONGEST, Sender, publish_frame
from gateway.outcomes import Outcomes
from gateway.ports import Message, PublishProperties
from gateway.publishing.traffic import Traffic
from gateway.registry import Registry
from gateway.routes import DEAD_LETTER, DISCARD, Downlink, Uplink, problems

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


def outcomes(*found: Uplink | Downlink, keep: bool) -> tuple[Outcomes, Counters, Traffic, list[str]]:
    registry, counters, traffic = Registry(), Counters(), Traffic()
    for route in found:
        registry.apply(contract.ROUTES, route.name.encode(), contract.encode(route))
    written: list[str] = []

    class Log:
        def write(self, topic: str, value: bytes, key: bytes, headers: Any) -> None:
            written.append(f"{topic} {value.decode()}")

    nothing: Any = None
    commands = Commands(nothing, registry, nothing, counters, lambda *_: nothing, lambda: 0.0, nothing)
    log: Any = Log()
    made = Outcomes(
        registry=registry,
        sessions=nothing,
        commands=commands,
        shares=nothing,
        lease=nothing,
        ticks=lambda: log,
        counters=counters,
        traffic=traffic,
        keep_expired=keep,
    )
    return made, counters, traffic, written


@pytest.mark.parametrize("keep", [False, True])
def test_a_route_decides_what_becomes_of_its_expired_messages_and_the_gateway_of_all_others(keep: bool) -> None:
    made, counters, traffic, written = outcomes(
        Uplink(name="alarms", filter="alarm/#", expired=DEAD_LETTER),
        Uplink(name="samples", filter="sample/#", expired=DISCARD),
        Downlink(name="orders", topic="orders", mqtt_topic="alarm/{key}", expired=DISCARD),
        Downlink(name="recalls", topic="recalls", mqtt_topic="sample/{key}", expired=DEAD_LETTER),
        keep=keep,
    )
    for name, topic, origin in (
        ("alarm", "alarm/1", "mqtt.messages"),
        ("sample", "sample/1", "mqtt.messages"),
        ("order", "alarm/2", "orders"),
        ("recall", "sample/2", "recalls"),
        ("other", "x", "mqtt.messages"),
    ):
        made.expired("late", Message(topic, name.encode(), 1, origin=(origin, 0, 1)))
    made.expired("late", Message("alarm/1", b"alarm of QoS 0", 0, origin=("mqtt.messages", 0, 2)))
    kept = ["alarm", "recall", *(["other"] if keep else [])]
    assert written == [f"dlq.gateway {name}" for name in kept]
    assert counters.expired_kept == len(kept)
    rows = {name: row.dead_lettered for name, row in traffic.routes.rows.items()}
    assert rows == {"alarms": 1, "recalls": 1} | ({"(default)": 1} if keep else {})


def test_a_route_with_another_choice_is_not_put_in_force() -> None:
    assert problems(Uplink(name="a", filter="a", expired="keep")) == ["expired: must be empty, discard or dead-letter"]
    assert problems(Downlink(name="a", topic="a", mqtt_topic="a", expired="?"))
