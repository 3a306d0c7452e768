"""`/healthz`, `/readyz` and `/metrics`, answered before Django: a probe a second costs next to nothing.

healthz: 200 once the monitor sees the broker, the gateway reports and this process serves; 503 with the reasons
otherwise. readyz: 200 once this process can serve pages. metrics: Prometheus text, to loopback and trusted proxies.
"""

import ipaddress
import json
import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from console import snapshot
from console.configuration import Network
from console.proxies import Application, Receive, Scope, Send


class Health:
    def __init__(self, application: Application, metrics_from: tuple[Network, ...] = ()) -> None:
        self._application = application
        self._metrics_from = metrics_from
        self._registry = CollectorRegistry()
        self._registry.register(_Collector())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in ("/healthz", "/readyz", "/metrics"):
            if scope["path"] == "/metrics":
                if not self._may_scrape(scope):
                    await _answer(send, 403, b"metrics are for this machine and trusted proxies\n", b"text/plain")
                    return
                await _answer(send, 200, generate_latest(self._registry), CONTENT_TYPE_LATEST.encode())
                return
            reasons = {} if scope["path"] == "/readyz" else ailments(snapshot.current(), time.time())
            body = {"status": "ok"} if not reasons else {"status": "unavailable", "reasons": reasons}
            await _answer(send, 503 if reasons else 200, json.dumps(body).encode() + b"\n", b"application/json")
            return
        await self._application(scope, receive, send)

    def _may_scrape(self, scope: Scope) -> bool:
        try:
            address = ipaddress.ip_address(scope["client"][0])
        except (KeyError, TypeError, ValueError):
            return False
        return address.is_loopback or any(address in network for network in self._metrics_from)


def ailments(picture: snapshot.Picture, now: float) -> dict[str, str]:
    """What keeps the product from serving, by part; empty when nothing does."""
    reasons: dict[str, str] = {}
    age = snapshot.age_ms(picture, now)
    if age is None:
        reasons["monitor"] = "no sample yet"
    elif age > 15_000:
        reasons["monitor"] = f"the newest sample is {age // 1000} s old"
    if picture.trouble:
        reasons["broker"] = picture.trouble
    return reasons


class _Collector:
    def collect(self) -> list[Metric]:
        picture = snapshot.current()
        gauges: list[Metric] = []
        for field, value in (picture.live("cluster") or {}).items():
            if value is not None:
                gauges.append(GaugeMetricFamily(f"sluice_{field}", f"Cluster-wide: {field}", value=float(value)))
        lag = GaugeMetricFamily("sluice_group_lag", "Records not yet read, by consumer group", labels=["group"])
        for group in picture.user_groups():
            if group.lag is not None:
                lag.add_metric([group.name], float(group.lag))
        return [*gauges, lag]


async def _answer(send: Send, status: int, body: bytes, kind: bytes) -> None:
    headers: list[Any] = [
        (b"content-type", kind),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
