"""Single cases of order and outcome, step by step."""

from __future__ import annotations

import pytest

from broker.client.errors import InvalidTopic, RecordTooLarge, TimedOut, UnknownTopic
from broker.client.outgoing import Sending
from broker.client.writing.batches import Batch
from broker.client.writing.partition import FIRST_PAUSE, UNDER_WAY
from broker.client.writing.queues import PATIENCE, Answer, NotSent, Queues
from tests.unit.broker.client.writing.cluster import BAD, LARGE, Cluster

TIMEOUT = 600.0


class Bench:
    """One topic of two partitions; the first is led by broker 0."""

    def __init__(self, *, known: bool = True) -> None:
        self.now = 100.0
        self.cluster = Cluster("t", 2)
        self.queues = Queues(delivery_timeout=TIMEOUT, most=100_000, most_bytes=1 << 24)
        self.queues.producer_id, self.queues.epoch = 7, 0
        self.queues.want("t")
        if known:
            self.learn()

    def learn(self) -> None:
        self.queues.learn("t", 0, self.cluster.leaders(), self.now)

    def publish(self, *values: bytes, where: int = 0) -> Batch:
        batch = Batch(lambda owner, some: self.queues.take(owner, some, self.now, 1), lambda batch: None)
        messages: list[Sending] = [("t", value, b"k", None, None, where) for value in values]
        assert batch.send_all(messages) == len(values)
        batch.seal()
        self.send()
        return batch

    def send(self) -> int:
        """How many batches left."""
        requests = self.queues.requests(self.now, lambda broker: True)
        for request in requests:
            self.cluster.send(request)
        return sum(len(request.batches) for request in requests)

    def answer(self, fault: int = 0, broker: int = 0) -> None:
        self.cluster.process(broker, fault)
        self.cluster.answer(broker, self.queues, self.now)
        self.queues.tell()

    def settle(self) -> None:
        """Everything goes well from now on."""
        for _ in range(100):
            self.now += 1.0
            self.learn()
            self.send()
            for broker in (0, 1):
                self.answer(broker=broker)

    def warm(self) -> None:
        """The broker knows the producer."""
        self.publish(b"first")
        self.answer()

    def stored(self, where: int = 0) -> list[bytes]:
        return self.cluster.logs["t", where].values


def test_until_a_broker_has_stored_something_only_one_batch_is_under_way() -> None:
    bench = Bench()
    first = bench.publish(b"a")
    bench.publish(b"b")
    assert len(bench.cluster.wires[0].under_way) == 1
    bench.answer(-1)
    assert bench.send() == 0 and first.pending
    bench.settle()
    assert bench.stored() == [b"a", b"b"] and bench.queues.fatal is None


def test_afterwards_five_are() -> None:
    bench = Bench()
    bench.warm()
    for number in range(8):
        bench.publish(b"%d" % number)
    assert len(bench.cluster.wires[0].under_way) == UNDER_WAY
    bench.answer()
    assert bench.send() == 1, "what had to wait leaves together"
    bench.settle()
    assert bench.stored() == [b"first", *(b"%d" % number for number in range(8))]


def test_after_a_failure_everything_comes_back_before_anything_is_sent_again() -> None:
    bench = Bench()
    bench.warm()
    for value in (b"a", b"b", b"c"):
        bench.publish(value)
    bench.answer(19)
    bench.now += 1.0
    assert bench.send() == 0
    bench.answer()
    assert bench.send() == 0
    bench.answer()
    assert bench.send() == 1, "and then the first alone"
    bench.settle()
    assert bench.stored() == [b"first", b"a", b"b", b"c"]


def test_after_an_error_that_passes_there_is_a_pause_that_grows() -> None:
    bench = Bench()
    bench.publish(b"a")
    pauses = []
    for _ in range(4):
        bench.answer(6)
        due = bench.queues.due(bench.now)
        assert due is not None
        pauses.append(due - bench.now)
        bench.now = due
        assert bench.send() == 1
    assert pauses[0] >= FIRST_PAUSE * 0.99 and pauses == sorted(set(pauses))


