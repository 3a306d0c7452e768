"""`$delayed/<seconds>/<topic>`: one form, and everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.delaying import MAX_DELAY_MS, when
from gateway.publishing.target import later


@given(seconds=st.integers(0, MAX_DELAY_MS // 1000), inner=st.text(min_size=1, max_size=30), zeros=st.integers(0, 2))
def test_up_to_thirty_days_of_whole_seconds_and_any_inner_topic(seconds: int, inner: str, zeros: int) -> None:
    found = later(f"$delayed/{'0' * zeros}{seconds}/{inner}")
    assert found == (f"{seconds}s".encode(), inner)
    assert when(None, found[0].decode(), 1000) == 1000 + seconds * 1000


@pytest.mark.parametrize(
    "topic",
    [
        "$delayed/",
        "$delayed//",
        "$delayed/5",
        "$delayed/5/",
        "$delayed//a",
        "$delayed/-1/a",
        "$delayed/+5/a",
        "$delayed/1.5/a",
        "$delayed/1e3/a",
        "$delayed/ 5/a",
        "$delayed/٣/a",
        "$delayed/²/a",
        "$delayed/2592001/a",
        "$delayed/4294967295/a",
        "$delayed/99999999999999999999/a",
    ],
)
def test_any_other_form_means_nothing(topic: str) -> None:
    assert later(topic) is None
