"""Gateways on screen: who is alive, who is held back, what each holds, and which addresses are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from console import kafka
from console.devices import gateways, presence, refusals
from console.messages import queries as messages
from console.routes.models import Route
from console.snapshot import Picture, Topic, Totals, held
from gateway import contract
from gateway.routes import Uplink

NOW = 1_900_000_000_000


def row(at: int = NOW, **more: Any) -> dict[str, Any]:
    return {"at": at, "started": NOW - 60_000, "connections": 3, "rate": 12.0, "listeners": ["mqtt://h:1883"], **more}


@pytest.fixture
def picture() -> Iterator[Picture]:
    rows = {
        "gateway/alive": row(),
        "gateway/pressed": row(held_back=True, waiting=4321),
        "gateway/dead": row(at=NOW - 60_000),
        "gateway/left": row(stopped=True),
        "gateway/long-gone": row(at=NOW - 2 * 86_400_000, stopped=True),
    }
    made = Picture(at=NOW, traffic=rows, totals=Totals(gateways=1, from_devices=24.0, from_http=6.0))
    held.replace_with(made)
    yield made
    held.replace_with(Picture())


def test_each_gateway_has_a_state_and_one_that_is_long_gone_is_not_shown(picture: Picture) -> None:
    states = {gateway.name: gateway.state for gateway in gateways.known(picture)}
    assert states == {"alive": "ok", "pressed": "held", "dead": "silent", "left": "stopped"}


def test_the_page_shows_one_rate_of_all_messages_with_its_parts(picture: Picture, as_viewer: Client) -> None:
    answer = as_viewer.get(reverse("console:device-gateways"))
    numbers = answer.context["numbers"]
    assert (numbers["from_devices"], numbers["from_mqtt"], numbers["from_http"]) == (24.0, 18.0, 6.0)
    page = answer.content.decode()
    assert (numbers["gateways_held"], numbers["gateways_silent"]) == (1, 1)
    assert 'data-live="gateway/pressed/waiting"' in page
    assert "4,321" in page


def test_a_gateway_s_page_says_what_it_holds_and_what_is_wrong_with_it(picture: Picture, as_viewer: Client) -> None:
    def client(client_id: str, online: bool, clean: bool) -> contract.Presence:
        return contract.Presence(client_id=client_id, online=online, since=1.0, gateway="pressed", clean=clean)

    presence.keep({"here": client("here", True, True), "away": client("away", False, False)})
    presence.keep({"left": client("left", False, True)})
    answer = as_viewer.get(reverse("console:device-gateway", args=["pressed"]))
    assert answer.context["kept"] == {"online": 1, "away": 1}
    assert "The broker holds it back." in answer.content.decode()
    assert "It is not heard of." in as_viewer.get(reverse("console:device-gateway", args=["dead"])).content.decode()
    assert as_viewer.get(reverse("console:device-gateway", args=["nobody"])).status_code == 404


def test_addresses_that_are_refused_most_come_first_and_old_ones_not_at_all(
    picture: Picture, as_operator: Client
) -> None:
    now = time.time()
    refusals.keep(
        [
            ["0x82", "a", "", "10.0.0.1", "", 40, now, ""],
            ["address-rate", "", "", "10.0.0.1", "", 2, now, ""],
            ["tls", "b", "", "10.0.0.2", "", 41, now, ""],
            ["tls", "c", "", "10.0.0.3", "", 500, now - 7200, ""],
        ]
    )
    found = [(each.host, each.times, each.wait) for each in gateways.troubled_addresses(picture)]
    assert found == [("10.0.0.1", 42, None), ("10.0.0.2", 41, None)]
    page = as_operator.get(reverse("console:device-gateways")).content.decode()
    assert "?kind=address&amp;value=10.0.0.1" in page


def test_an_address_that_is_slowed_down_or_shut_out_comes_first_with_how_long_it_waits(
    picture: Picture, as_operator: Client
) -> None:
    refusals.keep([["address-rate", "", "", "10.0.0.9", "", 5, time.time(), ""]])
    slow = {
        "gateway/alive": row(slowed=[["10.0.0.9", 2.0, False], ["2001:db8::/64", 0.4, False]]),
        "gateway/pressed": row(slowed=[["10.0.0.9", 7.0, True]]),
        "gateway/dead": row(at=NOW - 60_000, slowed=[["10.9.9.9", 9.0, True]]),
    }
    held.replace_with(Picture(at=NOW, traffic=slow))
    found = [(each.host, each.wait, each.dropped, each.times) for each in gateways.troubled_addresses(held.current())]
    assert found == [("10.0.0.9", 7.0, True, 5), ("2001:db8::/64", 0.4, False, None)]
    page = as_operator.get(reverse("console:device-gateways")).content.decode()
    assert "shut out" in page
    assert "slowed down, 0.4 s" in page


def test_without_any_gateway_the_page_says_so_and_how_to_start_one(as_viewer: Client) -> None:
    held.replace_with(replace(Picture(), at=int(datetime.now(UTC).timestamp() * 1000)))
    try:
        page = as_viewer.get(reverse("console:device-gateways")).content.decode()
        assert "No gateway is heard of" in page
        assert "python -m gateway" in page
    finally:
        held.replace_with(Picture())


def routed(*records: Uplink) -> None:
    for record in records:
        route = Route()
        route.take(record)
        route.save()


def test_a_client_s_messages_are_looked_for_where_routes_in_force_may_put_them_and_nowhere_else(
    as_viewer: Client,
) -> None:
    routed(
        Uplink(name="sites", filter="plant/+/#", topic="plant.{1}"),
        Uplink(name="off", filter="x/#", topic="other", enabled=False),
    )
    presence.keep({"c 1": contract.Presence(client_id="c 1", online=True, since=1.0, gateway="g")})
    names = {"plant.a": 5, "plant.b": 9, "other": 7, "mqtt.messages": 3, "dlq.gateway": 1, "__sluice_inbox": 9}
    held.replace_with(Picture(at=NOW, topics={name: Topic(name=name, last=last) for name, last in names.items()}))
    try:
        answer = as_viewer.get(reverse("console:device-client", args=["c 1"]))
        assert answer.context["landing"] == ["plant.b", "plant.a", "mqtt.messages", "dlq.gateway"]
        assert "/topics/plant.b/messages/?q=c%201&amp;in=header" in answer.content.decode()
        answer = as_viewer.get(reverse("console:route", args=["sites"]))
        assert answer.context["landing"] == ["plant.b", "plant.a"]
    finally:
        held.replace_with(Picture())


def test_a_record_says_which_client_it_came_from_and_which_route_decides_for_it(
    as_viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*headers: tuple[str, bytes]) -> Any:
        record = kafka.Record(
            topic="plant.a", partition=0, offset=4, timestamp=1, key=b"k", value=b"v", headers=headers
        )
        monkeypatch.setattr(messages, "one", lambda *place: record)
        return as_viewer.get(reverse("console:topic-message", args=["plant.a", 0, 4]))

    routed(Uplink(name="sites", filter="plant/+/#", topic="plant.{1}"))
    presence.keep({"pump": contract.Presence(client_id="pump", online=True, since=1.0, gateway="g")})
    answer = shown(("mqtt.topic", b"plant/a/t"), ("mqtt.client.id", b"pump"))
    assert answer.context["origin"]["route"] == "sites"
    assert reverse("console:device-client", args=["pump"]) in answer.content.decode()
    answer = shown(("mqtt.topic", b"elsewhere/<b>"), ("mqtt.client.id", b"stranger"))
    assert (answer.context["origin"]["route"], answer.context["origin"]["known"]) == ("", False)
    assert "elsewhere/&lt;b&gt;" in answer.content.decode()
    assert shown().context["origin"] is None


def test_what_is_drawn_of_states_is_fetched_again_once_one_of_them_is_another(
    picture: Picture, as_viewer: Client
) -> None:
    def drawn() -> set[str]:
        pages = [reverse("console:device-gateways"), reverse("console:device-gateway", args=["pressed"])]
        texts = [as_viewer.get(page).content.decode() for page in pages]
        return {
            re.findall(r'data-refresh-on="cluster/gateway_states"\s+data-drawn-at="(\d+)"', text)[0] for text in texts
        }

    def now() -> set[str]:
        return {str((held.current().live("cluster") or {})["gateway_states"])}

    before = now()
    assert drawn() == before
    held.replace_with(replace(picture, at=NOW + 2000, traffic={**picture.traffic, "gateway/alive": row(rate=1.0)}))
    assert now() == before, "numbers alone"
    swapped = {**picture.traffic, "gateway/alive": row(held_back=True), "gateway/pressed": row()}
    held.replace_with(replace(picture, traffic=swapped))
    assert drawn() == now() != before