def test_a_batch_whose_answer_was_lost_is_stored_once() -> None:
    bench = Bench()
    bench.warm()
    batch = bench.publish(b"a")
    bench.cluster.process(0)
    bench.cluster.cut(0, bench.queues, bench.now, late=False)
    bench.settle()
    assert bench.stored() == [b"first", b"a"] and not batch.pending and not batch.failures


def test_a_refused_message_fails_alone_and_what_follows_is_numbered_anew() -> None:
    bench = Bench()
    bench.warm()
    batch = bench.publish(b"a", LARGE, b"b", BAD + b"1", b"c", BAD + b"2")
    after = [bench.publish(b"d"), bench.publish(b"e")]
    bench.settle()
    assert bench.stored() == [b"first", b"a", b"b", b"c", b"d", b"e"]
    assert {failure.value: type(failure.error) for failure in batch.failures}[LARGE] is RecordTooLarge
    assert sorted(failure.value or b"" for failure in batch.failures) == sorted([LARGE, BAD + b"1", BAD + b"2"])
    assert not any(failure.unknown for failure in batch.failures)
    assert not any(each.failures for each in after) and bench.queues.fatal is None


def test_a_refusal_of_what_may_be_stored_ends_the_producer() -> None:
    bench = Bench()
    bench.warm()
    batch = bench.publish(b"a")
    behind = bench.publish(b"b")
    waiting = bench.publish(b"c")
    bench.cluster.cut(0, bench.queues, bench.now, late=True)
    (request,) = bench.queues.requests(bench.now, lambda broker: True)
    bench.queues.answered(request, {("t", 0): Answer(29)}, bench.now)
    bench.queues.tell()
    assert [each.unknown for each in (*batch.failures, *behind.failures, *waiting.failures)] == [True] * 3
    assert isinstance(bench.queues.fatal, TimedOut)
    late = bench.publish(b"d")
    bench.queues.tell()
    assert isinstance(late.failures[0].error, NotSent)


@pytest.mark.parametrize("code", [7, 20, 56])
def test_a_batch_that_is_stored_after_one_that_may_be_is_asked_for_again_with_it(code: int) -> None:
    """A follower stood still: of the first batch the leader says that it waited in vain, and then all goes on."""
    bench = Bench()
    bench.warm()
    batches = [bench.publish(b"%d" % number) for number in range(UNDER_WAY)]
    bench.answer(code)
    for _ in batches[1:]:
        bench.answer()
    assert all(batch.pending for batch in batches)
    bench.settle()
    assert bench.stored() == [b"first", *(b"%d" % number for number in range(UNDER_WAY))]
    assert bench.queues.fatal is None and not any(batch.pending or batch.failures for batch in batches)


def test_a_batch_that_is_stored_after_one_that_is_not_ends_the_producer() -> None:
    bench = Bench()
    bench.warm()
    bench.publish(b"a")
    bench.publish(b"b")
    for code in (19, 0):
        request = bench.cluster.wires[0].under_way.pop(0)
        bench.queues.answered(request, {("t", 0): Answer(code, 1)}, bench.now)
    assert bench.queues.fatal is not None


def test_a_repeat_of_what_was_sent_once_ends_the_producer() -> None:
    bench = Bench()
    batch = bench.publish(b"a")
    (request,) = bench.cluster.wires[0].under_way
    bench.queues.answered(request, {("t", 0): Answer(46)}, bench.now)
    bench.queues.tell()
    assert batch.failures[0].unknown and bench.queues.fatal is not None


def test_a_gap_before_the_first_batch_ends_the_producer() -> None:
    bench = Bench()
    bench.warm()
    bench.cluster.logs["t", 0].producers[7] = bench.cluster.logs["t", 0].producers[7]._replace(sent=())
    bench.publish(b"a")
    bench.answer()
    assert bench.queues.fatal is not None


