"""Refuses a WebSocket whose Origin is foreign, missing or `null`: it carries cookies all the same (RFC 6455 10.2)."""

from console.proxies import Application, Receive, Scope, Send


class KnownOrigins:
    def __init__(self, application: Application, origins: frozenset[str]) -> None:
        self._application = application
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if len(origins) != 1 or origins[0].lower() not in self._origins:
            await send({"type": "websocket.close", "code": 4403})
            return
        await self._application(scope, receive, send)
