"""Gateways' reports added up: totals over gateways, rates that come down, and bounded memory."""

from __future__ import annotations

import pytest

from console.monitor import traffic as module
from console.monitor.compose import Composer
from console.monitor.sampling import Facts
from console.monitor.traffic import Traffic
from console.snapshot import Picture
from console.snapshot.picture import cluster_numbers
from console.traffic import OF_A_ROUTE, busiest_prefixes, counts
from gateway.contract import BridgeStatus, GatewayStatus, TrafficReport


def report(gateway: str = "g1", started: float = 1.0, **rows: dict[str, object]) -> TrafficReport:
    return TrafficReport(gateway=gateway, at=0.0, started=started, **rows)  # type: ignore[arg-type]


def row(messages: int, size: int = 0) -> list[int]:
    return [messages, size, 0, 0, 0, 0]


def test_a_route_s_numbers_are_added_up_over_gateways_and_a_restart_is_no_sum() -> None:
    traffic = Traffic()
    traffic.take(report("g1", routes={"r": row(10, 100)}), 1.0)
    traffic.take(report("g2", routes={"r": row(5, 50)}), 1.0)
    assert traffic.rows(1.0)["route/r"]["messages"] == 15
    traffic.take(report("g1", started=9.0, routes={"r": row(2)}), 2.0)
    assert traffic.rows(2.0)["route/r"]["messages"] == 7
    traffic.take(report("g1", started=9.0, routes={"r": None}), 3.0)
    traffic.take(report("g2", routes={"r": None}), 3.0)
    assert "route/r" not in traffic.rows(3.0)


def test_a_rate_is_seen_and_comes_down_to_nothing_and_then_costs_nothing() -> None:
    traffic = Traffic()
    for second in range(10):
        if second % 2 == 0:
            traffic.take(report(prefixes={"a/b": row(100 * second, 1000 * second)}), float(second))
        shown = traffic.rows(float(second))["prefix/a/b"]
    assert 80 <= shown["rate"] <= 120
    for second in range(10, 40):
        shown = traffic.rows(float(second))["prefix/a/b"]
    assert shown["rate"] == 0
    assert shown["messages"] == 800
    assert not traffic._moving


def test_a_device_that_connects_again_begins_anew_without_a_negative_rate() -> None:
    traffic = Traffic()
    for second, (since, received) in enumerate([(1.0, 10), (1.0, 20), (3.0, 0), (3.0, 5)]):
        traffic.take(report(devices={"pump": [since, received, 0, 0, 0, 0, 0, 0, 0, 0]}), float(second))
        shown = traffic.rows(float(second))["device/pump"]
        assert (shown["rate"] or 0) >= 0
    assert shown["received"] == 5
    assert "since" not in shown


def test_only_so_many_devices_are_remembered_the_quiet_ones_go_first(monkeypatch: object) -> None:
    traffic = Traffic()
    most, module.DEVICES = module.DEVICES, 3
    try:
        for number in range(6):
            traffic.take(report(devices={f"d{number}": [1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0]}), 1.0)
        traffic.take(report(devices={"d3": [1.0, 2, 0, 0, 0, 0, 0, 0, 0, 0]}), 2.0)
        traffic.take(report(devices={"d9": [1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0]}), 2.0)
    finally:
        module.DEVICES = most
    assert set(traffic.rows(2.0)) == {"device/d3", "device/d5", "device/d9"}


def test_a_bridge_s_state_is_shown_until_it_is_gone() -> None:
    traffic = Traffic()
    status = BridgeStatus(name="up", state="failing", since=1.0, owner="o", at=1.0, error="no route", received=3)
    traffic.take_bridge(status, 1.0)
    shown = traffic.rows(1.0)["bridge/up"]
    assert (shown["state"], shown["error"], shown["received"]) == ("failing", "no route", 3)
    traffic.take_bridge(BridgeStatus(name="up", state="gone", since=1.0, owner="o", at=2.0), 2.0)
    assert traffic.rows(2.0) == {}


