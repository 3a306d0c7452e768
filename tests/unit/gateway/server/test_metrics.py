"""`/metrics` of the gateway, read by the parsers of both formats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from gateway.config import BadSettings, Settings
from gateway.counters import Counters
from gateway.publishing.traffic import Table
from gateway.server.figures import Figures
from gateway.server.merging import gather
from gateway.server.metrics import MetricsServer, OwnNumbers, Sources


def numbers(name: str = "g1", received: int = 12) -> OwnNumbers:
    routes, prefixes = Table(), Table()
    routes.row('odd "name"\n\\').messages += 3
    prefixes.row("plant/7").dead_lettered += 2
    return OwnNumbers(
        Sources(
            gateway=name,
            started=1.5,
            counters=Counters(received=received),
            gauges=lambda: {"clients": 4},
            totals=lambda: Figures(1, 2, 3, 4, 5, 6, 7, 8),
            tables={"route": routes, "prefix": prefixes},
            refusals=lambda: {"refused-0x86": 9},
        )
    )


def server(made: OwnNumbers | None = None) -> MetricsServer:
    async def gather_own() -> OwnNumbers:
        return made or numbers()

    return MetricsServer(gather_own)


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
FORMATS = [("", "text/plain", plain), ("application/openmetrics-text; version=1.0.0", "openmetrics", open_metrics)]


async def asked(of: MetricsServer, accept: str, kind: str, parse: Any) -> Samples:
    answer = await of.answer(f"GET /metrics?x HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head and kind in head.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(("accept", "kind", "parse"), FORMATS)
async def test_both_formats_are_what_their_parsers_take(accept: str, kind: str, parse: object) -> None:
    samples = await asked(server(), accept, kind, parse)
    assert samples["sluice_gateway_received_total", ()] == 12
    assert samples["sluice_gateway_clients", ()] == 4
    assert samples["sluice_gateway_sockets_sent_bytes_total", ()] == 8
    assert samples["sluice_gateway_route_messages_total", (("route", 'odd "name"\n\\'),)] == 3
    assert samples["sluice_gateway_prefix_dead_lettered_total", (("prefix", "plant/7"),)] == 2
    assert samples["sluice_gateway_refusals_total", (("reason", "refused-0x86"),)] == 9


@pytest.mark.parametrize(("accept", "kind", "parse"), FORMATS)
async def test_one_answer_has_the_numbers_of_all_workers(accept: str, kind: str, parse: object) -> None:
    one, other = server(numbers("g-1", 12)), server(numbers("g-2", 30))
    ports = {1: await one.start("127.0.0.1", 0), 2: await other.start("127.0.0.1", 0), 3: None}
    try:
        samples = await asked(MetricsServer(lambda: gather(ports)), accept, kind, parse)
    finally:
        await one.stop()
        await other.stop()
    assert samples["sluice_gateway_received_total", (("worker", "1"),)] == 12
    assert samples["sluice_gateway_received_total", (("worker", "2"),)] == 30
    assert samples["sluice_gateway_info", (("name", "g-2"), ("worker", "2"))] == 1
    assert samples["sluice_gateway_route_messages_total", (("route", 'odd "name"\n\\'), ("worker", "2"))] == 3
    assert [samples["sluice_gateway_worker_up", (("worker", each),)] for each in "123"] == [1, 1, 0]


async def test_a_worker_that_says_nothing_is_left_out() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    gone = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        found = await gather({1: gone.sockets[0].getsockname()[1], 2: 1})
    finally:
        gone.close()
    assert [sample.value for family in found.collect() for sample in family.samples] == [0, 0]


async def test_nothing_else_is_answered() -> None:
    assert (await server().answer(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
    assert (await server().answer(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
    assert (await server().answer(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")


async def test_it_is_asked_over_http() -> None:
    metrics = server()
    port = await metrics.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 60)
        assert b"sluice_gateway_clients 4.0" in answer
        writer.close()
    finally:
        await metrics.stop()


def test_it_listens_nowhere_unless_told_and_not_beyond_this_machine() -> None:
    assert Settings.from_env({}).metrics is None
    assert Settings.from_env({"SLUICE_GATEWAY_METRICS": "127.0.0.1:9464"}).metrics == ("127.0.0.1", 9464)
    worker = {"SLUICE_GATEWAY_METRICS": "[::1]:9464", "SLUICE_GATEWAY_WORKER": "2"}
    assert Settings.from_env(worker).metrics == ("127.0.0.1", 0), "a worker tells the process that keeps it"
    assert Settings.from_env({"SLUICE_GATEWAY_METRICS": "[::1]:1"}).metrics == ("::1", 1)
    for text in ("9464", "127.0.0.1:", "0.0.0.0:9464", "127.0.0.1:99999"):
        with pytest.raises(BadSettings, match="SLUICE_GATEWAY_METRICS"):
            Settings.from_env({"SLUICE_GATEWAY_METRICS": text})
