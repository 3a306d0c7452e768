"""Nonsense in headers that are read: each has one behaviour, and is counted."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.client import expiry, headers, records
from broker.client.headers import Numeric
from broker.client.ladder import READ, RetryTopic
from broker.client.policy import Ladder
from broker.client.records import Record

NOW = 1_700_000_000.0
ANY = st.one_of(
    st.binary(max_size=40),
    st.integers().map(lambda n: str(n).encode()),
    st.integers(int(NOW * 1000) - 10**9, int(NOW * 1000) + 10**9).map(lambda n: str(n).encode()),
    st.sampled_from(["1e3", "0x10", "١٢", "²", "+5", " 5", "5 ", "--5", "-", "", "NaN", "1.5", "inf"]).map(str.encode),
)
EVERY = (*READ, *expiry.READ, headers.REDRIVES)


def record(*given: tuple[str, bytes | None], topic: str = "orders", partition: int = 0) -> Record:
    return Record(topic, partition, 3, int(NOW * 1000), b"k", b"v", given)


@given(header=st.sampled_from(EVERY), value=ANY)
def test_a_number_is_plain_digits_in_the_headers_range_and_all_else_is_odd(header: Numeric, value: bytes) -> None:
    found = headers.number(record((header.name, value)), header)
    plain = value.removeprefix(b"-")
    is_number = 0 < len(plain) <= 19 and all(48 <= byte <= 57 for byte in plain)
    expected = int(value) if is_number and header.low <= int(value) <= header.high else None
    assert found == expected
    assert headers.is_odd(record((header.name, value)), header) is (expected is None)


@given(value=ANY)
@example(value=b"0")
@example(value=b"-5")
@example(value=b"9223372036854775807")
@example(value=b"9223372036854775808")
def test_expires_at_sets_an_expiry_only_where_it_is_a_number_and_the_past_has_expired(value: bytes) -> None:
    one = record((records.EXPIRES_AT, value))
    number = headers.number(one, headers.EXPIRES_AT)
    assert expiry.is_expired(one, NOW) is (number is not None and number <= NOW * 1000)


@given(value=ANY)
@example(value=b"0")
@example(value=b"4294967295")
@example(value=b"4294967296")
def test_mqtt_expiry_sets_an_expiry_only_within_what_mqtt_allows(value: bytes) -> None:
    one = record((headers.MQTT_EXPIRY, value))
    seconds = headers.number(one, headers.EXPIRY)
    assert expiry.expires_at(one) == (None if seconds is None else int(NOW * 1000) + seconds * 1000)


def test_of_two_expiries_the_earlier_counts_and_an_odd_one_doesnt_hide_the_other() -> None:
    at = (records.EXPIRES_AT, b"%d" % (int(NOW * 1000) + 5000))
    assert expiry.expires_at(record(at, (headers.MQTT_EXPIRY, b"9"))) == int(NOW * 1000) + 5000
    assert expiry.expires_at(record(at, (headers.MQTT_EXPIRY, b"2"))) == int(NOW * 1000) + 2000
    assert expiry.expires_at(record(at, (headers.MQTT_EXPIRY, b"soon"))) == int(NOW * 1000) + 5000


@given(
    at=ANY, attempts=ANY, topic=st.binary(max_size=5), partition=ANY, offset=ANY, timestamp=ANY, step=st.integers(0, 9)
)
def test_whatever_stands_in_the_retry_topic_is_tried_within_its_steps_delay_and_ends_as_a_dead_letter(
    at: bytes, attempts: bytes, topic: bytes, partition: bytes, offset: bytes, timestamp: bytes, step: int
) -> None:
    retries = RetryTopic(Ladder(delays=(1.0, 60.0, 3600.0)), "g")
    one = record(
        (records.DELIVER_AT, at),
        (records.ATTEMPTS, attempts),
        (records.ORIGIN_TOPIC, topic),
        (records.ORIGIN_PARTITION, partition),
        (records.ORIGIN_OFFSET, offset),
        (records.ORIGIN_TIMESTAMP, timestamp),
        topic=retries.name,
        partition=step,
    )
    due = retries.due(one, NOW)
    assert due <= NOW + retries.delays[min(step, 2)]
    if headers.number(one, headers.DELIVER_AT) is None:
        assert due == NOW
    assert retries.failures(one) >= 1
    original = retries.original(one)
    assert original.value == one.value
    # a record climbs at most the whole ladder before it is given up
    failures, moves = retries.failures(one), 0
    while retries.next(original, failures + 1, ValueError(), NOW) is not None:
        failures, moves = failures + 1, moves + 1
        assert moves < 3
    assert failures + 1 > 3


@pytest.mark.parametrize("value", [b"-1", b"0", b"17x", b"9" * 30])
def test_attempts_that_are_none_are_told_by_the_partition(value: bytes) -> None:
    retries = RetryTopic(Ladder(), "g")
    assert retries.failures(record((records.ATTEMPTS, value), topic=retries.name, partition=4)) == 5
