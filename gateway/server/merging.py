"""`/metrics` of several workers in one answer: each is asked, and all that they say gets a label `worker`.

A worker that doesn't answer in time is left out of this answer; `sluice_gateway_worker_up` says which did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

PATIENCE = 2.0  # seconds for a worker to answer


class AllNumbers(Collector):
    """What each worker said of itself, as Prometheus text; None: nothing."""

    def __init__(self, said: Mapping[int, str | None]) -> None:
        self._said = said

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("sluice_gateway_worker_up", "Whether a worker answered", labels=["worker"])
        families: dict[str, Metric] = {}
        for number, text in sorted(self._said.items()):
            up.add_metric([str(number)], float(text is not None))
            for found in text_string_to_metric_families(text or ""):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += [
                    Sample(name, {**labels, "worker": str(number)}, value) for name, labels, value, *_ in found.samples
                ]
        yield up
        yield from families.values()


async def gather(ports: Mapping[int, int | None]) -> AllNumbers:
    """Ask the workers, which listen on these ports of this machine; None: it doesn't listen yet."""
    said = await asyncio.gather(*(_ask(port) for port in ports.values()))
    return AllNumbers(dict(zip(ports, said, strict=True)))


async def _ask(port: int | None) -> str | None:
    if port is None:
        return None
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read()
            return body.decode() if head.startswith(b"HTTP/1.1 200 ") else None
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    finally:
        if writer is not None:
            writer.close()
