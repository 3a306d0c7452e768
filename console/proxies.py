"""Puts the client's address and scheme in their place when a trusted proxy forwarded the request.

Works on the ASGI scope, so that pages and sockets see the same. Headers from anybody else are taken out.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from console.configuration import Network

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
FORWARDING = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded")


class TrustedProxies:
    def __init__(self, application: Application, networks: tuple[Network, ...]) -> None:
        self._application = application
        self._networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = self.seen_through(scope)
        await self._application(scope, receive, send)

    def seen_through(self, scope: Scope) -> Scope:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        rest = [(name, value) for name, value in headers if name not in FORWARDING]
        changes: dict[str, Any] = {"headers": rest}
        client = scope.get("client")
        if client and self._trusted(client[0]):
            forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
            # The nearest address that is not itself a trusted proxy: what stands further left, anybody could write.
            for address in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
                changes["client"] = (address, 0)
                if not self._trusted(address):
                    break
            scheme = next((value for name, value in headers if name == b"x-forwarded-proto"), b"").decode("latin-1")
            if scheme in ("http", "https"):
                secure = {"http": {"http": "http", "https": "https"}, "websocket": {"http": "ws", "https": "wss"}}
                changes["scheme"] = secure[scope["type"]][scheme]
        return {**scope, **changes}

    def _trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
