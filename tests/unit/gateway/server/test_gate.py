"""The gate: whose turn comes when, and who is shut out."""

from __future__ import annotations

from collections.abc import Callable

from gateway.server.gate import SHUT, SOON, Gate
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
        case.gate.left(HONEST, 5.0 + SOON, 5.0)
    assert case.gate.wait(HONEST, 5.0) == 0.0


def test_connections_that_end_at_once_are() -> None:
    case = Case()
    for _ in range(int(TROUBLE / BRIEF) + 10):
        case.gate.wait(HONEST, 5.0)
        case.gate.left(HONEST, 5.1, 5.0)
    wait = case.gate.wait(HONEST, 5.1)
    assert wait is not None and wait > 0
