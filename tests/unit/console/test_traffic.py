"""Gateways' reports added up: totals over gateways, rates that come down, and bounded memory."""

from __future__ import annotations

from console.monitor import traffic as module
from console.monitor.traffic import Traffic
from console.snapshot import Picture
from console.traffic import OF_A_ROUTE, busiest_prefixes, counts
from gateway.contract import BridgeStatus, TrafficReport


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
