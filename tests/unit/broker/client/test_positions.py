"""What a commit says of records that were finished out of order."""

from hypothesis import given
from hypothesis import strategies as st

from broker.client import positions
from broker.client.positions import LIMIT, Position

AHEAD = st.frozensets(st.integers(0, 3000), max_size=600)


@given(base=st.integers(0, 2**62), ahead=AHEAD, tail=st.text(max_size=9))
def test_a_position_is_read_back_as_it_was_whatever_stray_text_follows(
    base: int, ahead: frozenset[int], tail: str
) -> None:
    position = Position(base, frozenset(base + each for each in ahead))
    assert positions.read(base, position.metadata() + tail if ahead else "") == position


def test_every_second_of_a_thousand_records_fits_what_kafka_takes() -> None:
    assert len(Position(2**60, frozenset(range(2**60 + 1, 2**60 + 1500, 2))).metadata()) <= LIMIT


def test_somebody_elses_metadata_and_that_of_another_offset_say_nothing() -> None:
    mine = Position(5, frozenset({7, 8})).metadata()
    assert positions.read(5, mine).ahead == {7, 8}
    assert positions.read(6, mine) == Position(6)
    for other in ("", "checkpoint", "sluice1:5:!!!;", "sluice1:5:", "sluice1:5://///////w==;", "sluice2:5:AgI=;"):
        assert positions.read(5, other) == Position(5)


@given(text=st.text(max_size=60))
def test_no_metadata_whatsoever_is_an_error(text: str) -> None:
    assert positions.read(0, text).next == 0
    assert positions.read(0, f"sluice1:0:{text};").next == 0