def test_the_other_partitions_of_a_request_go_on() -> None:
    bench = Bench()
    bench.cluster.logs["t", 1].leader = 0
    bench.learn()
    one = bench.publish(b"a", where=0)
    other = bench.publish(b"b", where=1)
    (first, second) = bench.cluster.wires[0].under_way
    bench.queues.answered(first, {}, bench.now)  # an answer that says nothing of it
    bench.queues.answered(second, {("t", 1): Answer(0, 0)}, bench.now)
    bench.queues.tell()
    assert one.pending and not other.pending


def test_a_new_leader_is_sent_to_once_everything_has_come_back_from_the_old_one() -> None:
    bench = Bench()
    bench.warm()
    bench.publish(b"a")
    bench.cluster.logs["t", 0].leader = 1
    bench.learn()
    bench.publish(b"b")
    assert not bench.cluster.wires[1].under_way
    bench.answer()
    bench.now += 1.0
    bench.send()
    assert len(bench.cluster.wires[1].under_way) == 1
    bench.settle()
    assert bench.stored() == [b"first", b"a", b"b"]


def test_messages_for_a_topic_that_is_not_there_wait_for_it_and_then_fail_for_certain() -> None:
    bench = Bench(known=False)
    batch = bench.publish(b"a", where=-1)
    bench.queues.learn("t", 3, {}, bench.now)
    assert bench.queues.stale
    bench.now += PATIENCE / 2
    bench.queues.expire(bench.now)
    bench.queues.learn("t", 3, {}, bench.now)
    bench.queues.tell()
    assert batch.pending
    bench.now += PATIENCE
    bench.queues.expire(bench.now)
    bench.queues.tell()
    assert [type(failure.error) for failure in batch.failures] == [UnknownTopic]
    at_once = bench.publish(b"b", where=-1)
    bench.queues.tell()
    assert len(at_once.failures) == 1
    bench.learn()
    later = bench.publish(b"c", where=-1)
    bench.settle()
    assert not later.failures and bench.stored(0) + bench.stored(1) == [b"c"]


def test_a_name_that_no_topic_may_have_fails_at_once() -> None:
    bench = Bench(known=False)
    batch = bench.publish(b"a", where=-1)
    bench.queues.learn("t", 17, {}, bench.now)
    bench.queues.tell()
    assert [type(failure.error) for failure in batch.failures] == [InvalidTopic]


def test_of_what_was_never_sent_only_itself_times_out() -> None:
    bench = Bench()
    bench.queues.learn("t", 0, {0: -1, 1: -1}, bench.now)
    batch = bench.publish(b"a")
    bench.now += TIMEOUT + 1
    bench.queues.expire(bench.now)
    bench.queues.tell()
    assert batch.failures[0].unknown and bench.queues.fatal is None
    bench.learn()
    bench.publish(b"b")
    bench.settle()
    assert bench.stored() == [b"b"]


def test_what_was_sent_and_times_out_ends_the_producer() -> None:
    bench = Bench()
    batch = bench.publish(b"a")
    bench.now += TIMEOUT + 1
    bench.queues.expire(bench.now)
    bench.queues.tell()
    assert batch.failures[0].unknown and bench.queues.fatal is not None


def test_an_outcome_that_cannot_be_told_keeps_no_other_back() -> None:
    bench = Bench()

    def broken(batch: Batch) -> None:
        raise RuntimeError("told")

    owner = Batch(lambda owner, some: bench.queues.take(owner, some, bench.now, 1), broken)
    owner.send_all([("t", b"a", None, None, None, 0)])
    owner.seal()
    batch = bench.publish(b"b", where=1)
    bench.send()
    bench.cluster.process(0)
    bench.cluster.process(1)
    for broker in (0, 1):
        request, answers = bench.cluster.wires[broker].answers.popleft()
        bench.queues.answered(request, answers, bench.now)
    for _ in range(2):
        try:
            bench.queues.tell()
        except RuntimeError:
            continue
    assert not batch.pending and not bench.queues.messages
