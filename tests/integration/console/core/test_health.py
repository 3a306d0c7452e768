"""Probes, answered before Django."""

import ipaddress
import time
from typing import Any

import pytest

from console.health import Health, Listener, ailments
from console.snapshot import Picture, Totals, held


async def asked(path: str, listeners: tuple[Listener, ...] = (), client: str = "127.0.0.1") -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing(*_: Any) -> None:
        raise AssertionError("it reached Django")

    scope = {"type": "http", "path": path, "client": (client, 1)}
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


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("10.1.2.3", 200), ("203.0.113.9", 403)])
async def test_metrics_are_for_this_machine_and_trusted_proxies(client: str, status: int) -> None:
    held.replace_with(fresh(totals=Totals(lag=42)))
    answered, body = await asked("/metrics", client=client)
    assert answered == status
    assert ("sluice_lag 42.0" in body) == (status == 200)
