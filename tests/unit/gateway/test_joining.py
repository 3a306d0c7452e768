"""Subscriptions whose barrier is under way get what was written since, and cost others nothing."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivering.joining import Joining, Joinings
from gateway.mqtt.topics import matches
from gateway.ports import Message, Subscription
from tests.unit.gateway.parts import FakeSession

LEVELS = st.sampled_from(["a", "b", "+", ""])
FILTERS = st.lists(LEVELS, min_size=1, max_size=3).map("/".join) | st.sampled_from(["#", "a/#", "+/#", "/#"])
TOPICS = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=3).map("/".join).filter(bool)


def listener(name: str = "s") -> FakeSession:
    session = FakeSession(name)
    session.state = SimpleNamespace(rights=SimpleNamespace(may_receive=lambda topic: True))
    return session


@given(st.lists(FILTERS.filter(bool), max_size=6), TOPICS)
def test_each_that_matches_gets_the_message_and_no_other(filters: list[str], topic: str) -> None:
    joinings = Joinings()
    sessions = [listener(str(number)) for number in range(len(filters))]
    made = [
        Joining(session, Subscription(filter=each, qos=1), 10) for session, each in zip(sessions, filters, strict=True)
    ]
    for each in made:
        joinings.add(each)
    joinings.deliver(Message(topic, b"x", 1, False), 10)
    joinings.deliver(Message(topic, b"before", 1, False), 9)
    for session, each in zip(sessions, filters, strict=True):
        assert session.payloads == ([b"x"] if matches(each, topic) else [])
    assert joinings.since() == [10] * len(made)
    joinings.remove(made)
    assert not joinings


def test_a_thousand_filters_elsewhere_are_not_even_looked_at() -> None:
    joinings = Joinings()
    session = FakeSession()  # without a state: a look would fail
    for number in range(1000):
        joinings.add(Joining(session, Subscription(filter=f"{number}/#", qos=0), 0))
    joinings.deliver(Message("honest/1", b"x", 0, False), 10)
    assert session.taken == []


def test_whose_barrier_is_over_needs_nothing_read_again_while_its_filters_enter_in_steps() -> None:
    joinings = Joinings()
    entering, waiting = (Joining(listener(), Subscription(filter="a", qos=1), since) for since in (5, 7))
    joinings.add(entering)
    joinings.add(waiting)
    entering.since = 0  # all is its own from now on
    assert joinings.since() == [7], "a topic that is new would be read from its beginning else"


def test_what_a_client_published_before_it_subscribed_is_not_new_to_it() -> None:
    joinings = Joinings()
    own, other = listener("own"), listener("other")
    made = [Joining(session, Subscription(filter="a", qos=1), 5) for session in (own, other)]
    for each in made:
        joinings.add(each)
    joinings.deliver(Message("a", b"x", 1, False, sender="own"), 6)  # its record is a little younger than it is
    assert (own.payloads, other.payloads) == ([], [b"x"])
    for each in made:
        each.since = 0
    joinings.deliver(Message("a", b"y", 1, False, sender="own"), 7)
    assert own.payloads == [b"y"]
