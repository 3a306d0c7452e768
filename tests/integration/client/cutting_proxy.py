"""A TCP proxy before a broker that cuts connections in the middle of anything."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from broker.client import Settings
from broker.wire import framing

METADATA = 3


class CuttingProxy:
    """Everything that a client is told of the broker's address is told as the proxy's."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._cutting: asyncio.Task[None] | None = None
        self.cuts = 0
        self.port = 0
        self.muted = False  # what the broker answers is lost, and no connection breaks

    def settings(self, settings: Settings) -> Settings:
        return replace(settings, bootstrap=f"127.0.0.1:{self.port}")

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.end()
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def begin(self, seed: int) -> None:
        """Cut every few hundredths of a second."""
        self._cutting = asyncio.get_running_loop().create_task(self._cut_often(random.Random(seed)))

    def end(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()

    async def _cut_often(self, dice: random.Random) -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.03, 0.15))
            self.cut()

    def cut(self) -> None:
        """Every connection there is; what was on its way to the broker may arrive, what comes back does not."""
        self.cuts += bool(self._pairs)
        for client, broker in self._pairs:
            client.transport.abort()
            broker.close()
        self._pairs.clear()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            answers, broker = await asyncio.open_connection(*self._target)
            self._pairs.add((client, broker))
            asked: dict[int, tuple[int, int]] = {}
            await asyncio.gather(self._forward(reader, broker, asked), self._back(answers, client, asked))
        client.close()

    async def _forward(
        self, reader: asyncio.StreamReader, broker: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        with suppress(OSError, EOFError):
            while True:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(int.from_bytes(size, "big"))
                key, version, number = (int.from_bytes(frame[a:b], "big") for a, b in ((0, 2), (2, 4), (4, 8)))
                if key == METADATA:
                    asked[number] = key, version
                broker.write(size + frame)
        broker.close()

    async def _back(
        self, answers: asyncio.StreamReader, client: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        with suppress(OSError, EOFError):
            while True:
                frame = await answers.readexactly(int.from_bytes(await answers.readexactly(4), "big"))
                number = int.from_bytes(frame[:4], "big")
                if number in asked:
                    frame = self._moved(asked.pop(number), number, frame)
                if not self.muted:
                    client.write(len(frame).to_bytes(4, "big") + frame)
        client.close()

    def _moved(self, asked: tuple[int, int], number: int, frame: bytes) -> bytes:
        key, version = asked
        _, message = framing.parse_response(key, version, frame)
        for broker in message.brokers:
            broker.host, broker.port = "127.0.0.1", self.port
        header = framing.RequestHeader(key, version, number, None)
        return b"".join(framing.response(header, message))[4:]
