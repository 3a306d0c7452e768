"""What people watch of a gateway: `$SYS`, traffic reports, `/metrics`, log lines."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import contract
from gateway.contract import DEVICE_FIELDS, ROW_FIELDS, TRAFFIC, TrafficReport
from gateway.routes import Uplink
from tests.acceptance.gateway.people import Device311, Operator, operating, until
from tests.acceptance.gateway.stack import Stack
from tests.ports import free_port


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Stack]:
    metrics = free_port()
    stack = Stack(
        tmp_path,
        SLUICE_SYS_INTERVAL="1",
        SLUICE_LOG_FORMAT="json",
        SLUICE_GATEWAY_METRICS=f"127.0.0.1:{metrics}",
    )
    try:
        yield stack.start()
    finally:
        stack.stop()


def test_one_device_s_messages_are_seen_in_sys_in_the_traffic_topic_and_in_the_metrics(watched: Stack) -> None:
    with operating(watched) as operator:
        operator.route(Uplink(name="plants", filter="plant/#", topic="plants"))
        every, system = Device311(watched, "every"), Device311(watched, "system")
        every.subscribe("#")
        assert system.subscribe("$SYS/#") == [1]
        assert until(lambda: ("$SYS/broker/version", b"Sluice 0.1.0") in system.retained), system.retained
        device = Device311(watched, "pump")
        assert until(lambda: placed(operator, device))
        for number in range(40):
            device.publish("plant/7/x", b"12345", qos=number % 3)
        newest = lambda name: dict(system.retained + system.received).get(f"$SYS/broker/{name}", b"")  # noqa: E731 - a name for one line
        assert until(lambda: int(newest("publish/messages/received") or 0) >= 40)
        assert int(newest("clients/connected")) == 3
        assert float(newest("load/publish/received/1min")) > 0
        assert int(newest("bytes/received")) > 40 * 5
        assert not [topic for topic, _ in every.received if topic.startswith("$")], "# never matches $SYS"
        assert operator.records("mqtt.messages") == [], "$SYS is never in the log"

        def counted() -> bool:
            reports = [contract.decode(TrafficReport, each.value or b"") for each in operator.records(TRAFFIC)]
            routes = {name: row for report in reports for name, row in report.routes.items() if row}
            devices = {name: row for report in reports for name, row in report.devices.items()}
            if "plants" not in routes or "pump" not in devices:
                return False
            route = dict(zip(ROW_FIELDS, routes["plants"], strict=True))
            pump = dict(zip(DEVICE_FIELDS, devices["pump"], strict=True))
            return bool(route["messages"] == pump["received"] >= 41 and pump["received_bytes"] > 40 * 16)

        assert until(counted), [each.value for each in operator.records(TRAFFIC)][-3:]
    port = watched.environ["SLUICE_GATEWAY_METRICS"]
    with urllib.request.urlopen(f"http://{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    samples = {
        (sample.name, sample.labels.get("route", sample.labels.get("prefix", ""))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["sluice_gateway_route_messages_total", "plants"] >= 41
    assert samples["sluice_gateway_prefix_bytes_total", "plant/7"] >= 200
    assert "pump" not in text, "devices are no labels"
    lines = [json.loads(line) for line in watched.gateway.since_start().decode().splitlines()]
    assert [line for line in lines if line["message"] == "ready"]


def placed(operator: Operator, device: Device311) -> bool:
    """Whether the route is in force by now."""
    device.publish("plant/7/first", b"?")
    return bool(operator.records("plants"))


def test_once_a_policy_exists_sys_must_be_named_to_be_read(watched: Stack) -> None:
    with operating(watched) as operator:
        operator.policy("wide", subscribe=("#",), everyone=True)
        assert until(lambda: Device311(watched, "probe").subscribe("$SYS/#") == [0x80])
        operator.policy("operators", subscribe=("$SYS/broker/uptime",), everyone=True)
        reader = Device311(watched, "reader")
        assert until(lambda: reader.subscribe("$SYS/broker/uptime", "$SYS/broker/clients/total") == [1, 0x80])
        assert until(lambda: len(reader.received) > 1)
        assert {topic for topic, _ in reader.received} == {"$SYS/broker/uptime"}
        operator.policy("operators", subscribe=("nothing",), everyone=True)
        assert until(lambda: Device311(watched, "other").subscribe("$SYS/broker/uptime") == [0x80])
        seen = len(reader.received)
        other = Device311(watched, "another")
        other.subscribe("anything")
        assert not until(lambda: len(reader.received) > seen, 2.5), "what was granted before is taken away"


def test_wrong_passwords_are_logged_as_events_and_then_only_counted(watched: Stack) -> None:
    for number in range(8):
        device = Device311(watched, f"g{number}", f"nobody-{number}", "wrong")
        assert device.reason == 134

    def refusals() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in watched.gateway.since_start().decode().splitlines()]
        return [line for line in lines if str(line.get("event", "")).startswith("refused")]

    assert until(lambda: any(line["event"] == "refused.suppressed" for line in refusals())), refusals()
    found = refusals()
    assert sum(line["event"] == "refused" for line in found) < 8
    assert {line["reason"] for line in found} == {"refused-0x86"}
    assert "wrong" not in {word for line in found for word in str(line).split("'")}
