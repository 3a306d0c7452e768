"""How fast one address may connect."""

from __future__ import annotations

import heapq

import pytest

from gateway.server.pace import BRIEF, DEPTH, REMEMBERED, RUBBISH, TROUBLE, Pace, network_of


def test_a_burst_is_let_in_and_the_rest_waits_in_turn() -> None:
    pace = Pace(100)
    waits = [pace.wait("10.0.0.1:4711", 5.0) for _ in range(400)]
    assert not any(waits[: int(100 * DEPTH)])
    assert [round(each, 6) for each in waits[201:204]] == [0.01, 0.02, 0.03]
    assert round(waits[-1], 6) == 1.99


def test_others_do_not_wait_for_it() -> None:
    pace = Pace(10)
    for _ in range(100):
        pace.wait("10.0.0.1:1", 5.0)
    assert pace.wait("10.0.0.1:1", 5.0) > 0
    assert pace.wait("10.0.0.2:1", 5.0) == 0.0


def test_who_waited_long_enough_may_come_again_at_once() -> None:
    pace = Pace(10)
    for _ in range(100):
        pace.wait("10.0.0.1:1", 5.0)
    assert pace.wait("10.0.0.1:2", 16.0) == 0.0


def test_how_long_the_next_one_would_wait_is_known_before_it_counts() -> None:
    pace = Pace(10)
    for _ in range(50):
        pace.wait("10.0.0.1:1", 5.0)
    assert pace.ahead("10.0.0.1:2", 5.0) == pace.ahead("10.0.0.1:3", 5.0) == pace.wait("10.0.0.1:4", 5.0)
    assert pace.ahead("10.0.0.2:1", 5.0) == Pace(0).ahead("10.0.0.1:1", 5.0) == 0.0


def test_without_a_rate_nobody_waits() -> None:
    pace = Pace(0)
    assert not any(pace.wait("10.0.0.1:1", 5.0) for _ in range(10_000))


def test_addresses_are_forgotten_when_they_are_free_or_too_many() -> None:
    pace = Pace(1)
    for number in range(REMEMBERED + 100):
        pace.wait(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1", 5.0)
    assert len(pace) == REMEMBERED
    pace.wait("10.0.0.1:1", 100.0)
    assert len(pace) == 1


def test_of_ipv6_the_network_counts() -> None:
    assert network_of("[2001:db8:1:2::1]:80") == network_of("[2001:db8:1:2:ffff::9]:81")
    assert network_of("[2001:db8:1:2::1]:80") != network_of("[2001:db8:1:3::1]:80")
    assert network_of("127.0.0.1:80") == "127.0.0.1"
    assert network_of("unknown") == ""


def test_a_fleet_whose_connections_last_comes_in_at_the_rate_even_with_a_few_broken_devices() -> None:
    pace = Pace(5_000)
    now = 5.0
    for number in range(15_000):
        now += 1 / 5_000
        assert pace.wait("10.0.0.1:1", now) == 0.0
        if number % 100 == 0:
            pace.spoil("10.0.0.1:1", now, RUBBISH)
            pace.spoil("10.0.0.1:1", now, BRIEF)


@pytest.mark.parametrize(("cost", "a_second"), [(BRIEF, 200), (RUBBISH, 100)])
def test_an_address_whose_connections_are_trouble_gets_in_slowly(cost: float, a_second: int) -> None:
    pace, rude, now, patience = Pace(5_000), "10.0.0.1:1", 5.0, 5.0
    waiting: list[float] = []
    served = most = 0
    for _ in range(20 * 14_000):  # 14,000 attempts a second, each trouble as soon as its turn has come
        now += 1 / 14_000
        while waiting and waiting[0] <= now:
            served += 1
            pace.spoil(rude, heapq.heappop(waiting), cost)
        if pace.ahead(rude, now) <= patience:
            heapq.heappush(waiting, now + pace.wait(rude, now))
            most = max(most, len(waiting))
    assert served <= TROUBLE / cost + (20.0 + TROUBLE) * a_second * 1.05
    assert served >= 19.0 * a_second
    assert most <= patience / cost + 2
    assert pace.wait("10.0.0.2:1", now) == 0.0


def test_who_makes_no_trouble_any_more_is_like_others_again() -> None:
    pace = Pace(5_000)
    for _ in range(1_000):
        pace.spoil("10.0.0.1:1", 5.0, RUBBISH)
    assert pace.wait("10.0.0.1:1", 5.0) == TROUBLE, "what is over the depth drains first"
    assert round(pace.wait("10.0.0.1:1", 5.0), 6) == TROUBLE + RUBBISH
    later = 5.0 + 2 * TROUBLE
    assert not any(pace.wait("10.0.0.1:1", later) for _ in range(int(5_000 * DEPTH)))


def test_nobody_comes_between_those_that_wait_when_their_trouble_is_long_ago() -> None:
    pace = Pace(5_000)
    for _ in range(150):
        pace.spoil("10.0.0.1:1", 5.0, RUBBISH)
    waits = [pace.wait("10.0.0.1:1", 5.0) for _ in range(400)]
    drains = 150 * RUBBISH - TROUBLE  # until then nobody gets in
    assert round(waits[-1], 6) == round(drains + 399 * RUBBISH, 6)
    after = 5.0 + 2 * TROUBLE + 0.1  # the one bucket is empty, the other isn't
    assert [round(pace.wait("10.0.0.1:1", after) + after - 5.0, 6) for _ in range(3)] == [
        round(drains + number * RUBBISH, 6) for number in (400, 401, 402)
    ]
    assert [network for network, _ in pace.slowed(after)] == ["10.0.0.1"]
    quiet = 5.0 + drains + 403 * RUBBISH + 1e-6
    assert pace.slowed(quiet) == [] and pace.wait("10.0.0.1:1", quiet) == 0.0


def test_without_a_rate_nothing_is_trouble() -> None:
    pace = Pace(0)
    for _ in range(1_000):
        pace.spoil("10.0.0.1:1", 5.0, RUBBISH)
    assert pace.wait("10.0.0.1:1", 5.0) == pace.ahead("10.0.0.1:1", 5.0) == len(pace) == 0


def test_addresses_of_ipv4_count_each_for_itself_in_ipv6_clothes_too() -> None:
    assert network_of("[::ffff:10.0.0.1]:80") == "10.0.0.1"
    assert network_of("[fe80::1%eth0]:80") == network_of("[fe80::2]:80") == "fe80000000000000"


def test_trouble_that_each_connection_makes_many_times_is_borne_no_faster_than_it_drains() -> None:
    pace, now, came = Pace(5_000), 5.0, 0
    while now < 25.0:
        now += max(pace.wait("10.0.0.1:1", now), 0.001)
        came += 1
        for _ in range(20):
            pace.spoil("10.0.0.1:1", now, RUBBISH)
    assert came * 20 * RUBBISH <= 20.0 + TROUBLE + 20 * RUBBISH
