"""Probes, answered before Django."""

import ipaddress
import time
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from console import storage
from console.health import Health, Listener, ailments
from console.metrics import NAMED
from console.snapshot import Group, Picture, Topic, Totals, held
from console.storage import Trouble


async def asked(
    path: str, listeners: tuple[Listener, ...] = (), client: str = "127.0.0.1", accept: str = ""
) -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing(*_: Any) -> None:
        raise AssertionError("it reached Django")

    scope = {"type": "http", "path": path, "client": (client, 1), "headers": [(b"accept", accept.encode())]}
    await Health(nothing, (ipaddress.ip_network("10.0.0.0/8"),), listeners)(scope, nothing, send)
    return sent[0]["status"], sent[1]["body"].decode()


def fresh(**fields: Any) -> Picture:
    return Picture(at=int(time.time() * 1000), **fields)


async def test_unavailable_until_the_broker_was_sampled_and_says_why() -> None:
    assert (await asked("/readyz"))[0] == 200
    status, body = await asked("/healthz")
    assert status == 503
    assert "no sample yet" in body
    held.replace_with(fresh())
    assert (await asked("/healthz"))[0] == 200


async def test_a_deaf_gateway_is_unavailable(unused_tcp_port: int) -> None:
    held.replace_with(fresh())
    status, body = await asked("/healthz", (Listener(name="gateway mqtt", host="127.0.0.1", port=unused_tcp_port),))
    assert status == 503
    assert "gateway mqtt" in body


def test_old_samples_and_trouble_are_ailments() -> None:
    now = time.time()
    assert ailments(fresh(), now) == {}
    assert "monitor" in ailments(fresh(), now + 60)
    assert ailments(fresh(trouble="no broker answered"), now)["broker"] == "no broker answered"


async def test_a_disk_that_takes_nothing_is_an_ailment_and_one_that_is_damaged_a_warning() -> None:
    held.replace_with(fresh())
    storage.put((Trouble(broker=1, state="stopped", reason="fdatasync failed", since=5),))
    status, body = await asked("/healthz")
    assert status == 503
    assert "broker 1: fdatasync failed" in body
    storage.put((Trouble(broker=1, state="degraded", reason="damaged data", since=5),))
    status, body = await asked("/healthz")
    assert status == 200
    assert "damaged data" in body
    storage.put(())
    assert "damaged" not in (await asked("/healthz"))[1]


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("10.1.2.3", 200), ("203.0.113.9", 403)])
async def test_metrics_are_for_this_machine_and_trusted_proxies(client: str, status: int) -> None:
    held.replace_with(fresh(totals=Totals(lag=42)))
    answered, body = await asked("/metrics", client=client)
    assert answered == status
    assert ("sluice_lag 42.0" in body) == (status == 200)


@pytest.mark.parametrize(
    ("accept", "parse"), [("", plain), ("application/openmetrics-text;version=1.0.0", open_metrics)]
)
async def test_metrics_are_what_their_parsers_take_and_name_a_bounded_number_of_things(accept: str, parse: Any) -> None:
    groups = {f"g{n}": Group(name=f"g{n}", lag=n, age=1.5) for n in range(NAMED + 50)}
    odd = 'quote " back \\ line\n'
    row = {"messages": 3, "bytes": 9, "refused": 1, "rate": 0.5}
    traffic = {f"prefix/{odd}": row, "route/plants": row, "device/pump": {"received": 1}}
    held.replace_with(
        fresh(totals=Totals(lag=42), groups=groups, topics={"t": Topic(name="t", messages=7)}, traffic=traffic)
    )
    _, body = await asked("/metrics", accept=accept)
    samples = {
        (sample.name, *sample.labels.values()): sample.value for family in parse(body) for sample in family.samples
    }
    assert samples["sluice_lag",] == 42
    assert samples["sluice_topic_messages", "t"] == 7
    assert samples["sluice_prefix_messages_total", odd] == 3
    assert samples["sluice_route_refused_total", "plants"] == 1
    lags = {name[1]: value for name, value in samples.items() if name[0] == "sluice_group_lag"}
    assert len(lags) == NAMED + 1
    assert sum(lags.values()) == sum(range(NAMED + 50))
    assert samples["sluice_metrics_left_out", "sluice_group_lag"] == 50
    assert "pump" not in body
