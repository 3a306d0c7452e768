"""`/metrics` of the gateway, read by the parsers of both formats."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from gateway.config import BadSettings, Settings
from gateway.counters import Counters
from gateway.publishing.traffic import Table
from gateway.server.figures import Figures
from gateway.server.metrics import MetricsServer, Sources


def server() -> MetricsServer:
    routes, prefixes = Table(), Table()
    routes.row('odd "name"\n\\').messages += 3
    prefixes.row("plant/7").dead_lettered += 2
    return MetricsServer(
        Sources(
            gateway="g1",
            started=1.5,
            counters=Counters(received=12),
            gauges=lambda: {"clients": 4},
            totals=lambda: Figures(1, 2, 3, 4, 5, 6, 7, 8),
            tables={"route": routes, "prefix": prefixes},
            refusals=lambda: {"refused-0x86": 9},
        )
    )


def asked(accept: str = "") -> tuple[str, str]:
    head, _, body = (
        server().answer(f"GET /metrics?x HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode()).partition(b"\r\n\r\n")
    )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return head.decode(), body.decode()


@pytest.mark.parametrize(
    ("accept", "kind", "parse"),
    [("", "text/plain", plain), ("application/openmetrics-text; version=1.0.0", "openmetrics", open_metrics)],
)
def test_both_formats_are_what_their_parsers_take(accept: str, kind: str, parse: object) -> None:
    head, body = asked(accept)
    assert kind in head
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body)  # type: ignore[operator]
        for sample in family.samples
    }
    assert samples["sluice_gateway_received_total", ()] == 12
    assert samples["sluice_gateway_clients", ()] == 4
    assert samples["sluice_gateway_sockets_sent_bytes_total", ()] == 8
    assert samples["sluice_gateway_route_messages_total", (("route", 'odd "name"\n\\'),)] == 3
    assert samples["sluice_gateway_prefix_dead_lettered_total", (("prefix", "plant/7"),)] == 2
    assert samples["sluice_gateway_refusals_total", (("reason", "refused-0x86"),)] == 9


def test_nothing_else_is_answered() -> None:
    assert server().answer(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404")
    assert server().answer(b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405")
    assert server().answer(b"\r\n\r\n").startswith(b"HTTP/1.1 404")


async def test_it_is_asked_over_http() -> None:
    metrics = server()
    port = await metrics.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b"sluice_gateway_clients 4.0" in answer
        writer.close()
    finally:
        await metrics.stop()


def test_it_listens_nowhere_unless_told_and_not_beyond_this_machine() -> None:
    assert Settings.from_env({}).metrics is None
    assert Settings.from_env({"SLUICE_GATEWAY_METRICS": "127.0.0.1:9464"}).metrics == ("127.0.0.1", 9464)
    assert Settings.from_env({"SLUICE_GATEWAY_METRICS": "[::1]:1"}).metrics == ("::1", 1)
    for text in ("9464", "127.0.0.1:", "0.0.0.0:9464", "127.0.0.1:99999"):
        with pytest.raises(BadSettings, match="SLUICE_GATEWAY_METRICS"):
            Settings.from_env({"SLUICE_GATEWAY_METRICS": text})
