from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.counters import Counters
from gateway.ports import NotAcknowledged, Receipt, settled
from gateway.publishing.deduplication import Seen


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_repetition_waits_for_what_it_repeats() -> None:
    seen = Seen(Counters(), clock=Clock())
    first: Receipt[None] = Receipt()
    assert seen.earlier("orders", "a", 60) is None
    seen.note("orders", "a", 60, first)
    assert seen.earlier("orders", "a", 60) is first
    assert seen.earlier("invoices", "a", 60) is None, "an id counts for its topic alone"


def test_what_may_not_be_stored_is_stored_again() -> None:
    seen = Seen(Counters(), clock=Clock())
    failed, doubtful = Receipt[None](), Receipt[None]()
    seen.note("t", "failed", 60, failed)
    seen.note("t", "doubtful", 60, doubtful)
    failed.fail(NotAcknowledged("unknown"))
    doubtful.doubt(object())  # type: ignore[arg-type]  # any waiter
    assert seen.earlier("t", "failed", 60) is None and seen.earlier("t", "doubtful", 60) is None
    seen.recall("t", "doubtful", 1_000.0, 60)
    assert seen.earlier("t", "doubtful", 60) is not None, "the log has it"


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 30), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 6),
)
def test_within_its_window_an_id_is_known_unless_too_many_came_since(
    steps: list[tuple[str, float, bool]], most: int
) -> None:
    clock, counters = Clock(), Counters()
    seen = Seen(counters, clock=clock, most=most)
    model: dict[str, float] = {}  # in the order in which they were put
    for message_id, later, recalled in steps:
        clock.now += later
        known = message_id in model and clock.now - model[message_id] < 20.0
        assert (seen.earlier("t", message_id, 20.0) is not None) == known
        if known:
            continue
        if recalled:
            seen.recall("t", message_id, clock.now, 20.0)
            if message_id in model:
                continue  # known to be stored, only too old: it stays where it is
        else:
            seen.note("t", message_id, 20.0, settled())
        model.pop(message_id, None)
        model[message_id] = clock.now
        while len(model) > most:
            model.pop(next(iter(model)))
        assert len(seen) <= most


def test_a_long_id_is_remembered_by_its_digest_alone() -> None:
    seen = Seen(Counters(), clock=Clock())
    long = "x" * 60_000
    seen.note("t", long, 60, settled())
    assert seen.earlier("t", long, 60) is not None and seen.earlier("t", long + "y", 60) is None
    assert max(len(message_id) for _, message_id in seen._ids) < 100
