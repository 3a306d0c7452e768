"""The $SYS topics: names, values and averages."""

from __future__ import annotations

import pytest

from gateway.mqtt.fanout import Fanout
from gateway.operations.systree import Gauges, SysTree
from gateway.policy import Grant, Policy, Rights
from gateway.ports import Subscription
from gateway.server.figures import NOTHING, Figures
from tests.unit.gateway.parts import FakeSession

GAUGES = Gauges(
    connected=3,
    disconnected=2,
    maximum=4,
    subscriptions=7,
    retained=5,
    stored=9,
    sockets=11,
    connects=10,
    dropped=1,
)
FIGURES = Figures(100, 2, 50, 3, 120, 130, 9000, 8000)


def tree() -> SysTree:
    return SysTree(version="Sluice", started=1000.0)


def test_the_usual_topics_have_the_gateway_s_numbers() -> None:
    made = tree()
    told = {message.topic: message.payload.decode() for message in made.advance(1010.0, FIGURES, GAUGES)}
    for topic, value in {
        "uptime": "10 seconds",
        "clients/connected": "3",
        "clients/disconnected": "2",
        "clients/total": "5",
        "messages/received": "120",
        "messages/sent": "130",
        "publish/messages/received": "100",
        "publish/messages/sent": "50",
        "publish/messages/dropped": "4",
        "bytes/received": "9000",
        "bytes/sent": "8000",
        "subscriptions/count": "7",
        "retained messages/count": "5",
    }.items():
        assert told[f"$SYS/broker/{topic}"] == value, topic
    assert {f"$SYS/broker/load/publish/received/{window}" for window in ("1min", "5min", "15min")} <= set(told)
    assert [message.topic for message in made.match("$SYS/broker/version")] == ["$SYS/broker/version"]


def test_only_topics_whose_value_changed_are_told_again() -> None:
    made = tree()
    made.advance(1010.0, NOTHING, GAUGES)
    assert {message.topic for message in made.advance(1020.0, NOTHING, GAUGES)} >= {"$SYS/broker/uptime"}
    assert "$SYS/broker/clients/total" not in {each.topic for each in made.advance(1030.0, NOTHING, GAUGES)}


def test_a_steady_load_approaches_its_rate_per_minute_fastest_in_the_shortest_window() -> None:
    made = tree()
    for step in range(1, 31):  # five minutes at 2 messages a second
        made.advance(1000.0 + 10 * step, NOTHING._replace(received=20 * step), GAUGES)
    loads = [float(made.values[f"load/publish/received/{window}"]) for window in ("1min", "5min", "15min")]
    assert loads[0] == pytest.approx(120, rel=0.02)
    assert 120 > loads[0] > loads[1] > loads[2] > 20


def test_a_wildcard_filter_gets_nothing_of_it_and_a_filter_that_names_it_everything() -> None:
    fanout = Fanout(lambda session, topic: True, lambda *_: None)
    everything, system = FakeSession("everything"), FakeSession("system")
    fanout.subscribe(everything, Subscription(filter="#"))
    fanout.subscribe(everything, Subscription(filter="+/broker/uptime"))
    fanout.subscribe(system, Subscription(filter="$SYS/#"))
    told = tree().advance(1010.0, FIGURES, GAUGES)
    for message in told:
        fanout.deliver(message)
    assert everything.taken == []
    assert len(system.taken) == len(told)
    made = tree()
    assert list(made.match("#")) == list(made.match("+/broker/version")) == []


def test_a_policy_must_name_it_to_give_it_away() -> None:
    wide = Rights([Policy(name="p", subscribe=("#",))], "c", "u", unrestricted=False)
    named = Rights([Policy(name="p", subscribe=("$SYS/broker/uptime",))], "c", "u", unrestricted=False)
    assert wide.subscribe("$SYS/#") is Grant.DENIED
    assert wide.subscribe("$SYS/broker/uptime") is Grant.DENIED
    assert not wide.may_receive("$SYS/broker/uptime")
    assert named.subscribe("$SYS/broker/uptime") is Grant.GRANTED
    assert named.subscribe("$SYS/#") is Grant.DENIED
    assert Rights((), "c", "u", unrestricted=True).subscribe("$SYS/#") is Grant.GRANTED
