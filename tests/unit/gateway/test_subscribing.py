"""A subscription is granted under the rights of one moment, and delivered to under those of another."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import contract
from gateway.chores import Chores
from gateway.counters import Counters
from gateway.delivering.joining import Joinings
from gateway.delivering.retained import RetainedMessages
from gateway.mqtt.fanout import Fanout
from gateway.policy import Policy, Rights
from gateway.ports import Message, Receipt, Subscription, settled
from gateway.sessions.connected import Connection
from gateway.subscribing import Subscribing
from tests.unit.gateway.parts import FakeSession

OPEN = Rights((), "c1", "", unrestricted=True)
NARROW = Rights((Policy(name="p", subscribe=("open/#",)),), "c1", "", unrestricted=False)


turns: list[Callable[[], None]] = []


def subscribing_to(session: FakeSession, barrier: Receipt[Any]) -> tuple[Subscribing, Joinings, RetainedMessages]:
    turns.clear()
    session.state = Connection("", OPEN, 0.0, None)
    sessions: Any = SimpleNamespace(
        live={"c1": session},
        mailboxes={},
        subscriber=lambda each: each,
        standing=lambda each: len(each.subscriptions),
        remember=lambda each, granted: each.subscriptions.update({one.filter: one for one in granted}),
    )
    joining, retained = Joinings(), RetainedMessages()
    delivery: Any = SimpleNamespace(joining=joining, barrier=lambda: barrier)
    fanout = Fanout(lambda each, topic: each.state.rights.may_receive(topic), lambda *_: None)
    shares: Any = None
    subscribing = Subscribing(
        sessions=sessions,
        fanout=fanout,
        retained=retained,
        shares=shares,
        counters=Counters(),
        clock=lambda: 100.0,
        delivery=lambda: delivery,
        chores=Chores(lambda seconds, call: turns.append(call)),
    )
    return subscribing, joining, retained


@pytest.mark.parametrize("narrowed_meanwhile", [True, False])
def test_rights_that_are_narrowed_before_the_suback_hold_for_what_was_granted(narrowed_meanwhile: bool) -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession()
    subscribing, _, _ = subscribing_to(session, barrier)
    answer = subscribing.subscribe(session, [Subscription(filter="secret/#", qos=1)])
    if narrowed_meanwhile:
        session.state.rights = NARROW
    barrier.settle(None)
    assert answer.value == [1]
    subscribing.fanout.deliver(Message("secret/x", b"x", 1, False))
    assert session.payloads == ([] if narrowed_meanwhile else [b"x"])


def retained(messages: RetainedMessages, topic: str, payload: bytes) -> None:
    record = contract.RetainedMessage(topic=topic, payload=b64encode(payload).decode(), qos=1, client_id="other")
    messages.apply(topic.encode(), contract.encode(record))


def test_nothing_retained_comes_after_what_replaced_it() -> None:
    """The log has a message and what is retained of it in two topics, so one of them is known before the other."""
    barrier: Receipt[Any] = Receipt()
    session = FakeSession(capacity=2)
    subscribing, joining, kept = subscribing_to(session, barrier)
    for topic in ("a/1", "a/2", "a/3", "a/4"):
        retained(kept, topic, b"old")
    wanted = [Subscription(filter="a/#", qos=1)]
    subscribing.subscribe(session, wanted)
    joining.deliver(Message("a/2", b"new", 1, True), 100_000)  # before the SUBACK
    barrier.settle(None)
    subscribing.subscribed(session, wanted)
    assert session.payloads == [b"new", b"old"]  # and there is no room for more
    refused = session.state.feed.refused[0].topic
    retained(kept, refused, b"newer")
    session.capacity = 10
    subscribing.feed(session)
    [last] = {"a/1", "a/3", "a/4"} - {session.taken[1][0].topic, refused}
    assert [message.topic for message, *_ in session.taken[2:]] == [last]
    assert session.state.feed is None


def all_turns() -> int:
    """How many turns of the loop what is to be done takes."""
    count = 0
    while turns:
        turns.pop(0)()
        count += 1
    return count


MANY = [Subscription(filter=f"many/{number}", qos=1) for number in range(1_000)]


def test_many_filters_take_many_turns_and_miss_nothing_meanwhile() -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession(capacity=10_000)
    subscribing, joining, _ = subscribing_to(session, barrier)
    subscribing._chores._clock = iter(range(10_000)).__next__  # a step is as long as a turn may be
    answer = subscribing.subscribe(session, MANY)
    assert not answer.settled and all_turns() > 50
    joining.deliver(Message("many/999", b"0", 1, False), 100_000)
    barrier.settle(None)
    for number in range(1, 1_000):
        if turns:
            turns.pop(0)()
        message = Message("many/999", str(number).encode(), 1, False)
        subscribing.fanout.deliver(message)
        joining.deliver(message, 5)  # its clock is behind
        if number == 20:
            assert not answer.settled and joining
    assert answer.value == [1] * 1_000 and not joining
    assert session.payloads == [str(number).encode() for number in range(1_000)], "each once, in order"


def test_a_session_that_ends_while_its_filters_enter_leaves_none_behind() -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession()
    subscribing, joining, _ = subscribing_to(session, barrier)
    subscribing._chores._clock = iter(range(10_000)).__next__
    answer = subscribing.subscribe(session, MANY)
    all_turns()
    barrier.settle(None)
    for _ in range(10):
        turns.pop(0)()
    assert subscribing.fanout.count and joining
    subscribing.sessions.live.clear()
    all_turns()
    assert answer.failure is not None and not joining and subscribing.fanout.count == 0


def test_a_session_that_ends_while_its_filters_are_looked_at_leaves_none_behind() -> None:
    session = FakeSession()
    subscribing, joining, _ = subscribing_to(session, Receipt())
    subscribing._chores._clock = iter(range(10_000)).__next__
    answer = subscribing.subscribe(session, MANY)
    turns.pop(0)()
    assert joining
    subscribing.sessions.live.clear()
    all_turns()
    assert answer.failure is not None and not joining


def test_a_session_that_stays_has_all_its_filters_though_its_device_left_while_they_entered() -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession()
    subscribing, joining, _ = subscribing_to(session, barrier)
    session.state.mailbox = subscribing.sessions.mailboxes["c1"] = object()  # type: ignore[assignment]  # stands for one
    subscribing._chores._clock = iter(range(10_000)).__next__
    answer = subscribing.subscribe(session, MANY)
    all_turns()
    barrier.settle(None)
    turns.pop(0)()
    subscribing.sessions.live.clear()
    all_turns()
    assert answer.failure is not None and not joining and subscribing.fanout.count == 1_000


@pytest.mark.parametrize("stays", [True, False])
def test_what_a_device_that_left_had_unsubscribed_from_is_forgotten_in_its_record_too(stays: bool) -> None:
    session = FakeSession()
    subscribing, _, _ = subscribing_to(session, settled_barrier())
    forgotten: list[str] = []
    subscribing.sessions.forget = lambda each, filters: forgotten.extend(filters) or settled()  # type: ignore[method-assign, func-returns-value]
    for each in MANY:
        subscribing.fanout.subscribe(session, each)
    subscribing._chores._clock = iter(range(10_000)).__next__
    answer = subscribing.unsubscribe(session, [each.filter for each in MANY])
    turns.pop(0)()
    if not stays:
        subscribing.sessions.live.clear()
    all_turns()
    assert subscribing.fanout.count == 1_000 - len(forgotten)
    assert (len(forgotten) == 1_000) == stays and (answer.failure is None) == stays


def test_rights_that_are_narrowed_while_filters_enter_hold_for_those_that_had_entered() -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession(capacity=10_000)
    subscribing, _, _ = subscribing_to(session, barrier)
    subscribing._chores._clock = iter(range(10_000)).__next__
    subscribing.subscribe(session, MANY)
    all_turns()
    barrier.settle(None)
    for _ in range(10):
        turns.pop(0)()
    assert subscribing.fanout.count
    session.state.rights = NARROW
    all_turns()
    for number in (0, 999):
        subscribing.fanout.deliver(Message(f"many/{number}", b"x", 1, False))
    assert subscribing.fanout.count == 1_000 and not session.taken


def test_a_session_that_ends_while_its_share_groups_are_claimed_leaves_no_member_behind() -> None:
    barrier, joined = Receipt[Any](), Receipt[Any]()
    session = FakeSession()
    subscribing, _, _ = subscribing_to(session, barrier)
    shares: Any = SimpleNamespace(joined=lambda groups: joined)
    subscribing.shares = shares
    answer = subscribing.subscribe(session, [Subscription(filter="$share/g/a"), Subscription(filter="a")])
    barrier.settle(None)
    assert subscribing.fanout.count == 2 and not answer.settled
    subscribing.sessions.live.clear()
    joined.settle(None)
    assert answer.failure is not None and subscribing.fanout.count == 0


def test_what_many_filters_had_is_taken_out_in_turns_and_gets_nothing_meanwhile() -> None:
    session = FakeSession()
    subscribing, _, _ = subscribing_to(session, settled_barrier())
    for each in MANY:
        subscribing.fanout.subscribe(session, each)
    subscribing.fanout.slowly = lambda steps: subscribing._chores.add("", steps)
    subscribing._chores._clock = iter(range(10_000)).__next__
    subscribing.fanout.drop(session, [each.filter for each in MANY])
    subscribing.fanout.deliver(Message("many/999", b"x", 1, False))
    assert subscribing.fanout.count == 1_000 and not session.taken
    assert all_turns() > 50
    assert subscribing.fanout.count == 0 and not subscribing.fanout._gone


def settled_barrier() -> Receipt[Any]:
    receipt: Receipt[Any] = Receipt()
    receipt.settle(None)
    return receipt


def test_thousands_of_retained_messages_are_given_in_turns_and_each_once() -> None:
    session = FakeSession(capacity=100_000)
    barrier: Receipt[Any] = Receipt()
    subscribing, _, kept = subscribing_to(session, barrier)
    subscribing._chores._clock = iter(range(100_000)).__next__
    for number in range(3_000):
        retained(kept, f"r/{number}/x", b"x")
    wanted = [Subscription(filter="r/+/x", qos=1), Subscription(filter="r/#", qos=1)]
    subscribing.subscribe(session, wanted)
    barrier.settle(None)
    subscribing.subscribed(session, wanted)
    at_once = len(session.taken)
    retained(kept, "r/3001/x", b"came later")
    subscribing.subscribe(session, wanted)
    barrier.waiters[-1].receipt_settled(barrier)
    subscribing.subscribed(session, wanted)  # the same again: what still waits waits once
    assert at_once < 50 and all_turns() > 100
    counts = Counter(message.topic for message, *_ in session.taken)
    assert counts.pop("r/3001/x") == 2
    assert len(counts) == 3_000 and set(counts.values()) == {3}
    assert session.state.feed is None


def test_the_record_of_a_session_that_has_many_filters_is_written_in_its_turn() -> None:
    """It has them all, however few were asked for now; twenty such sessions would hold the loop between them."""
    session = FakeSession()
    subscribing, _, _ = subscribing_to(session, Receipt())
    subscribing.subscribe(session, [Subscription(filter="first")])
    assert "first" in session.subscriptions and not turns, "at once"
    session.subscriptions.update({each.filter: each for each in MANY})
    subscribing.subscribe(session, [Subscription(filter="last")])
    assert "last" not in session.subscriptions
    all_turns()
    assert "last" in session.subscriptions
