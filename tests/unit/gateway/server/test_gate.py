"""The gate: whose turn comes when, and who is shut out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.server.gate import DEAR, SHUT, Gate
from gateway.server.pace import BRIEF, LISTED, RUBBISH, TROUBLE
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
    assert case.gate.wait(HONEST, 5.0) == 0.0 and case.gate.slowed(5.0, 10) == []


@pytest.mark.parametrize(
    ("spent", "borne"), [(0.0, int(TROUBLE / BRIEF)), (0.02, int(TROUBLE / (BRIEF + DEAR * 0.02)))]
)
def test_connections_that_end_at_once_are_trouble_and_the_more_the_dearer_they_were(spent: float, borne: int) -> None:
    case = Case()
    for number in range(borne + 10):
        if number <= borne:
            assert case.gate.wait(HONEST, 5.0) == 0.0
        case.gate.left(HONEST, 5.0)
        if spent:
            case.gate.worked(HONEST, 5.0, spent)
    waits = [case.gate.wait(HONEST, 5.0) or 0.0 for _ in range(3)]
    assert waits[0] > 0 and waits[2] - waits[1] == pytest.approx(max(BRIEF, DEAR * spent))


def test_who_is_slowed_down_is_known_with_how_long_it_waits_until_it_is_not() -> None:
    case = Case()
    assert case.gate.slowed(5.0, 10) == []
    case.crowd(5.0)
    case.gate.spoiled("[2001:db8::1]:4711", 5.0)
    [(network, wait, dropped)] = case.gate.slowed(5.0, 10)
    assert (network, dropped) == ("10.0.0.1", False)
    assert wait > 5.0, "longer than the patience"
    assert case.gate.closed(RUDE, 5.0)
    assert [(network, dropped) for network, _, dropped in case.gate.slowed(5.0, 10)] == [("10.0.0.1", True)]
    assert case.gate.slowed(5.0, 0) == []
    assert case.gate.slowed(11.0, 10) == []


def test_of_many_that_are_slow_the_slowest_are_named_and_networks_as_people_write_them() -> None:
    case = Case()
    for number in range(LISTED + 50):
        for _ in range(int(TROUBLE / RUBBISH) + 1 + min(number, 20)):
            case.gate.spoiled(f"[2001:db8:0:{number:x}::1]:4711", 5.0)
        case.gate.wait(f"[2001:db8:0:{number:x}::1]:4711", 5.0)
    assert len(case.gate.pace.slowed(5.0)) == LISTED
    found = case.gate.slowed(5.0, 3)
    assert len(found) == 3
    assert all(network.endswith("::/64") for network, _, _ in found)
    waits = [wait for _, wait, _ in found]
    assert waits == sorted(waits, reverse=True)
