"""A tiny server that speaks just enough of the protocol to misbehave on purpose."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from broker.wire import codec, framing, schema
from broker.wire.codec import Struct

Answer = Callable[[framing.RequestHeader, Struct], Struct | None]


class StandIn:
    """Answers ApiVersions and Metadata by itself, everything else by `answer`; None closes the connection, and a
    request named in `silent` gets no answer at all."""

    def __init__(self, answer: Answer | None = None, silent: frozenset[int] = frozenset()) -> None:
        self._answer = answer
        self._silent = silent
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.requests: list[int] = []
        self.port = 0

    async def __aenter__(self) -> "StandIn":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                header, body = framing.parse_request(await reader.readexactly(size))
                self.requests.append(header.api_key)
                if header.api_key in self._silent:
                    continue
                message = self._reply(header, framing.parse_body(header, body))
                if message is None:
                    writer.close()
                    return
                writer.writelines(framing.response(header, message))
                await writer.drain()

    def _reply(self, header: framing.RequestHeader, request: Struct) -> Struct | None:
        if header.api_key == 18:
            each = codec.struct("ApiVersionsResponse.ApiVersion")
            keys = [each(api_key=a.key, min_version=a.min, max_version=a.max) for a in schema.apis().values()]
            return codec.struct("ApiVersionsResponse")(api_keys=keys)
        if header.api_key == 3:
            broker = codec.struct("MetadataResponse.MetadataResponseBroker")
            return codec.struct("MetadataResponse")(
                brokers=[broker(node_id=1, host="127.0.0.1", port=self.port)], cluster_id="stand-in", controller_id=1
            )
        return self._answer(header, request) if self._answer else None
