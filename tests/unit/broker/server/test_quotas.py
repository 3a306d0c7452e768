"""Client quotas: which one holds, and how long a peer has to wait."""

from __future__ import annotations

import pytest

from broker.server.quotas import FETCH, PRODUCE, Quotas

A_USER, ANY_USER = ("user", "alice"), ("user", None)
A_CLIENT, ANY_CLIENT = ("client-id", "app"), ("client-id", None)
BY_PRECEDENCE = [
    (A_CLIENT, A_USER),
    (ANY_CLIENT, A_USER),
    (A_USER,),
    (A_CLIENT, ANY_USER),
    (ANY_CLIENT, ANY_USER),
    (ANY_USER,),
    (A_CLIENT,),
    (ANY_CLIENT,),
]


@pytest.mark.parametrize("first", range(len(BY_PRECEDENCE)))
def test_the_most_specific_quota_holds_as_in_kafka(first: int) -> None:
    table = {entity: {PRODUCE: float(number)} for number, entity in enumerate(BY_PRECEDENCE) if number >= first}
    assert Quotas(table).rate(PRODUCE, "alice", "app") == float(first)


def test_without_a_quota_nobody_waits() -> None:
    assert Quotas({}).throttle(PRODUCE, "User:alice", "app", 1e12, 0.0) == 0
    assert Quotas({(A_USER,): {FETCH: 1.0}}).throttle(PRODUCE, "User:alice", "app", 1e12, 0.0) == 0
    assert Quotas({(A_USER,): {PRODUCE: 1.0}}).throttle(PRODUCE, "User:bob", "app", 1e12, 0.0) == 0


def test_a_second_of_traffic_is_free_and_what_is_beyond_is_waited_for() -> None:
    quotas = Quotas({(A_USER,): {PRODUCE: 1000.0}})
    assert quotas.throttle(PRODUCE, "User:alice", "app", 1000, 0.0) == 0
    assert quotas.throttle(PRODUCE, "User:alice", "app", 500, 0.0) == 500
    assert quotas.throttle(PRODUCE, "User:alice", "app", 500, 1.0) == 0


def test_over_time_the_rate_is_kept() -> None:
    quotas = Quotas({(A_USER,): {PRODUCE: 1000.0}})
    now = sent = 0.0
    while now < 60:
        now += quotas.throttle(PRODUCE, "User:alice", "app", 700, now) / 1000 + 0.01
        sent += 700
    assert 0.95 < sent / now / 1000 < 1.1


def test_a_changed_quota_holds_at_once() -> None:
    table = {(A_USER,): {PRODUCE: 1.0}}
    quotas = Quotas(table)
    assert quotas.throttle(PRODUCE, "User:alice", "app", 5000, 0.0) > 0
    table[A_USER,] = {PRODUCE: 1e9}
    quotas.changed()
    assert quotas.throttle(PRODUCE, "User:alice", "app", 5000, 0.0) == 0
