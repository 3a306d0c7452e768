"""Where the gateway listens, as text and as values: `mqtt://127.0.0.1:1883,wss://0.0.0.0:8084/mqtt?proxy=1`.

Schemes: mqtt, ws and http, and with TLS mqtts, wss and https.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 8083, "wss": 8084, "http": 8085, "https": 8086}


class BadListener(ValueError):
    """A listener's address can't be used."""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One listening address. `proxy`: every connection begins with a PROXY protocol v2 header.

    Every connection asks for what follows from its fields, so that is worked out once."""

    scheme: str
    host: str
    port: int
    path: str = "/mqtt"
    proxy: bool = False

    @cached_property
    def name(self) -> str:
        """As configured: `mqtt://127.0.0.1:1883`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" + (self.path if self.websocket else "")

    @cached_property
    def websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @cached_property
    def http(self) -> bool:
        return self.scheme in ("http", "https")

    @cached_property
    def tls(self) -> bool:
        return self.scheme in ("mqtts", "wss", "https")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.name


def parse_listeners(text: str) -> list[Listener]:
    """Comma-separated listener URLs. Raises `BadListener`, naming the one at fault."""
    return [_parse(part.strip()) for part in text.split(",") if part.strip()]


def _parse(text: str) -> Listener:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadListener(f"{text}: {error}") from None
    if parts.scheme not in _PORTS:
        raise BadListener(f"{text}: the scheme must be one of {', '.join(_PORTS)}")
    if not parts.hostname:
        raise BadListener(f"{text}: the host is missing")
    options = parse_qs(parts.query)
    unknown = set(options) - {"proxy"}
    if unknown:
        raise BadListener(f"{text}: unknown option {', '.join(sorted(unknown))}")
    return Listener(
        scheme=parts.scheme,
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        path=parts.path or "/mqtt",
        proxy=options.get("proxy", ["0"])[-1] not in ("0", "false", "no"),
    )
