"""Records come in the order of their offsets, once each, whether they were offered or fetched."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import Record, TopicPartition
from gateway.storage import tail
from gateway.storage.echoes import AT_FIRST, ENOUGH, LATER, LOOK
from gateway.storage.tail import Tail
from tests.unit.gateway.parts import FakeLoop

PLACE = TopicPartition("t", 0)


class SilentConsumer:
    """Brings nothing by itself: the test calls `_arrived`."""

    def __init__(self) -> None:
        self.ends: dict[TopicPartition, int] = {}
        self.stop = threading.Event()
        self.positions: dict[TopicPartition, int] = {}
        self.polls = 0
        self.orders: deque[Any] = deque()  # the tail's

    def poll(self, most: int, timeout: float, known: Mapping[TopicPartition, int] | None = None) -> list[Record]:
        self.stop.wait(min(timeout, 0.001))
        self.polls += 1
        return []

    def add(self, positions: dict[TopicPartition, int], *, known: bool = False) -> None:
        assert not positions.keys() & self.positions.keys()
        self.positions |= positions

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            del self.positions[each]

    def fetched(self) -> dict[TopicPartition, int]:
        """What is fetched, and from where on, when all orders are carried out."""
        while self.orders:
            time.sleep(0.001)
        before = self.polls
        while self.polls < before + 2:
            time.sleep(0.001)
        return self.positions

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
        self.consumer.orders = self.tail._orders
        self.tail.add({PLACE: 0})

    def fetch(self, *offsets: int, end: int | None = None) -> None:
        records = [Record("t", 0, offset, 0, None, b"") for offset in offsets]
        self.tail._arrived(records, {} if end is None else {PLACE: end})

    def offer(self, *offsets: int) -> None:
        for offset in offsets:
            self.tail.offer("t", 0, offset, offset)
        self.loop.turn()

    def write(self, at: int, looks: int) -> int:
        """Offer what nobody waits for, between so many looks; what is offered next."""
        for _ in range(looks):
            for _ in range(ENOUGH):
                self.tail.offer("t", 0, at, None, 2)
                at += 2
            self.turn_over()
        return at

    def turn_over(self) -> None:
        self.loop.turn()
        self.loop.pass_time(LOOK)

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


def test_what_is_not_fetched_because_it_is_ours_is_fetched_when_it_may_be_others() -> None:
    bench = Bench()
    at = bench.write(0, AT_FIRST + 1)
    assert bench.consumer.fetched() == {}, "all that comes is ours"
    assert bench.tail.positions[PLACE] == at
    at = bench.write(at, 3)
    bench.turn_over()
    assert bench.consumer.fetched() == {PLACE: at}, "nothing more of ours comes"
    at = bench.write(at, AT_FIRST)
    bench.tail.offer("t", 0, at + 1, None, 5)  # one of somebody else's is before it
    bench.loop.turn()
    assert bench.consumer.fetched() == {PLACE: at} and bench.tail.positions[PLACE] == at
    bench.fetch(at)
    assert bench.got == [at] and bench.tail.positions[PLACE] == at + 6
    at = bench.write(at + 6, AT_FIRST + 1)
    assert bench.consumer.fetched(), "others write there too: it is fetched for longer"
    bench.write(at, LATER)
    assert not bench.consumer.fetched()
    bench.tail.remove([PLACE])
    bench.write(at, AT_FIRST)
    assert not bench.consumer.fetched()
    bench.close()


def test_many_that_nobody_waits_for_are_passed_at_once_and_in_their_turn() -> None:
    bench = Bench()
    bench.tail.offer("t", 0, 3, None, 4)
    bench.offer(7)
    assert bench.got == []
    bench.fetch(0, 1, 2, 3, 4)  # two of those come by the fetch
    assert bench.got == [0, 1, 2, 3, 4, 7] and bench.tail.positions[PLACE] == 8
    bench.fetch(8, 9)
    bench.tail.offer("t", 0, 9, None, 3)
    bench.offer(12)
    assert bench.got == [0, 1, 2, 3, 4, 7, 8, 9, 12]
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
