"""`/healthz`, `/readyz` and `/metrics`, answered before Django: a probe a second costs next to nothing.

healthz: 200 once the monitor sees the broker, its disk takes what it is given, the configured listeners accept
connections and this process serves; 503 with the reasons otherwise. Damage that doesn't keep it from serving is a
warning beside 200. readyz: 200 once this process can serve pages. metrics: Prometheus text, for loopback and trusted
proxies.
"""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from console import metrics, snapshot, storage
from console.configuration import Network
from console.proxies import Application, Receive, Scope, Send

PROBE_SECONDS = 1.0
PROBE_KEPT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Something that must accept connections for the product to serve."""

    name: str
    host: str
    port: int


class Health:
    def __init__(
        self, application: Application, metrics_from: tuple[Network, ...] = (), listeners: Sequence[Listener] = ()
    ) -> None:
        self._application = application
        self._listeners = listeners
        self._probed: tuple[float, dict[str, str]] = (0.0, {})
        self._metrics_from = metrics_from

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in ("/healthz", "/readyz", "/metrics"):
            if scope["path"] == "/metrics":
                if not self._may_scrape(scope):
                    await _answer(send, 403, b"metrics are for this machine and trusted proxies\n", b"text/plain")
                    return
                accept = b",".join(value for name, value in scope.get("headers", ()) if name == b"accept")
                body, kind = metrics.render(accept.decode("latin-1"))
                await _answer(send, 200, body, kind.encode())
                return
            reasons: dict[str, str] = {}
            told: dict[str, Any] = {"status": "ok"}
            if scope["path"] == "/healthz":
                reasons = ailments(snapshot.current(), time.time()) | await self._deaf()
                if warnings := [str(trouble) for trouble in storage.troubles() if trouble.serves]:
                    told["warnings"] = {"storage": "; ".join(warnings)}
            if reasons:
                told |= {"status": "unavailable", "reasons": reasons}
            await _answer(send, 503 if reasons else 200, json.dumps(told).encode() + b"\n", b"application/json")
            return
        await self._application(scope, receive, send)

    async def _deaf(self) -> dict[str, str]:
        """The listeners that don't accept a connection, asked at most every two seconds."""
        now = time.monotonic()
        if now - self._probed[0] > PROBE_KEPT_SECONDS:
            answers = await asyncio.gather(*(_probe(listener) for listener in self._listeners))
            self._probed = (now, {name: why for name, why in answers if why})
        return self._probed[1]

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
    if failed := [str(trouble) for trouble in storage.troubles() if not trouble.serves]:
        reasons["storage"] = "; ".join(failed)
    return reasons


async def _probe(listener: Listener) -> tuple[str, str]:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(listener.host, listener.port)
    except (OSError, TimeoutError) as error:
        return listener.name, f"{listener.host}:{listener.port}: {error or 'no answer'}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return listener.name, ""


async def _answer(send: Send, status: int, body: bytes, kind: bytes) -> None:
    headers: list[Any] = [
        (b"content-type", kind),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
