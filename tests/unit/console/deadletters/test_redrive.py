"""What a dead letter looks like when it is sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.deadletters.indexer import letter_of
from console.deadletters.redrive import NoTarget, again, own_headers, target_of
from console.kafka import Record

DEATH = (
    ("sluice.error.reason", b"handler"),
    ("sluice.error.detail", b"KeyError: 'plate'"),
    ("sluice.attempts", b"5"),
    ("sluice.origin.topic", b"orders"),
    ("sluice.origin.partition", b"2"),
    ("sluice.origin.offset", b"77"),
    ("sluice.origin.group", b"billing"),
)


def dead(*headers: tuple[str, bytes | None], topic: str = "dlq.orders") -> Record:
    return Record(topic, 0, 9, 1_700_000_000_000, b"key", b"value", headers)


def header(headers: tuple[tuple[str, bytes | None], ...], name: str) -> list[bytes | None]:
    return [value for key, value in headers if key == name]


def test_key_value_and_the_senders_headers_go_back_unchanged() -> None:
    sent = again(dead(("trace", b"\xff\x00"), *DEATH, ("empty", None)), job="j1")
    assert (sent.topic, sent.key, sent.value) == ("orders", b"key", b"value")
    assert sent.headers[:2] == (("trace", b"\xff\x00"), ("empty", None))


def test_a_null_value_stays_null() -> None:
    record = Record("dlq.orders", 0, 1, 0, None, None, DEATH)
    assert (again(record, job="").key, again(record, job="").value) == (None, None)


def test_the_redrive_is_marked_with_its_job_and_counted_on() -> None:
    once = again(dead(*DEATH), job="j1")
    twice = again(dead(*once.headers, *DEATH), job="j2")
    assert header(once.headers, "sluice.redrive.count") == [b"1"]
    assert header(twice.headers, "sluice.redrive.count") == [b"2"]
    assert header(twice.headers, "sluice.redrive.job") == [b"j2"]


@pytest.mark.parametrize(
    ("topic", "origin", "target"),
    [
        ("dlq.orders", "", "orders"),
        ("dlq.orders", "parcels", "parcels"),
        ("orders-dlt", None, "orders"),
        ("dlq.gateway", None, None),
        ("dlq.gateway", "mqtt.messages", "mqtt.messages"),
        ("strange", None, None),
    ],
)
def test_it_goes_to_where_it_says_it_came_from_else_to_what_the_topics_name_says(
    topic: str, origin: str | None, target: str | None
) -> None:
    assert target_of(topic, origin) == target


def test_a_letter_that_does_not_say_where_it_came_from_needs_a_target() -> None:
    nameless = dead(("sluice.error.reason", b"render"), topic="dlq.gateway")
    with pytest.raises(NoTarget):
        again(nameless, job="")
    assert again(nameless, job="", target="orders").topic == "orders"


@pytest.mark.parametrize(
    "name",
    ["__dlq.errors.offset", "kafka_dlt-exception-message", "__connect.errors.topic", "x-death", "sluice.error.reason"],
)
def test_what_a_dead_letter_writer_added_does_not_go_back(name: str) -> None:
    assert own_headers([(name, b"x"), ("mine", b"y")]) == (("mine", b"y"),)


@given(
    st.lists(st.tuples(st.text(max_size=30), st.none() | st.binary(max_size=20)), max_size=6), st.binary(max_size=40)
)
def test_any_record_can_be_indexed(headers: list[tuple[str, bytes | None]], key: bytes) -> None:
    letter = letter_of(Record("dlq.x", 1, 2, -1, key, None, tuple(headers)), "id")
    assert len(letter.key) <= 200
    assert letter.key.isprintable() or letter.key == ""
    assert letter.at == 0


@pytest.mark.parametrize("attempts", [b"-3", b"99999999999999999999", b"many"])
def test_nonsense_in_the_attempts_header_is_unknown_not_a_number(attempts: bytes) -> None:
    letter = letter_of(dead(("sluice.error.reason", b"handler"), ("sluice.attempts", attempts)), "id")
    assert letter.attempts is None


def test_what_had_expired_does_not_expire_at_once_when_it_is_sent_again() -> None:
    expiry, reason = ("sluice.expires.at", b"1"), ("sluice.error.reason", b"expired")
    origin = ("sluice.origin.topic", b"orders")
    sent = again(Record("dlq.orders", 0, 1, 0, None, b"v", (expiry, reason, origin)), job="j")
    assert dict(sent.headers).get("sluice.expires.at") is None
    kept = again(
        Record("dlq.orders", 0, 1, 0, None, b"v", (expiry, ("sluice.error.reason", b"handler"), origin)), job="j"
    )
    assert dict(kept.headers)["sluice.expires.at"] == b"1"
