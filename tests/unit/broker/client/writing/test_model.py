"""Whatever the network and the brokers do: nothing twice, in order, and every outcome true."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client.errors import TimedOut
from broker.client.outgoing import PlacedAt, Sending
from broker.client.writing.batches import Batch
from broker.client.writing.partition import REST
from broker.client.writing.queues import Queues
from tests.unit.broker.client.writing.cluster import BAD, LARGE, Cluster

TIMEOUT = 600.0
BROKERS = st.sampled_from([0, 1])


class Writing(RuleBasedStateMachine):
    """One writer, one topic of three partitions, two brokers."""

    @initialize(sequence=st.sampled_from([0, 2**31 - 5]), refusals=st.booleans(), patient=st.booleans())
    def begin(self, sequence: int, refusals: bool, patient: bool) -> None:
        self.patient = patient  # whether no message waits for too long
        self.refusals = refusals  # whether there are messages that no log takes
        self.now = 1000.0
        self.cluster = Cluster("t", 3)
        self.queues = Queues(delivery_timeout=TIMEOUT, most=1000, most_bytes=1 << 20)
        self.queues.producer_id, self.queues.epoch = 7, 0
        self.open = {0: True, 1: True}
        self.sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        self.told: dict[bytes, str] = {}
        self.places: dict[tuple[int, int], tuple[list[bytes], int]] = {}
        self.expired = False
        self.queues.want("t")
        self.learn()
        for partition in self.queues._topics["t"].all():
            partition._next = partition._stored = sequence

    # --- the caller

    @rule(
        where=st.integers(0, 2),
        kinds=st.lists(st.sampled_from([b"", b"", b"", b"", b"", b"", LARGE, BAD]), min_size=1, max_size=6),
        together=st.booleans(),
    )
    def publish(self, where: int, kinds: list[bytes], together: bool) -> None:
        messages: list[Sending] = []
        for kind in kinds:
            value = (kind if self.refusals else b"") + b"%d" % sum(map(len, self.sent.values()))
            self.sent[where].append(value)
            if not messages or not together:
                placed, values = self.placed()
            values.append(value)
            messages.append(("t", value, b"k", None, placed, where))

        def done(batch: Batch) -> None:
            failed = {failure.value: failure.error for failure in batch.failures}
            for _, value, *_ in messages:
                assert value is not None and value not in self.told, "an outcome is told once"
                error = failed.get(value)
                if error is None:
                    self.told[value] = "stored"
                else:
                    self.told[value] = "unknown" if isinstance(error, TimedOut) else "refused"

        batch = Batch(lambda owner, some: self.queues.take(owner, some, self.now, int(self.now * 1000)), done)
        assert batch.send_all(messages) == len(messages)
        batch.seal()
        self.step()

    def placed(self) -> tuple[PlacedAt, list[bytes]]:
        """An object that is told where messages are, and theirs."""
        values: list[bytes] = []

        def placed(topic: str, partition: int, offset: int, stamp: int, count: int) -> None:
            assert (partition, offset) not in self.places, "a place is told once"
            self.places[partition, offset] = values, count

        return placed, values

    # --- the network and the brokers

    def step(self) -> None:
        for request in self.queues.requests(self.now, lambda broker: self.open[broker]):
            self.cluster.send(request)
        self.queues.tell()

    @rule(broker=BROKERS, fault=st.sampled_from([0, 0, 0, 0, -1, 6, 19, 7, 20, 56]))
    def process(self, broker: int, fault: int) -> None:
        self.cluster.process(broker, fault)

    @rule(broker=BROKERS)
    def answer(self, broker: int) -> None:
        self.cluster.answer(broker, self.queues, self.now)
        self.step()

    @rule(broker=BROKERS, late=st.booleans(), closed=st.booleans())
    def cut(self, broker: int, late: bool, closed: bool) -> None:
        self.open[broker] = not closed
        self.cluster.cut(broker, self.queues, self.now, late=late)
        self.step()

    @rule()
    def come_late(self) -> None:
        self.cluster.come_late()

    @rule(broker=BROKERS)
    def reconnect(self, broker: int) -> None:
        self.open[broker] = True
        self.step()

    @rule(where=st.integers(0, 2))
    def elect(self, where: int) -> None:
        log = self.cluster.logs["t", where]
        log.leader = 1 - log.leader

    @rule()
    def learn(self) -> None:
        self.queues.learn("t", 0, self.cluster.leaders(), self.now)
        self.step()

    @rule(seconds=st.sampled_from([0.03, 0.6]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    @rule(where=st.integers(0, 2))
    def forget(self, where: int) -> None:
        """A broker forgets a producer that it has not heard of for long; what had no outcome was given up before."""
        if (
            not self.queues.messages
            and not any(self.cluster.wires[broker].under_way for broker in (0, 1))
            and not self.cluster.late
        ):
            self.now += REST + 1
            self.cluster.logs["t", where].producers.clear()

    @precondition(lambda self: not self.patient)
    @rule()
    def expire(self) -> None:
        self.expired |= bool(self.queues.messages)
        self.now += TIMEOUT + 1
        self.queues.expire(self.now)
        self.step()

    # --- what holds

    @invariant()
    def nothing_is_stored_twice_or_out_of_order(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for (_, number), log in self.cluster.logs.items():
            places = [self.sent[number].index(value) for value in log.values]
            assert places == sorted(set(places))

    @invariant()
    def what_is_told_is_true(self) -> None:
        if not hasattr(self, "cluster"):
            return
        stored = {value for log in self.cluster.logs.values() for value in log.values}
        for value, outcome in self.told.items():
            assert outcome == "unknown" or (outcome == "stored") == (value in stored), (value, outcome)
        for (number, offset), (values, count) in self.places.items():
            there = self.cluster.logs["t", number].values[offset : offset + count]
            assert len(there) == count and set(there) <= set(values)
        if not self.refusals and not self.expired:
            assert self.queues.fatal is None, "nothing happened that it could not deal with"

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        self.open = {0: True, 1: True}
        for _ in range(2000):
            self.learn()
            for broker in (0, 1):
                self.process(broker, 0)
                self.answer(broker)
            self.come_late()
            self.wait(0.6)
            if not self.queues.messages and not self.cluster.late:
                break
        assert not self.queues.messages and not self.queues.bytes
        sent = {value for values in self.sent.values() for value in values}
        assert set(self.told) == sent
        if self.queues.fatal is None and not self.expired:
            for value, outcome in self.told.items():
                assert (outcome == "refused") == value.startswith((LARGE, BAD))
        self.what_is_told_is_true()
        self.nothing_is_stored_twice_or_out_of_order()


class TestWriting(Writing.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.torture
class TestWritingAtLength(Writing.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=80, deadline=None)
