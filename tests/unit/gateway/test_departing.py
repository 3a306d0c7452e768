"""Who hurries, and when a batch leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.storage.departing import AGAIN, ENOUGH, GATHER, LONGEST, PATIENCE, Departures


def test_who_publishes_right_after_an_acknowledgement_hurries_however_late_that_came() -> None:
    departures = Departures()
    departures.left(10.0, 1)
    assert not departures.hurries(11.9, 10.0), "it was not answered yet"
    departures.settled(12.0, began=9.99, left=10.0, answered=1, hurrying=0)
    assert departures.hurries(12.0 + AGAIN / 2, 10.0)
    assert not departures.hurries(12.0 + AGAIN / 2, 9.98), "it was another batch that had its message"
    assert not departures.hurries(12.0 + AGAIN, 10.0)
    assert departures.hurries(20.0, 20.0 - AGAIN / 2), "whoever comes so often does"


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 2000), st.integers(0, 500)), max_size=20),
    st.integers(1, 20_000),
    st.integers(0, 500),
    st.integers(0, 10),
)
def test_no_batch_waits_for_ever_nor_a_lone_device_at_all(
    past: list[tuple[float, int, int]], count: int, hurrying: int, under_way: int
) -> None:
    departures = Departures()
    now = 100.0
    for took, size, answered in past:
        departures.left(now, size)
        now += took
        departures.settled(now, now - took, now - took, answered, hurrying)
    due = departures.due(count, hurrying, under_way)
    assert due <= now + (LONGEST if under_way else max(GATHER, PATIENCE))
    if count >= ENOUGH and under_way < 2:
        assert due <= now
    departures.settled(now, now, now, 1, 0)
    assert departures.due(1, 1, 0) <= now
