"""Records come in the order of their offsets, once each, whether they were offered or fetched."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import Record, TopicPartition
from gateway.storage import tail
from gateway.storage.tail import Tail
from tests.unit.gateway.parts import FakeLoop

PLACE = TopicPartition("t", 0)


class SilentConsumer:
    """Brings nothing by itself: the test calls `_arrived`."""

    def __init__(self) -> None:
        self.ends: dict[TopicPartition, int] = {}
        self.stop = threading.Event()

    def poll(self, most: int, timeout: float, known: Mapping[TopicPartition, int] | None = None) -> list[Record]:
        self.stop.wait(timeout)
        return []

    def add(self, positions: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.consumer = SilentConsumer()
        self.got: list[int] = []
        self.tail = Tail(
            self.consumer,  # type: ignore[arg-type]  # fake
            lambda records: self.got.extend(record.offset for record in records),
            loop=self.loop,  # type: ignore[arg-type]  # fake
            name="test",
            offered=self.got.extend,
        )
        self.tail.add({PLACE: 0})

    def fetch(self, *offsets: int, end: int | None = None) -> None:
        records = [Record("t", 0, offset, 0, None, b"") for offset in offsets]
        self.tail._arrived(records, {} if end is None else {PLACE: end})

    def offer(self, *offsets: int) -> None:
        for offset in offsets:
            self.tail.offer("t", 0, offset, offset)
        self.loop.turn()

    def close(self) -> None:
        self.tail._stopping = True
        self.consumer.stop.set()


def test_what_is_offered_next_is_taken_at_once_and_passed_over_when_fetched() -> None:
    bench = Bench()
    bench.offer(0, 1)
    assert bench.got == [0, 1] and bench.tail.positions[PLACE] == 2
    bench.fetch(0, 1, 2)
    assert bench.got == [0, 1, 2]
    bench.close()


def test_what_is_offered_too_early_waits_for_what_is_before_it() -> None:
    bench = Bench()
    bench.offer(1, 2, 4)
    assert bench.got == []
    bench.fetch(0)
    assert bench.got == [0, 1, 2]
    bench.fetch(end=4)  # a transaction's marker
    assert bench.got == [0, 1, 2, 4] and bench.tail.positions[PLACE] == 5
    bench.close()


def test_what_can_not_wait_is_left_to_the_fetch() -> None:
    bench, before = Bench(), tail.WAITING
    tail.WAITING = 2
    try:
        bench.offer(3, 1, 2)
        bench.fetch(0)
        assert bench.got == [0, 1]
        bench.fetch(2, 3)
        assert bench.got == [0, 1, 2, 3]
    finally:
        tail.WAITING = before
        bench.close()


def test_a_partition_that_is_not_read_is_not_offered_to() -> None:
    bench = Bench()
    bench.tail.offer("other", 0, 0, 0)
    bench.tail.remove([PLACE])
    bench.offer(0)
    assert bench.got == []
    bench.close()


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_whoever_wrote_and_however_late_the_fetch_the_order_is_that_of_offsets(own: list[bool], data: Any) -> None:
    bench = Bench()
    offered = fetched = 0
    mine = [offset for offset, is_own in enumerate(own) if is_own]
    while fetched < len(own):
        if offered < len(mine) and data.draw(st.booleans()):
            count = data.draw(st.integers(1, 4))
            bench.offer(*mine[offered : offered + count])
            offered += count
        else:
            count = data.draw(st.integers(1, 6))
            bench.fetch(*range(fetched, min(fetched + count, len(own))))
            fetched += count
    bench.offer(*mine[offered:])
    assert bench.got == list(range(len(own))) and bench.tail.positions[PLACE] == len(own)
    bench.close()
