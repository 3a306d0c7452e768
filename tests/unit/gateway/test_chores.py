"""Long work in small steps: how much of it a turn of the loop gets, and whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gateway.chores import MOST_CHARGED, REST, SLICE, Chores


class Case:
    """Every step takes so many seconds."""

    def __init__(self, each: float) -> None:
        self.now = 0.0
        self.waited = 0.0  # for the processor
        self.done: list[str] = []
        self.turns: list[tuple[float, Callable[[], None]]] = []
        self.chores = Chores(
            lambda seconds, call: self.turns.append((seconds, call)),
            clock=lambda: self.now + self.waited,
            spent=lambda: self.now,
        )
        self._each = each

    def work(self, name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            self.now += self._each
            self.done.append(name)
            yield

    def turn(self) -> float:
        """One turn; how long the loop had rested before."""
        [(rest, call)] = self.turns
        self.turns.clear()
        call()
        return rest


def test_a_turn_gets_a_slice_and_the_loop_rests_between() -> None:
    case = Case(SLICE / 10)
    case.chores.add("a", case.work("a", 100))
    assert not case.done
    rests = []
    while case.turns:
        before = case.now
        rests.append(case.turn())
        assert case.now - before <= SLICE * 1.11
    assert len(case.done) == 100 and 10 <= len(rests) <= 12
    assert rests[0] == 0.0 and set(rests[1:]) == {REST}


def test_owners_take_turns() -> None:
    case = Case(SLICE / 2)
    for number in range(50):
        case.chores.add("many", case.work(f"many {number}", 4))
    case.turn()
    case.chores.add("one", case.work("one", 3))
    while "one" not in case.done or case.done.count("one") < 3:
        case.turn()
    assert len(case.done) <= 12
    while case.turns:
        case.turn()
    assert [each for each in case.done if each != "one"] == [f"many {number}" for number in range(50) for _ in range(4)]


def test_work_may_ask_for_more_and_a_bug_in_it_ends_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    case = Case(SLICE)

    def asking() -> Iterator[None]:
        case.chores.add("a", case.work("more", 2))
        yield
        raise RuntimeError("a bug")

    case.chores.add("a", asking())
    case.chores.add("b", case.work("b", 1))
    while case.turns:
        case.turn()
    assert sorted(case.done) == ["b", "more", "more"] and "could not be finished" in caplog.text
    case.chores.add("a", case.work("again", 1))
    case.turn()
    assert case.done[-1] == "again"


def test_what_was_done_for_whom_is_told() -> None:
    case = Case(SLICE / 4)
    told: dict[str, float] = {}
    case.chores.charged = lambda owner, seconds: told.update({owner: told.get(owner, 0.0) + seconds})
    case.chores.add("a", case.work("a", 30))
    case.chores.add("b", case.work("b", 10))
    while case.turns:
        case.turn()
        case.waited += 1.0
    assert told == pytest.approx({"a": 30 * SLICE / 4, "b": 10 * SLICE / 4})


def test_who_waits_for_the_processor_is_not_charged_for_it() -> None:
    case = Case(SLICE / 4)
    told: list[float] = []
    case.chores.charged = lambda owner, seconds: told.append(seconds)

    def waiting() -> Iterator[None]:
        for _ in case.work("a", 4):
            case.waited += 0.05  # another process has it
            yield

    case.chores.add("a", waiting())
    turns = 0
    while case.turns:
        case.turn()
        turns += 1
    assert sum(told) == pytest.approx(SLICE) and turns == 5, "but a slice ends"


def test_work_is_charged_for_at_its_end_and_long_work_in_parts() -> None:
    """Who asks for as much as fills many slices pays for a connection's worth at once, or comes again too soon."""
    case = Case(SLICE / 4)
    charges: list[float] = []
    case.chores.charged = lambda owner, seconds: charges.append(seconds)
    case.chores.add("a", case.work("short", 12))
    case.chores.add("a", case.work("long", 250))
    while case.turns:
        case.turn()
    assert charges == pytest.approx(
        [3 * SLICE, MOST_CHARGED + SLICE / 4, MOST_CHARGED + SLICE / 4, 12 * SLICE], rel=0.3
    )
    assert sum(charges) == pytest.approx(262 * SLICE / 4)


def test_an_owner_rests_for_what_its_work_costs_others_and_nobody_else_does() -> None:
    case = Case(SLICE / 4)
    done: list[str] = []

    def costly() -> Iterator[float | None]:
        done.append("first")
        yield 5.0
        done.append("second")

    case.chores.add("a", costly())
    case.chores.add("a", case.work("a", 3))
    case.chores.add("b", case.work("b", 30))
    case.turn()
    case.chores.add("a", case.work("a", 2))
    [rest] = [each for each in case.turns if each[0] == 5.0]
    case.turns.remove(rest)
    while case.turns:
        case.turn()
    assert done == ["first"] and case.done == ["b"] * 30
    rest[1]()
    while case.turns:
        case.turn()
    assert done == ["first", "second"] and case.done[30:] == ["a"] * 5
