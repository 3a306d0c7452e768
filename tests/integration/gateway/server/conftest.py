"""A server on the engine in memory, on free ports of this machine, and clients made of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.mqtt.surroundings import Settings
from gateway.server.listeners import Listener, parse_listeners
from gateway.server.server import Server, ServerSettings
from tests.fakes.gateway_engine import MemoryEngine, Rules
from tests.fakes.mqtt_device import split


class Client:
    """A stream to the gateway that reads whole packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *packets: bytes) -> Client:
        self.writer.write(b"".join(packets))
        await self.writer.drain()
        return self

    async def packet(self, timeout: float = 60.0) -> tuple[int, bytes]:
        async with asyncio.timeout(timeout):
            data = await self.reader.readexactly(2)
            while data[-1] & 0x80:
                data += await self.reader.readexactly(1)
            length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[1:]))
            data += await self.reader.readexactly(length)
        return split(data)[0]

    async def closed(self, timeout: float = 60.0) -> bytes:
        """Wait for the end; what came before it."""
        try:
            async with asyncio.timeout(timeout):
                return await self.reader.read()
        except ConnectionResetError:
            return b""

    def abort(self) -> None:
        self.writer.transport.abort()


class Gateway:
    def __init__(self, server: Server, engine: MemoryEngine, listeners: list[Listener]) -> None:
        self.server = server
        self.engine = engine
        self.listeners = listeners

    def address(self, scheme: str = "mqtt") -> tuple[str, int]:
        listener = next(listener for listener in self.listeners if listener.scheme == scheme)
        return listener.host, listener.port

    async def client(self, scheme: str = "mqtt", *, tls: ssl.SSLContext | None = None) -> Client:
        host, port = self.address(scheme)
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=1 << 24)
        return Client(reader, writer)


Serve = Callable[..., Awaitable[Gateway]]


async def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Poll until the condition holds; fails by TimeoutError."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - what is polled are sockets and tables, not one event
            await asyncio.sleep(0.01)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[Server] = []

    async def start(
        listen: str = "mqtt://127.0.0.1:0",
        *,
        rules: Rules | None = None,
        settings: ServerSettings | None = None,
        mqtt: Settings | None = None,
    ) -> Gateway:
        loop = asyncio.get_running_loop()
        engine = MemoryEngine(rules, later=loop.call_later)
        server = Server(engine, settings or ServerSettings(mqtt=mqtt or Settings()))
        servers.append(server)
        return Gateway(server, engine, await server.start(parse_listeners(listen)))

    yield start
    for server in servers:
        with contextlib.suppress(TimeoutError):
            await server.stop(closing=0.2)
