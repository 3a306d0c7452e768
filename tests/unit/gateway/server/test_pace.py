"""How fast one address may connect."""

from __future__ import annotations

from gateway.server.pace import DEPTH, REMEMBERED, Pace, network_of


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