def test_pages_show_dashes_for_what_nobody_told_and_the_busiest_prefixes_first() -> None:
    assert [each.value for each in counts(Picture(), "route/r", OF_A_ROUTE).rows] == [None] * len(OF_A_ROUTE)
    picture = Picture(
        traffic={
            "prefix/slow": {"rate": 1.0, "messages": 900},
            "prefix/fast": {"rate": 9.0, "messages": 10},
            "route/r": {"rate": 99.0},
            "prefix/new": {"rate": None, "messages": 1},
        }
    )
    assert [prefix.name for prefix in busiest_prefixes(picture, 2)] == ["fast", "slow"]


def status(received: int, by_http: int = 0, started: float = 1.0, at: float = 0.0, **more: object) -> GatewayStatus:
    return GatewayStatus(
        gateway="g1",
        at=at,
        started=started,
        connections=3,
        sessions=2,
        subscriptions=5,
        retained=1,
        counters={"received": received, "received_http": by_http, "sent": 0},
        **more,  # type: ignore[arg-type]
    )


def test_a_gateway_s_rate_has_the_part_that_came_by_http() -> None:
    traffic = Traffic()
    for second in range(10):
        traffic.take_gateway("g1", status(100 * second, 25 * second, waiting=7, held_back=True), float(second))
        shown = traffic.rows(float(second))["gateway/g1"]
    assert shown["rate"] == pytest.approx(100, rel=0.2)
    assert shown["http_rate"] == pytest.approx(25, rel=0.2)
    assert (shown["connections"], shown["waiting"], shown["held_back"]) == (3, 7, True)


def test_a_gateway_that_was_started_again_begins_anew_and_one_that_is_forgotten_is_gone() -> None:
    traffic = Traffic()
    for second, (started, received) in enumerate([(1.0, 50), (1.0, 60), (9.0, 0), (9.0, 5)]):
        traffic.take_gateway("g1", status(received, started=started), float(second))
        shown = traffic.rows(float(second))["gateway/g1"]
        assert (shown["rate"] or 0) >= 0
    assert shown["received"] == 5
    traffic.take_gateway("g1", None, 5.0)
    assert "gateway/g1" not in traffic.rows(5.0)


def test_devices_messages_are_one_figure_and_its_parts_over_the_gateways_that_are_heard_of() -> None:
    rows = {
        "gateway/a": {"at": 100_000, "rate": 10.0, "http_rate": 4.0, "out_rate": 1.0, "held_back": True},
        "gateway/b": {"at": 100_000, "rate": 5.0, "http_rate": 0.0, "out_rate": 2.0},
        "gateway/dead": {"at": 60_000, "rate": 7.0, "http_rate": 7.0, "out_rate": 7.0},
        "gateway/left": {"at": 100_000, "rate": 7.0, "http_rate": 7.0, "out_rate": 7.0, "stopped": True},
    }
    numbers = cluster_numbers(composed(rows, now=101.0))
    assert (numbers["from_devices"], numbers["from_mqtt"], numbers["from_http"]) == (15.0, 11.0, 4.0)
    assert (numbers["to_devices"], numbers["gateways"]) == (3.0, 1)


def test_a_rate_that_one_gateway_has_not_told_yet_is_unknown_in_all() -> None:
    numbers = cluster_numbers(composed({"gateway/a": {"at": 100_000, "rate": None}}, now=101.0))
    assert numbers["from_devices"] is None
    assert numbers["from_mqtt"] is None


def composed(rows: dict[str, dict[str, object]], now: float) -> Picture:
    return Composer(embedded=True).compose(
        Facts(), now, ages={}, devices=0, letters=0, broker={}, open_doors=(), trouble="", traffic=rows
    )


def test_a_steady_rate_is_what_it_is_between_reports_too() -> None:
    traffic = Traffic()
    seen = []
    for tenth in range(300):
        now = tenth / 10
        if tenth % 20 == 3:  # a report every two seconds, looked at every second
            traffic.take(report(prefixes={"a": row(10 * tenth)}), now)
        if tenth % 10 == 0 and tenth > 50:
            seen.append(traffic.rows(now)["prefix/a"]["rate"])
    assert min(seen) == max(seen) == 100


def test_reports_that_were_waiting_make_no_rate_of_their_own() -> None:
    traffic = Traffic()
    for number in range(30):
        traffic.take(report(prefixes={"a": row(1000 * number)}), 100.0 + number / 1000)
    traffic.take(report(prefixes={"a": row(29_020)}), 102.0)
    assert traffic.rows(102.0)["prefix/a"]["rate"] == 10
