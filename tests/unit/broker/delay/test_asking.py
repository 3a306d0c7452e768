"""What a record of `sluice.delay` asks for: every text in every header has one meaning."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from broker.client.delaying import (
    MAX_DELAY_MS,
    Cancellation,
    Delivery,
    Refused,
    asked,
    misnamed,
    when,
)
from broker.client.records import Record

NOW = 1_800_000_000_000
TEXT = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"\A[-+]?[0-9]{1,20}(ms|s|m|h|d| |\.5)?\Z"),
    st.sampled_from(["", "0", "-1", "NaN", "inf", "1e3", "٣", "9" * 400, "0x10", " 5s", "5s ", "5S", "5 s", "1_000"]),
)


def record(headers: dict[str, str], key: bytes | None = b"k", timestamp: int = NOW) -> Record:
    pairs = tuple((f"sluice.{name}", text.encode("utf-8", "surrogatepass")) for name, text in headers.items())
    return Record("sluice.delay", 0, 7, timestamp, key, b"v", pairs)


@given(milliseconds=st.integers(0, MAX_DELAY_MS))
def test_any_time_within_thirty_days_is_kept_to_the_millisecond(milliseconds: int) -> None:
    assert when(str(NOW + milliseconds), None, NOW) == NOW + milliseconds
    assert when(None, f"{milliseconds}ms", NOW) == NOW + milliseconds


@given(
    amount=st.integers(0, 10**9),
    unit=st.sampled_from([("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]),
)
@example(amount=30, unit=("d", 86_400_000))
@example(amount=31, unit=("d", 86_400_000))
def test_a_length_of_time_counts_from_the_records_own_timestamp(amount: int, unit: tuple[str, int]) -> None:
    found = when(None, f"{amount}{unit[0]}", NOW)
    if amount * unit[1] <= MAX_DELAY_MS:
        assert found == NOW + amount * unit[1]
    else:
        assert isinstance(found, Refused) and found.reason == "time"


@given(at=st.integers(0, NOW))
def test_the_past_is_now(at: int) -> None:
    assert when(str(at), None, NOW) == NOW


@given(text=TEXT)
def test_whatever_else_the_headers_say_is_refused_with_a_reason(text: str) -> None:
    for found in (when(text, None, NOW), when(None, text, NOW)):
        if isinstance(found, Refused):
            assert found.reason == "time" and found.detail and len(found.detail) < 250
        else:
            assert re.fullmatch(r"[0-9]+(ms|s|m|h|d)?", text) and NOW <= found <= NOW + MAX_DELAY_MS


@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["deliver.topic", "deliver.at", "deliver.after", "deliver.cancel", "deliver.cancel.row", "message.id", "x"]
        ),
        st.one_of(TEXT, st.sampled_from(["orders", "__secret", "30s", "sluice.delay"])),
    )
)
def test_every_record_is_one_of_three_things(headers: dict[str, str]) -> None:
    found = asked(record(headers))
    if "deliver.cancel" in headers or "deliver.cancel.row" in headers:
        assert isinstance(found, Cancellation) or found == Refused(reason="cancel", detail=found.detail)  # type: ignore[union-attr]  # narrowed by the first half
    elif isinstance(found, Delivery):
        assert found.target == headers["deliver.topic"] and not misnamed(found.target)
        assert NOW <= found.due <= NOW + MAX_DELAY_MS
        assert {name for name, _ in found.headers} == {f"sluice.{name}" for name in headers if "deliver" not in name}
    else:
        assert isinstance(found, Refused) and found.reason in ("time", "target")


def test_internal_topics_and_impossible_names_are_no_targets() -> None:
    for name in ("", ".", "..", "__sluice_devices", "__consumer_offsets", "a/b", "ü", "x" * 250, "sluice.delay", "a\n"):
        assert misnamed(name), name
    for name in ("orders", "a.b-c_d", "x" * 249, "dlq.orders", "_single"):
        assert not misnamed(name), name


def test_the_last_header_of_a_name_counts() -> None:
    twice = Record(
        "sluice.delay",
        0,
        7,
        NOW,
        None,
        None,
        (("sluice.deliver.topic", b"a"), ("sluice.deliver.after", b"1s"), ("sluice.deliver.topic", b"b")),
    )
    found = asked(twice)
    assert isinstance(found, Delivery) and found.target == "b"


def test_ids_that_are_no_text_are_as_different_as_their_bytes() -> None:
    """Taken for one, cancelling one would take back the other."""
    wanted = (("sluice.deliver.topic", b"a"), ("sluice.deliver.after", b"1s"))
    ids = (b"\xff", b"\xfe", "\ufffd".encode(), b"plain")
    deliveries = [
        asked(Record("sluice.delay", 0, 7, NOW, b"k", b"v", (*wanted, ("sluice.message.id", id)))) for id in ids
    ]
    cancellations = [
        asked(Record("sluice.delay", 0, 8, NOW, b"k", None, (("sluice.deliver.cancel", id),))) for id in ids
    ]
    names = [each.id for each in deliveries if isinstance(each, Delivery)]
    assert names == [each.id for each in cancellations if isinstance(each, Cancellation)]
    assert len(set(names)) == len(ids)


def test_an_empty_id_is_none() -> None:
    found = asked(record({"deliver.topic": "a", "deliver.after": "1s", "message.id": ""}))
    assert isinstance(found, Delivery) and found.id is None
