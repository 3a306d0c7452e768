"""What a member of a share group leaves unacknowledged goes to another, each copy by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from broker.client import TopicPartition
from gateway.moving.shares import BUCKETS, Shares, bucket_of, share_id
from gateway.mqtt.fanout import Fanout
from gateway.peers.claims import Claims
from gateway.peers.presence import PresenceBook
from gateway.ports import Message, Receipt, Subscription, settled
from tests.unit.gateway.parts import FakeSession

ONE, TWO = "$share/one/t", "$share/two/t"


class Groups:
    """Share groups whose buckets are all here."""

    def __init__(self, *filters: str) -> None:
        self.others: list[str] = []
        self.written: list[Any] = []
        self.fanout = Fanout(lambda session, topic: True, lambda *what: None)
        claims = Claims("here")

        def write(*_: Any) -> Receipt[Any]:
            return settled()

        gateways: Any = SimpleNamespace(with_members=lambda *_: self.others, alive=lambda *_: True)
        nothing: Any = None
        records: Any = SimpleNamespace(write=self.written.append, erase=lambda client_id: None)
        self.shares = Shares(
            gateway="here",
            gateways=lambda: gateways,
            fanout=self.fanout,
            claims=claims,
            book=PresenceBook("here", claims, write, lambda: SimpleNamespace(gateway="here"), started=0.0),  # type: ignore[arg-type,return-value]  # not decoded
            records=records,
            cluster=nothing,
            positions=lambda: {TopicPartition("u", 0): 100},
            clock=lambda: 0.0,
            held=lambda: True,
        )
        for share_filter in filters:
            for number in range(BUCKETS):
                self.shares.empty(share_id(share_filter, number), 1)

    def join(self, client_id: str, *filters: str, capacity: int = 100) -> FakeSession:
        session = FakeSession(client_id, capacity=capacity)
        for each in filters:
            self.fanout.subscribe(session, Subscription(filter=each, qos=1))
        return session

    def leave(self, session: FakeSession, *filters: str) -> None:
        self.fanout.drop(session, filters)
        self.shares.closed(session.client_id)

    def publish(self, offset: int) -> None:
        self.fanout.deliver(Message("t", b"%d" % offset, 1, origin=("u", 0, offset)))


@pytest.fixture(autouse=True)
def status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.peers.presence.contract.encode", lambda record, sparse=False: b"{}")


def test_each_group_s_copy_goes_to_a_member_of_that_group() -> None:
    groups = Groups(ONE, TWO)
    both, one, two = groups.join("both", ONE, TWO), groups.join("one"), groups.join("two")
    groups.publish(1)
    assert both.payloads == [b"1", b"1"]
    groups.fanout.subscribe(one, Subscription(filter=ONE, qos=1))
    groups.fanout.subscribe(two, Subscription(filter=TWO, qos=1))
    groups.leave(both, ONE, TWO)
    assert one.payloads == [b"1"] and two.payloads == [b"1"]
    assert set(groups.shares._unacknowledged) == {"one", "two"}


def test_a_copy_that_was_acknowledged_says_nothing_of_the_other_one() -> None:
    groups = Groups(ONE)
    member = groups.join("member", ONE, "t")
    groups.publish(1)
    plain, shared = (message for message, _, _ in member.taken)
    groups.shares.finished("member", plain)
    assert groups.shares.behind()
    other = groups.join("other", ONE)
    groups.leave(member, ONE, "t")
    assert other.payloads == [b"1"]
    groups.shares.finished("other", shared)
    assert not groups.shares.behind() and not groups.shares._unacknowledged


def test_what_is_dropped_while_it_is_given_is_finished() -> None:
    groups = Groups(ONE)
    member = groups.join("member", ONE)

    def deliver(message: Message, *_: Any) -> bool:
        groups.shares.finished("member", message)  # as when it has expired
        return True

    member.deliver = deliver  # type: ignore[method-assign,assignment]  # as said
    groups.publish(1)
    assert not groups.shares.behind()


def test_what_nobody_had_room_for_is_given_once_somebody_has() -> None:
    groups = Groups(ONE)
    member, full = groups.join("member", ONE), groups.join("full", ONE, capacity=0)
    for offset in range(3):
        groups.publish(offset)
    groups.leave(member, ONE)
    groups.shares.evaluate()
    assert not full.taken and groups.shares.behind()[share_id(ONE, bucket_of("u", 0))] == {TopicPartition("u", 0): 0}
    full.capacity = 2
    groups.shares.evaluate()
    assert full.payloads == [b"0", b"1"]
    full.capacity = 3
    groups.shares.evaluate()
    assert full.payloads == [b"0", b"1", b"2"] and not groups.shares._left


def test_a_member_that_comes_back_at_once_gets_what_the_last_one_left() -> None:
    groups = Groups(ONE)
    groups.publish(0)
    member = groups.join("member", ONE)
    groups.publish(1)
    groups.leave(member, ONE)
    again = groups.join("again", ONE)
    groups.shares.evaluate()
    assert again.payloads == [b"1"]


def test_where_others_have_members_the_bucket_goes_with_what_was_left() -> None:
    groups = Groups(ONE)
    member = groups.join("member", ONE)
    groups.publish(7)
    groups.leave(member, ONE)
    groups.join("again", ONE)
    groups.others = ["elsewhere"]
    groups.shares.evaluate()
    [record] = [each for each in groups.written if each.released and each.client_id == share_id(ONE, bucket_of("u", 0))]
    assert record.positions == (["u", 0, 7],) and not groups.shares._left


def test_a_group_that_is_no_more_leaves_nothing_behind() -> None:
    groups = Groups(ONE)
    member = groups.join("member", ONE)
    groups.publish(1)
    groups.leave(member, ONE)
    for number in range(BUCKETS):
        groups.shares._here.pop(share_id(ONE, number))  # as `_drop_orphans` does
    groups.shares.evaluate()
    assert not groups.shares.behind() and not groups.shares._left
