"""One batch and one receipt per turn of the loop, whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.client import Failure
from broker.client.errors import ClientError, ClusterError, TimedOut
from gateway.ports import NotAcknowledged, Receipt
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

    def publish(self, session: FakeSession, *payloads: bytes) -> Receipt[Any]:
        tick = self.ticks.current()
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
    bench.loop.turn()
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
    bench.loop.turn()
    bench.producer.batches[0].finish((1, TimedOut("?")))
    assert receipt.settled and receipt.failed_for(two) and not receipt.failed_for(one)
    assert bench.refusals == []


def test_a_failure_whose_sender_cannot_be_found_puts_everybody_in_doubt() -> None:
    bench = Bench()
    one = FakeSession("one")
    receipt = bench.publish(one, b"a")
    bench.ticks.send(bench.ticks.current(), "t", b"nobody's", None, None)
    bench.loop.turn()
    bench.producer.batches[0].finish((1, TimedOut("?")))
    assert receipt.failed_for(one)


def test_what_the_log_refuses_is_written_elsewhere_before_it_is_acknowledged() -> None:
    bench = Bench()
    bench.instead = ("dlq.gateway", b"a", b"k", None)
    receipt = bench.publish(FakeSession(), b"a", b"b")
    bench.loop.turn()
    bench.producer.batches[0].finish((0, ClusterError(10, "MESSAGE_TOO_LARGE")))
    assert not receipt.settled
    bench.loop.turn()
    second = bench.producer.batches[1]
    assert [record[0] for record in second.records] == ["dlq.gateway"] and second.sealed
    second.finish()
    assert receipt.settled and receipt.failure is None


def test_with_a_full_producer_messages_wait_in_order_and_reading_stops() -> None:
    bench = Bench()
    first = bench.publish(FakeSession(), b"a")
    bench.producer.full = True
    bench.publish(FakeSession(), b"b", b"c")
    assert bench.congestion == [True] and bench.ticks.away
    bench.loop.turn()
    assert not bench.producer.batches[0].sealed
    bench.producer.full = False
    second = bench.publish(FakeSession(), b"d")
    bench.loop.pass_time()
    bench.loop.turn()
    values = [value for batch in bench.producer.batches for _, value, _, _ in batch.records]
    assert values == [b"a", b"b", b"c", b"d"]
    for batch in bench.producer.batches:
        batch.finish()
    assert first.settled and second.settled and bench.congestion == [True, False]


def test_too_much_without_an_outcome_stops_reading_until_it_is_calm() -> None:
    bench = Bench()
    assert CALM < BUSY
    bench.publish(FakeSession(), *[b"x"] * (BUSY + 1))
    bench.loop.turn()
    assert bench.congestion == [True]
    bench.producer.batches[0].finish()
    assert bench.congestion == [True, False]


def test_a_fatal_producer_is_replaced_and_what_it_held_is_in_doubt() -> None:
    bench = Bench()
    one = FakeSession("one")
    receipt = bench.publish(one, b"a")
    bench.loop.turn()
    old = bench.producer
    old.fatal = ClientError("fatal")
    fresh = bench.publish(one, b"b")
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
    bench.loop.turn()
    bench.producer.batches[0].finish((0, TimedOut("?")))
    assert isinstance(receipt.failure, NotAcknowledged)


def test_flushed_settles_when_all_that_was_handed_over_before_has_its_outcome() -> None:
    bench = Bench()
    assert bench.ticks.flushed().settled
    bench.publish(FakeSession(), b"a")
    bench.loop.turn()
    bench.publish(FakeSession(), b"b")
    flushed = bench.ticks.flushed()
    bench.loop.turn()
    bench.publish(FakeSession(), b"later")
    bench.loop.turn()
    bench.producer.batches[1].finish()
    assert not flushed.settled
    bench.producer.batches[0].finish()
    assert flushed.settled


@pytest.mark.parametrize("good", [True, False])
def test_a_tick_waits_for_the_earlier_one_it_depends_on(good: bool) -> None:
    bench = Bench()
    first = bench.publish(FakeSession(), b"original")
    bench.loop.turn()
    tick = bench.ticks.current()
    bench.ticks.after(tick, first)
    bench.loop.turn()
    assert not tick.receipt.settled
    bench.producer.batches[0].finish(*[] if good else [(0, TimedOut("?"))])
    assert tick.receipt.settled and (tick.receipt.failure is None) == good
