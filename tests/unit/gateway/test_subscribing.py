"""A subscription is granted under the rights of one moment, and delivered to under those of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.chores import Chores
from gateway.counters import Counters
from gateway.delivering.joining import Joinings
from gateway.delivering.retained import RetainedMessages
from gateway.mqtt.fanout import Fanout
from gateway.policy import Policy, Rights
from gateway.ports import Message, Receipt, Subscription
from gateway.subscribing import Subscribing
from tests.unit.gateway.parts import FakeSession

OPEN = Rights((), "c1", "", unrestricted=True)
NARROW = Rights((Policy(name="p", subscribe=("open/#",)),), "c1", "", unrestricted=False)


@pytest.mark.parametrize("narrowed_meanwhile", [True, False])
def test_rights_that_are_narrowed_before_the_suback_hold_for_what_was_granted(narrowed_meanwhile: bool) -> None:
    barrier: Receipt[Any] = Receipt()
    session = FakeSession()
    session.state = SimpleNamespace(rights=OPEN, asked=None, mailbox=None, gate=None, known={}, feed=None)
    sessions: Any = SimpleNamespace(
        live={"c1": session}, subscriber=lambda each: each, remember=lambda each, granted: None
    )
    delivery: Any = SimpleNamespace(joining=Joinings(), barrier=lambda: barrier)
    fanout = Fanout(lambda each, topic: each.state.rights.may_receive(topic), lambda *_: None)
    shares: Any = None
    subscribing = Subscribing(
        sessions=sessions,
        fanout=fanout,
        retained=RetainedMessages(),
        shares=shares,
        counters=Counters(),
        clock=lambda: 0.0,
        delivery=lambda: delivery,
        chores=Chores(lambda seconds, call: call()),
    )
    answer = subscribing.subscribe(session, [Subscription(filter="secret/#", qos=1)])
    if narrowed_meanwhile:
        session.state.rights = NARROW
    barrier.settle(None)
    assert answer.value == [1]
    fanout.deliver(Message("secret/x", b"x", 1, False))
    assert session.payloads == ([] if narrowed_meanwhile else [b"x"])
