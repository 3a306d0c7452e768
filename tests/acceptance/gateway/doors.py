"""Ways into a gateway, each on a port of its own: plain, with TLS, over WebSocket, and behind a PROXY header."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.fakes.authority import Authority
from tests.ports import free_port

WAYS = ("mqtt", "mqtts", "ws", "proxied")
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
PROXY = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("203.0.113.7")
    + socket.inet_aton("203.0.113.8")
    + (4711).to_bytes(2, "big")
    + (1883).to_bytes(2, "big")
)


class Reader(Protocol):
    async def readexactly(self, n: int) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Door:
    """One port, and how to come in there."""

    port: int
    way: str = "mqtt"
    context: ssl.SSLContext | None = None

    async def open(self) -> tuple[Reader, Writer]:
        """Raises OSError or asyncio.IncompleteReadError."""
        name = "localhost" if self.context is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, server_hostname=name)
        if self.way == "proxied":
            writer.write(PROXY)
        elif self.way == "ws":
            writer.write(UPGRADE)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(answer.decode())
            web = WebSocket(reader, writer)
            return web, web
        return reader, writer


class WebSocket:
    """A client's half of RFC 6455, as far as MQTT needs it. Its mask is of zeros."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""

    async def readexactly(self, n: int) -> bytes:
        while len(self._unread) < n:
            self._unread += await self._frame()
        taken, self._unread = self._unread[:n], self._unread[n:]
        return taken

    async def _frame(self) -> bytes:
        first, length = await self._reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
        payload = await self._reader.readexactly(length)
        if first & 15 == 8:  # close
            raise asyncio.IncompleteReadError(b"", None)
        if first & 15 == 9:
            self._send(0x8A, payload)
        return payload if first & 15 in (0, 2) else b""

    def write(self, data: bytes) -> None:
        self._send(0x82, data)

    def _send(self, first: int, data: bytes) -> None:
        length = len(data)
        if length < 126:
            head = bytes((first, 0x80 | length))
        elif length < 1 << 16:
            head = bytes((first, 0xFE)) + length.to_bytes(2, "big")
        else:
            head = bytes((first, 0xFF)) + length.to_bytes(8, "big")
        self._writer.write(head + bytes(4) + data)

    def close(self) -> None:
        self._writer.close()


class Doors:
    """All ways into one gateway; `environ` is what it is to be started with."""

    def __init__(self, authority: Authority, pair: tuple[Path, Path], *, plain: int) -> None:
        ports = {"mqtt": plain, "mqtts": free_port(), "ws": free_port(), "proxied": free_port()}
        context = authority.client_context()
        self.doors = [Door(ports[way], way, context if way == "mqtts" else None) for way in WAYS]
        urls = {
            "mqtt": "mqtt://127.0.0.1:{}",
            "mqtts": "mqtts://127.0.0.1:{}",
            "ws": "ws://127.0.0.1:{}/mqtt",
            "proxied": "mqtt://127.0.0.1:{}?proxy=1",
        }
        self.environ = {
            "SLUICE_MQTT_LISTENERS": ",".join(urls[way].format(port) for way, port in ports.items()),
            "SLUICE_TLS_CERTIFICATE": str(pair[0]),
            "SLUICE_TLS_KEY": str(pair[1]),
        }

    def of(self, number: int) -> Door:
        """The way in of the device of this number: every fourth takes the same."""
        return self.doors[number % len(self.doors)]
