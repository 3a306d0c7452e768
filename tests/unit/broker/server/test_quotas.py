"""Client quotas: which one holds, whose bucket it fills, and how long a peer has to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cluster.metadata import QuotaEntity
from broker.server import quotas as quotas_module
from broker.server.quotas import CONNECTIONS, FETCH, MUTATIONS, PRODUCE, REQUEST, MutationQuotaExceeded, Quotas

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
ALICE = "User:alice"


@pytest.mark.parametrize("first", range(len(BY_PRECEDENCE)))
def test_the_most_specific_quota_holds_as_in_kafka(first: int) -> None:
    table = {entity: {PRODUCE: float(number)} for number, entity in enumerate(BY_PRECEDENCE) if number >= first}
    assert Quotas(table).rate(PRODUCE, "alice", "app") == float(first)


@pytest.mark.parametrize(
    ("entity", "shared_with"),
    [
        ((A_CLIENT, A_USER), set()),
        ((ANY_CLIENT, A_USER), set()),
        ((A_USER,), {(ALICE, "other")}),
        ((ANY_CLIENT, ANY_USER), set()),
        ((ANY_USER,), {(ALICE, "other")}),
        ((A_CLIENT,), {("User:bob", "app")}),
        ((ANY_CLIENT,), {("User:bob", "app")}),
    ],
)
def test_a_users_quota_is_shared_by_its_clients_and_a_clients_by_its_users(
    entity: QuotaEntity, shared_with: set[tuple[str, str]]
) -> None:
    quotas = Quotas({entity: {PRODUCE: 1000.0}})
    assert quotas.throttle(PRODUCE, ALICE, "app", 20_000, 0.0) == 10_000
    for other in ((ALICE, "other"), ("User:bob", "app"), ("User:bob", "other")):
        assert bool(quotas.throttle(PRODUCE, *other, 1, 0.0)) == (other in shared_with), other


def test_without_a_quota_nobody_waits() -> None:
    assert Quotas({}).throttle(PRODUCE, ALICE, "app", 1e12, 0.0) == 0
    assert Quotas({(A_USER,): {FETCH: 1.0}}).throttle(PRODUCE, ALICE, "app", 1e12, 0.0) == 0
    assert Quotas({(A_USER,): {PRODUCE: 1.0}}).throttle(PRODUCE, "User:bob", "app", 1e12, 0.0) == 0
    assert Quotas({(A_USER,): {PRODUCE: 1.0}}).most(FETCH, ALICE, "app", 0.0) is None


def test_ten_seconds_of_traffic_are_free_and_what_is_beyond_is_waited_for() -> None:
    quotas = Quotas({(A_USER,): {PRODUCE: 1000.0}})
    assert quotas.throttle(PRODUCE, ALICE, "app", 10_000, 0.0) == 0
    assert quotas.throttle(PRODUCE, ALICE, "app", 500, 0.0) == 500
    assert quotas.throttle(PRODUCE, ALICE, "app", 500, 1.0) == 0


def test_one_answer_is_never_larger_than_what_an_idle_client_may_fetch() -> None:
    quotas = Quotas({(A_USER,): {FETCH: 1000.0}})
    most = quotas.most(FETCH, ALICE, "app", 0.0)
    assert most == 10_000
    assert quotas.throttle(FETCH, ALICE, "app", most, 0.0) == 0


@given(st.lists(st.integers(1, 30_000), min_size=1), st.floats(1500.0, 1e6))
def test_whoever_waits_as_told_never_goes_beyond_the_rate(amounts: list[int], rate: float) -> None:
    quotas = Quotas({(A_USER,): {PRODUCE: rate}})
    now = used = 0.0
    for amount in amounts:
        now += quotas.throttle(PRODUCE, ALICE, "app", amount, now) / 1000
        used += amount
        assert used <= rate * (now + 10.0) + max(amounts) + 0.001 * rate * len(amounts)


def test_a_request_time_quota_waits_a_second_at_most() -> None:
    quotas = Quotas({(A_USER,): {REQUEST: 1.0}})
    assert quotas.times_requests
    assert quotas.throttle(REQUEST, ALICE, "app", 10.0, 0.0) == 0
    assert quotas.throttle(REQUEST, ALICE, "app", 0.5, 0.0) == 500
    assert quotas.throttle(REQUEST, ALICE, "app", 100.0, 0.0) == 1000
    assert not Quotas({(A_USER,): {PRODUCE: 1.0}}).times_requests


def test_a_changed_quota_holds_at_once_and_forgives_nothing() -> None:
    table = {(A_USER,): {PRODUCE: 10.0}}
    quotas = Quotas(table)
    assert quotas.throttle(PRODUCE, ALICE, "app", 5000, 0.0) > 0
    table[A_USER,] = {PRODUCE: 1e9}
    quotas.changed()
    assert quotas.throttle(PRODUCE, ALICE, "app", 5000, 0.0) == 0
    table[A_USER,] = {PRODUCE: 100.0}
    quotas.changed()
    assert quotas.throttle(PRODUCE, ALICE, "app", 0, 0.0) == 30_000


def test_a_strict_mutation_quota_takes_any_number_while_it_is_not_used_up() -> None:
    quotas = Quotas({(A_CLIENT,): {MUTATIONS: 5.0}})
    first = quotas.mutations(ALICE, "app", strict=True, now=0.0)
    first.spend(60, 0.0)
    assert first.throttle(0.0) == 0, "55 were there; going below is allowed once"
    second = quotas.mutations("User:bob", "app", strict=True, now=0.0)
    with pytest.raises(MutationQuotaExceeded):
        second.spend(1, 0.0)
    assert second.throttle(0.0) == 1000
    assert second.throttle(0.4) == 600, "what has passed since is not waited for"
    later = quotas.mutations(ALICE, "app", strict=True, now=1.0)
    later.spend(1, 1.0)
    assert later.throttle(1.0) == 0


def test_a_permissive_mutation_quota_slows_down_and_refuses_nothing() -> None:
    quotas = Quotas({(A_CLIENT,): {MUTATIONS: 5.0}})
    spending = quotas.mutations(ALICE, "app", strict=False, now=0.0)
    spending.spend(60, 0.0)
    assert spending.throttle(0.0) == 1000
    spending.spend(5, 0.0)
    assert spending.throttle(0.0) == 2000


def test_without_a_mutation_quota_nothing_is_counted() -> None:
    spending = Quotas({}).mutations(ALICE, "app", strict=True, now=0.0)
    spending.spend(10**9, 0.0)
    assert spending.throttle(0.0) == 0


def test_an_address_may_open_connections_at_its_rate_and_one_turned_away_does_not_count() -> None:
    quotas = Quotas({(("ip", "10.0.0.1"),): {CONNECTIONS: 2.0}, (("ip", None),): {CONNECTIONS: 1.0}})
    assert [quotas.connection("10.0.0.1", 0.0) for _ in range(20)] == [0] * 20
    assert [quotas.connection("10.0.0.1", 0.0) for _ in range(50)] == [500] * 50
    assert quotas.connection("10.0.0.1", 0.5) == 0
    assert quotas.connection("10.0.0.1", 0.5) == 500
    assert [quotas.connection("10.0.0.2", 0.0) for _ in range(11)] == [0] * 10 + [1000]
    assert Quotas({(A_USER,): {PRODUCE: 1.0}}).connection("10.0.0.1", 0.0) == 0


def test_memory_does_not_follow_the_names_that_clients_give_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "BUCKETS", 100)
    quotas = Quotas({(ANY_CLIENT,): {PRODUCE: 1000.0}})
    quotas.throttle(PRODUCE, ALICE, "greedy", 1e9, 0.0)
    for number in range(1000):
        quotas.throttle(PRODUCE, ALICE, f"client-{number}", 1, number * 0.01)
        assert len(quotas._buckets) <= 100
        assert len(quotas._found) <= 100
    assert quotas.throttle(PRODUCE, ALICE, "greedy", 0, 10.0) == 30_000, "a debt outlives the others' names"
