"""One gateway stores what a downlink route retains, and if it dies another does."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract import RETAINED
from gateway.delivering import keeping
from gateway.delivering.keeping import FORGOTTEN, PATIENCE, Keeping
from gateway.delivering.retained import RetainedMessages
from gateway.ports import Message, NotAcknowledged, Receipt


class Bench:
    def __init__(self, *, cares: bool) -> None:
        self.now = 0.0
        self.cares = cares
        self.retained = RetainedMessages()
        self.log: list[tuple[bytes, bytes | None, Receipt[Any]]] = []
        self.keeping = Keeping(self.retained, self.write, lambda name: self.cares, lambda: self.now)

    def write(self, topic: str, value: bytes | None, key: bytes | None) -> Receipt[Any]:
        assert topic == RETAINED and key is not None
        self.log.append((key, value, Receipt()))
        return self.log[-1][2]

    def later(self, seconds: float) -> Bench:
        self.now += seconds
        self.keeping.sweep()
        return self

    @property
    def waiting(self) -> int:
        return len(self.keeping._waiting)


def message(payload: bytes, offset: int) -> Message:
    return Message("set/k", payload, 1, True, origin=("settings", 0, offset))


def test_who_cares_stores_it_at_once_and_again_if_that_failed() -> None:
    bench = Bench(cares=True)
    bench.keeping.take(message(b"on", 5))
    ((_, value, receipt),) = bench.log
    receipt.fail(NotAcknowledged())
    bench.later(PATIENCE + 1)
    assert [each for _, each, _ in bench.log] == [value, value]
    bench.log[-1][2].settle()
    assert bench.waiting == 0 and len(bench.later(PATIENCE + 1).log) == 2


@pytest.mark.parametrize("payload", [b"on", b""])
def test_the_others_wait_until_they_see_it_and_store_it_if_nobody_does(payload: bytes) -> None:
    carer, other = Bench(cares=True), Bench(cares=False)
    for bench in (carer, other):
        bench.retained.apply(b"set/k", None)
    old = Bench(cares=True)
    old.keeping.take(message(b"old", 4))
    other.retained.apply(*old.log[0][:2])
    carer.keeping.take(message(payload, 5))
    other.keeping.take(message(payload, 5))
    assert other.later(1).waiting == 1
    other.cares = True  # the other gateway died before it could
    assert other.later(1).log == [], "it may be on its way"
    assert [each[:2] for each in other.later(PATIENCE).log] == [each[:2] for each in carer.log]

    seen = Bench(cares=False)
    seen.keeping.take(message(payload, 5))
    seen.retained.apply(*carer.log[0][:2])
    assert seen.later(1).waiting == 0


def test_what_nobody_stores_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(cares=False)
    bench.keeping.take(message(b"on", 5))
    assert bench.later(FORGOTTEN + 1).waiting == 0
    monkeypatch.setattr(keeping, "MOST", 10)
    for number in range(20):
        bench.keeping.take(Message(f"set/{number}", b"x", 1, True, origin=("settings", 0, number)))
    assert bench.waiting == 10
