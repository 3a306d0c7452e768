"""`/metrics` of a gateway: OpenMetrics or Prometheus text over HTTP, on an address of its own (off by default). The
process that keeps several workers answers for all of them (`gateway.server.merging`).

Answers GET of exactly that path, one request per connection, within a few seconds. Labels are bounded: routes and topic
prefixes come from capped tables, and devices are never labels.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.counters import Counters
from gateway.publishing.traffic import FIELDS, Table
from gateway.server.figures import Figures

DEADLINE = 5.0
LARGEST = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the numbers are looked up, each time somebody asks."""

    gateway: str
    started: float
    counters: Counters
    gauges: Callable[[], Mapping[str, float]]
    totals: Callable[[], Figures]
    tables: Mapping[str, Table]
    refusals: Callable[[], Mapping[str, int]]


_HELP = {
    "received": "Messages taken from devices: PUBLISH packets, and what came by HTTP",
    "received_http": "Messages that came by HTTP",
    "denied": "PUBLISH packets refused by a policy",
    "dead_lettered": "Messages that went to a dead-letter topic",
    "connects": "Connections that were accepted with their CONNECT",
    "refused_connects": "CONNECT packets refused",
}


class OwnNumbers(Collector):
    """Of this process."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        sources = self._sources
        yield InfoMetricFamily("sluice_gateway", "The gateway", value={"name": sources.gateway})
        yield GaugeMetricFamily("sluice_gateway_start_time_seconds", "When it started", value=sources.started)
        for name, value in sources.gauges().items():
            yield GaugeMetricFamily(f"sluice_gateway_{name}", f"Now: {name.replace('_', ' ')}", value=value)
        for name, count in sources.counters.snapshot().items():
            text = _HELP.get(name, f"Since the start: {name.replace('_', ' ')}")
            yield CounterMetricFamily(f"sluice_gateway_{name}", text, value=count)
        for name, count in sources.totals()._asdict().items():
            yield CounterMetricFamily(
                f"sluice_gateway_sockets_{name}", f"Through all connections: {name.replace('_', ' ')}", value=count
            )
        refusals = CounterMetricFamily("sluice_gateway_refusals", "Connections closed for a reason", labels=["reason"])
        for reason, count in sorted(sources.refusals().items()):
            refusals.add_metric([reason], count)
        yield refusals
        for label, table in sources.tables.items():
            yield from _table(label, table)


def _table(label: str, table: Table) -> Iterator[Metric]:
    families = [
        CounterMetricFamily(f"sluice_gateway_{label}_{field}", f"By {label}: {field.replace('_', ' ')}", labels=[label])
        for field in FIELDS
    ]
    for name, values in sorted(table.everything().items()):
        for family, value in zip(families, values or (), strict=True):
            family.add_metric([name], value)
    yield from families


class MetricsServer:
    """Listens on `host:port` once started."""

    def __init__(self, gather: Callable[[], Awaitable[Collector]]) -> None:
        """`gather` gives the numbers of this moment, within `DEADLINE`."""
        self._gather = gather
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """The port it got; raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=LARGEST)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self.answer(head))
                await writer.drain()
        writer.close()

    async def answer(self, head: bytes) -> bytes:
        """The response to a request's head."""
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != "/metrics":
            return _response("404 Not Found", "text/plain", b"only /metrics is here\n")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET\n", ["Allow: GET, HEAD"])
        accept = next((line[7:].strip() for line in lines if line[:7].lower() == "accept:"), "")
        encode, kind = choose_encoder(accept)
        body = encode(await self._gather())
        return _response("200 OK", kind, b"" if method == "HEAD" else body)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()


def _response(status: str, kind: str, body: bytes, more: Sequence[str] = ()) -> bytes:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *more,
    ]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
