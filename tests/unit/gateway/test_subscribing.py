"""A subscription is granted under the rights of one moment, and delivered to under those of another."""

from __future__ import annotations

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import contract
from gateway.counters import Counters
from gateway.delivering.joining import Joinings
from gateway.delivering.retained import RetainedMessages
from gateway.mqtt.fanout import Fanout
from gateway.policy import Policy, Rights
from gateway.ports import Message, Receipt, Subscription
from gateway.sessions.connected import Connection
from gateway.subscribing import Subscribing
from tests.unit.gateway.parts import FakeSession

OPEN = Rights((), "c1", "", unrestricted=True)
NARROW = Rights((Policy(name="p", subscribe=("open/#",)),), "c1", "", unrestricted=False)


def subscribing_to(session: FakeSession, barrier: Receipt[Any]) -> tuple[Subscribing, Joinings, RetainedMessages]:
    session.state = Connection("", OPEN, 0.0, None)
    sessions: Any = SimpleNamespace(
        live={"c1": session}, subscriber=lambda each: each, remember=lambda each, granted: None
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
        clock=lambda: 0.0,
        delivery=lambda: delivery,
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
    joining.deliver(Message("a/2", b"new", 1, True), 1)  # before the SUBACK
    barrier.settle(None)
    subscribing.subscribed(session, wanted)
    assert session.payloads == [b"new", b"old"]  # and there is no room for more
    waiting = [message.topic for message, *_ in session.state.feed]
    assert len(waiting) == 2 and "a/2" not in waiting
    retained(kept, waiting[0], b"newer")
    session.capacity = 10
    subscribing.feed(session)
    assert [message.topic for message, *_ in session.taken[2:]] == waiting[1:]
