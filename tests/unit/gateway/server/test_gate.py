"""The gate: whose turn comes when, and who is shut out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.server.gate import DEAR, SHOWN, SHUT, Gate
from gateway.server.pace import BRIEF, RUBBISH, TROUBLE
from gateway.server.shutting import Shutters

RUDE, HONEST = "10.0.0.1:4711", "10.0.0.2:4711"


class Doors(Shutters):
    """Remembers instead of asking the system."""

    def shut(self, network: str) -> bool:
        self.networks.add(network)
        return True


class Case:
    def __init__(self) -> None:
        self.doors = Doors()
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.turned_away: list[str] = []
        self.gate = Gate(
            5_000,
            5.0,
            later=lambda seconds, call: self.calls.append((seconds, call)),
            turned_away=self.turned_away.append,
            shutters=self.doors,
        )

    def crowd(self, now: float) -> None:
        """So much rubbish that its turn is more than the patience away."""
        for _ in range(int(TROUBLE / RUBBISH) + 1):
            self.gate.spoiled(RUDE, now)
        while self.gate.wait(RUDE, now) is not None:
            pass


def test_who_has_too_many_waiting_is_shut_out_once_and_let_in_again() -> None:
    case = Case()
    assert not case.gate.closed(RUDE, 5.0)
    case.crowd(5.0)
    before = len(case.turned_away)
    assert case.gate.closed(RUDE, 5.0) and case.gate.closed(RUDE, 5.0)
    assert len(case.turned_away) == before + 2
    assert case.doors.networks == {"10.0.0.1"}
    [(seconds, reopen)] = case.calls
    reopen()
    assert seconds == SHUT and not case.doors.networks
    assert not case.gate.closed(RUDE, 5.0 + 2 * SHUT)
    assert not case.gate.closed(HONEST, 5.0) and case.gate.wait(HONEST, 5.0) == 0.0


def test_connections_that_last_are_no_trouble() -> None:
    case = Case()
    for _ in range(5_000):
        assert case.gate.wait(HONEST, 5.0) == 0.0
    assert case.gate.wait(HONEST, 5.0) == 0.0 and case.gate.slowed(5.0) == []


@pytest.mark.parametrize(
    ("spent", "borne"), [(0.0, int(TROUBLE / BRIEF)), (0.02, int(TROUBLE / (BRIEF + DEAR * 0.02)))]
)
def test_connections_that_end_at_once_are_trouble_and_the_more_the_dearer_they_were(spent: float, borne: int) -> None:
    case = Case()
    for number in range(borne + 10):
        if number <= borne:
            assert case.gate.wait(HONEST, 5.0) == 0.0
        case.gate.left(HONEST, 5.0, spent)
    waits = [case.gate.wait(HONEST, 5.0) or 0.0 for _ in range(3)]
    assert waits[0] > 0 and waits[2] - waits[1] == pytest.approx(BRIEF + DEAR * spent)


def test_who_is_slowed_down_can_be_listed_until_it_is_over() -> None:
    case = Case()
    case.crowd(5.0)
    for number in range(2 * SHOWN):
        for _ in range(number + 150):
            case.gate.spoiled(f"10.1.0.{number}:1", 5.0)
            case.gate.wait(f"10.1.0.{number}:1", 5.0)
    case.gate.closed(RUDE, 5.0)
    listed = case.gate.slowed(5.0)
    assert len(listed) == SHOWN and listed[0][0] == "10.0.0.1" and listed[0][2] and not listed[1][2]
    assert [wait for _, wait, _ in listed] == sorted((wait for _, wait, _ in listed), reverse=True)
    assert case.gate.slowed(11.0) == []
