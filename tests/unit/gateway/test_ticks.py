"""One batch and one receipt for all that is gathered, whatever becomes of it; and when it leaves."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest

from broker.client import Failure
from broker.client.errors import ClientError, ClusterError, TimedOut
from gateway.ports import NotAcknowledged, Receipt
from gateway.storage.departing import AGAIN, ENOUGH, GATHER, GATHER_PER, LONGEST, MEASURED, PATIENCE, UNDER_WAY
from gateway.storage.ticks import BUSY, CALM, Tick, Ticks, Write
from tests.unit.gateway.parts import FakeLoop, FakeProducer, FakeSession


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.producers: list[FakeProducer] = []
        self.congestion: list[bool] = []
        self.instead: Write | None = None
        self.refusals: list[Failure] = []
        self.ticks = Ticks(
            self.make,
            self.refused,
            loop=self.loop,
            congestion=self.congestion.append,  # type: ignore[arg-type]  # fake
            clock=self.loop.time,
        )

    def make(self) -> Any:
        self.producers.append(FakeProducer())
        return self.producers[-1]

    def refused(self, tick: Tick, failure: Failure) -> Write | None:
        self.refusals.append(failure)
        return self.instead

    @property
    def producer(self) -> FakeProducer:
        return self.producers[-1]

    def leave(self) -> None:
        """A turn, long after the last batch left."""
        self.loop.pass_time(1.0)
        self.loop.turn()

    def publish(self, session: FakeSession, *payloads: bytes, hurried: bool = False) -> Receipt[Any]:
        tick = self.ticks.current(last=self.loop.now - AGAIN / 2 if hurried else -inf)
        items = [(None, payload, 2, 1, None) for payload in payloads]
        tick.runs.append((session, items))
        for payload in payloads:
            self.ticks.send(tick, "t", payload, b"k", None)
        return tick.receipt


def test_everything_of_one_turn_shares_a_receipt_that_settles_when_all_is_durable() -> None:
    bench = Bench()
    one, two = FakeSession("one"), FakeSession("two")
    receipt = bench.publish(one, b"a", b"b")
    assert bench.publish(two, b"c") is receipt
    bench.leave()
    (batch,) = bench.producer.batches
    assert [value for _, value, _, _ in batch.records] == [b"a", b"b", b"c"] and batch.sealed
    assert not receipt.settled
    batch.finish()
    assert receipt.settled and receipt.failure is None and not receipt.failed_for(one)
    assert bench.publish(one, b"d") is not receipt


def test_an_unknown_outcome_puts_its_sender_in_doubt_and_nobody_else() -> None:
    bench = Bench()
    one, two = FakeSession("one"), FakeSession("two")
    receipt = bench.publish(one, b"a")
    bench.publish(two, b"b")
    bench.leave()
    bench.producer.batches[0].finish((1, TimedOut("?")))
    assert receipt.settled and receipt.failed_for(two) and not receipt.failed_for(one)
    assert bench.refusals == []


def test_a_failure_whose_sender_cannot_be_found_puts_everybody_in_doubt() -> None:
    bench = Bench()
    one = FakeSession("one")
    receipt = bench.publish(one, b"a")
    bench.ticks.send(bench.ticks.current(), "t", b"nobody's", None, None)
    bench.leave()
    bench.producer.batches[0].finish((1, TimedOut("?")))
    assert receipt.failed_for(one)


def test_what_the_log_refuses_is_written_elsewhere_before_it_is_acknowledged() -> None:
    bench = Bench()
    bench.instead = ("dlq.gateway", b"a", b"k", None)
    receipt = bench.publish(FakeSession(), b"a", b"b")
    bench.leave()
    bench.producer.batches[0].finish((0, ClusterError(10, "MESSAGE_TOO_LARGE")))
    assert not receipt.settled
    bench.leave()
    second = bench.producer.batches[1]
    assert [record[0] for record in second.records] == ["dlq.gateway"] and second.sealed
    second.finish()
    assert receipt.settled and receipt.failure is None


def test_with_a_full_producer_messages_wait_in_order_and_reading_stops() -> None:
    bench = Bench()
    first = bench.publish(FakeSession(), b"a")
    bench.leave()
    bench.producer.full = True
    bench.publish(FakeSession(), b"b", b"c")
    bench.leave()
    assert bench.congestion == [True] and bench.ticks.away
    assert not bench.producer.batches[1].sealed
    second = bench.publish(FakeSession(), b"d")
    bench.leave()
    assert not bench.producer.batches[2].sealed
    bench.producer.full = False
    bench.leave()
    values = [value for batch in bench.producer.batches for _, value, _, _ in batch.records]
    assert values == [b"a", b"b", b"c", b"d"]
    for batch in bench.producer.batches:
        batch.finish()
    assert first.settled and second.settled and bench.congestion == [True, False]


def test_too_much_without_an_outcome_stops_reading_until_it_is_calm() -> None:
    bench = Bench()
    assert CALM < BUSY
    bench.publish(FakeSession(), *[b"x"] * (BUSY + 1))
    bench.leave()
    assert bench.congestion == [True]
    bench.producer.batches[0].finish()
    assert bench.congestion == [True, False]


def test_a_fatal_producer_is_replaced_and_what_it_held_is_in_doubt() -> None:
    bench = Bench()
    one = FakeSession("one")
    receipt = bench.publish(one, b"a")
    bench.leave()
    old = bench.producer
    old.fatal = ClientError("fatal")
    fresh = bench.publish(one, b"b")
    bench.leave()
    assert bench.producer is not old and not old.closed  # this may be within one of its outcomes
    bench.loop.turn()
    assert old.closed
    old.batches[0].finish((0, ClusterError(-152, "_PURGE_QUEUE")))
    assert receipt.failed_for(one) and bench.refusals == []
    bench.producer.batches[0].finish()
    assert fresh.settled and fresh.failure is None


def test_a_record_of_our_own_that_failed_fails_its_receipt() -> None:
    bench = Bench()
    receipt = bench.ticks.write("__sluice_sessions", b"{}", b"c1")
    bench.leave()
    bench.producer.batches[0].finish((0, TimedOut("?")))
    assert isinstance(receipt.failure, NotAcknowledged)


def test_flushed_settles_when_all_that_was_handed_over_before_has_its_outcome() -> None:
    bench = Bench()
    assert bench.ticks.flushed().settled
    bench.publish(FakeSession(), b"a")
    bench.leave()
    bench.publish(FakeSession(), b"b")
    flushed = bench.ticks.flushed()
    bench.leave()
    bench.publish(FakeSession(), b"later")
    bench.leave()
    bench.producer.batches[1].finish()
    assert not flushed.settled
    bench.producer.batches[0].finish()
    assert flushed.settled


@pytest.mark.parametrize("good", [True, False])
def test_a_tick_waits_for_the_earlier_one_it_depends_on(good: bool) -> None:
    bench = Bench()
    first = bench.publish(FakeSession(), b"original")
    bench.leave()
    tick = bench.ticks.current()
    bench.ticks.after(tick, first)
    bench.leave()
    assert not tick.receipt.settled
    bench.producer.batches[0].finish(*[] if good else [(0, TimedOut("?"))])
    assert tick.receipt.settled and (tick.receipt.failure is None) == good


def left(bench: Bench) -> list[list[bytes | None]]:
    return [[value for _, value, _, _ in batch.records] for batch in bench.producer.batches]


def busy() -> Bench:
    """At a time when so many messages come that they are gathered for `GATHER`; one batch has just left."""
    bench = Bench()
    bench.loop.now = bench.ticks._departures._counted_since + MEASURED
    bench.publish(FakeSession("zero"), *[b"0"] * int(GATHER / GATHER_PER * MEASURED + 1))
    bench.loop.turn()
    bench.producer.batches.pop().finish()
    return bench


def pass_time(bench: Bench, seconds: float) -> None:
    bench.loop.pass_time(seconds)
    bench.loop.turn()


def test_where_few_messages_come_each_leaves_with_its_turn() -> None:
    bench = Bench()
    for number in range(20):
        bench.loop.pass_time(0.005)
        bench.publish(FakeSession("one"), b"%d" % number)
        bench.loop.turn()
        bench.producer.batches[-1].finish()
    assert left(bench) == [[b"%d" % number] for number in range(20)]


def test_where_many_come_one_by_one_they_are_gathered() -> None:
    bench = busy()
    bench.publish(FakeSession("one"), b"a")
    bench.loop.turn()
    pass_time(bench, GATHER / 2)
    bench.publish(FakeSession("two"), b"b")
    bench.loop.turn()
    assert left(bench) == [] and bench.ticks.waiting == 2
    pass_time(bench, GATHER)
    assert left(bench) == [[b"a", b"b"]]
    bench.loop.pass_time(1.0)
    for quiet in (b"c", b"d", b"e"):
        bench.producer.batches[-1].finish()
        bench.loop.pass_time(0.004)
        bench.publish(FakeSession("one"), quiet)
        bench.loop.turn()
    assert left(bench)[1:] == [[b"c"], [b"d"], [b"e"]]


def test_who_hurries_is_held_up_by_nothing_but_what_is_under_way() -> None:
    bench = busy()
    bench.publish(FakeSession("one"), b"a", hurried=True)
    bench.loop.turn()
    bench.publish(FakeSession("two"), b"b", hurried=True)
    bench.publish(FakeSession("three"), b"c")
    bench.loop.turn()
    assert left(bench) == [[b"a"]]
    bench.producer.batches[0].finish()
    bench.publish(FakeSession("one"), b"d", hurried=True)
    bench.loop.turn()
    assert left(bench) == [[b"a"], [b"b", b"c", b"d"]]
    bench.producer.batches[1].finish()
    bench.publish(FakeSession("three"), b"e")
    bench.loop.turn()
    assert len(left(bench)) == 2
    bench.publish(FakeSession("one"), b"f", hurried=True)
    bench.publish(FakeSession("two"), b"g", hurried=True)
    bench.loop.turn()
    assert left(bench)[2:] == [[b"e", b"f", b"g"]]


def test_a_batch_waits_for_those_who_were_answered_just_now_but_not_for_long() -> None:
    bench = busy()
    bench.publish(FakeSession("one"), b"a", hurried=True)
    bench.publish(FakeSession("two"), b"b", hurried=True)
    bench.loop.turn()
    bench.loop.pass_time(1.0)
    bench.producer.batches[0].finish()
    bench.publish(FakeSession("two"), b"c", hurried=True)
    bench.loop.turn()
    assert left(bench) == [[b"a", b"b"]]
    pass_time(bench, PATIENCE)
    assert left(bench) == [[b"a", b"b"], [b"c"]]
    bench.producer.batches[1].finish()
    bench.publish(FakeSession("two"), b"d", hurried=True)
    bench.loop.turn()
    assert left(bench)[2:] == [[b"d"]], "nobody else is to come"


def test_a_device_that_sends_several_at_once_counts_once() -> None:
    bench = busy()
    one = FakeSession("one")
    for payload in (b"a", b"b", b"c"):
        tick = bench.ticks.current(last=bench.loop.now - AGAIN / 2 if payload == b"a" else bench.loop.now)
        bench.ticks.send(tick, "t", payload, b"k", None)
    bench.loop.turn()
    bench.producer.batches[0].finish()
    bench.publish(one, b"d", hurried=True)
    bench.loop.turn()
    assert left(bench) == [[b"a", b"b", b"c"], [b"d"]]


def test_a_batch_that_is_large_enough_waits_for_nothing() -> None:
    bench = busy()
    bench.publish(FakeSession("two"), *[b"b"] * (ENOUGH - 1))
    bench.loop.turn()
    assert left(bench) == []
    bench.publish(FakeSession("three"), b"c")
    bench.publish(FakeSession("four"), b"d")
    bench.loop.turn()
    assert len(left(bench)[0]) == ENOUGH + 1


def test_a_broker_that_is_slow_is_given_larger_batches_not_more() -> None:
    bench = Bench()
    for number in range(200):
        pass_time(bench, LONGEST / 200)
        bench.publish(FakeSession("one"), b"%d" % number)
        bench.loop.turn()
    assert len(left(bench)) == UNDER_WAY
    bench.producer.batches[0].finish()
    bench.loop.turn()
    assert len(left(bench)) == UNDER_WAY + 1 and bench.ticks.waiting == 199
    bench.publish(FakeSession("one"), *[b"x"] * ENOUGH * 2)
    bench.publish(FakeSession("two"), b"y")
    bench.loop.turn()
    assert len(left(bench)) == UNDER_WAY + 2
    bench.publish(FakeSession("one"), b"z")
    bench.loop.turn()
    pass_time(bench, LONGEST)
    assert left(bench)[UNDER_WAY + 2 :] == [[b"z"]], "it doesn't wait for ever"


def test_what_still_gathers_leaves_when_the_gateway_stops() -> None:
    bench = busy()
    receipt = bench.publish(FakeSession("two"), b"b")
    bench.loop.turn()
    asyncio.run(bench.ticks.close(1.0))
    assert left(bench) == [[b"b"]]
    bench.producer.batches[0].finish()
    assert receipt.settled and receipt.failure is None
