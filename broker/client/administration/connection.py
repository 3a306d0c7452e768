"""One connection to one broker: TLS, SASL, negotiated versions, pipelined requests with a deadline each."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from broker.client.administration.scram import ScramClient, plain
from broker.client.errors import (
    AuthenticationFailed,
    ClientError,
    ProtocolError,
    TimedOut,
    Unreachable,
    UnsupportedByCluster,
    from_code,
)
from broker.client.settings import Settings
from broker.wire import codec, framing, schema
from broker.wire.codec import Buffer, Malformed, Struct

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
LARGEST_RESPONSE = 256 << 20
UNSUPPORTED_VERSION = 35

Heard = Callable[[memoryview | ClientError], None]
"""Takes the frame that answers a request, or why there will be none."""


class ConnectionLost(Unreachable):
    """The broker closed the connection, or it broke; what was under way may or may not have been done."""


class Connection(asyncio.Protocol):
    """An open, authenticated connection. Made by `connect`; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._transport: asyncio.Transport | None = None
        self._splitter = framing.Splitter(LARGEST_RESPONSE)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Heard] = {}
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.versions: dict[int, tuple[int, int]] = {}
        self.features: dict[str, int] = {}
        self.lost = False

    @classmethod
    async def connect(cls, settings: Settings, host: str, port: int, timeout: float) -> "Connection":
        """Raises Unreachable, AuthenticationFailed, TimedOut."""
        try:
            async with asyncio.timeout(timeout):
                try:
                    context = tls_context(settings)
                    _, connection = await asyncio.get_running_loop().create_connection(
                        lambda: cls(settings), host, port, ssl=context, server_hostname=host if context else None
                    )
                except ssl.SSLError as error:
                    raise AuthenticationFailed(f"TLS with {host}:{port}: {error}") from error
                except OSError as error:
                    raise Unreachable(f"{host}:{port}: {error}") from error
                try:
                    await connection._open(timeout)
                except BaseException:
                    await connection.close()
                    raise
                return connection
        except TimeoutError:
            raise TimedOut(f"{host}:{port} did not answer within {timeout:g} s") from None

    async def _open(self, timeout: float) -> None:
        answer = await self._negotiate(timeout)
        self.versions = {each.api_key: (each.min_version, each.max_version) for each in answer.api_keys}
        self.features = {each.name: each.max_version_level for each in answer.finalized_features}
        if self._settings.sasl:
            await self._authenticate(timeout)

    async def _negotiate(self, timeout: float) -> Struct:
        request = codec.struct("ApiVersionsRequest")(client_software_name="sluice", client_software_version="1")
        for version in (3, 0):
            answer = await self.exchange(API_VERSIONS, version, request, timeout)
            if answer.error_code != UNSUPPORTED_VERSION:
                break
        if answer.error_code:
            raise from_code(answer.error_code)
        return answer

    async def _authenticate(self, timeout: float) -> None:
        settings = self._settings
        handshake = codec.struct("SaslHandshakeRequest")(mechanism=settings.mechanism)
        answer = await self.exchange(SASL_HANDSHAKE, 1, handshake, timeout)
        if answer.error_code:
            offered = ", ".join(answer.mechanisms)
            raise AuthenticationFailed(f"the cluster does not take {settings.mechanism}; it offers {offered}")
        if settings.mechanism == "PLAIN":
            await self._token(plain(settings.username, settings.password), timeout)
            return
        exchange = ScramClient(settings.mechanism, settings.username, settings.password)
        challenge = await self._token(exchange.first(), timeout)
        exchange.verify(await self._token(exchange.final(challenge), timeout))

    async def _token(self, token: bytes, timeout: float) -> bytes:
        version = min(2, self.versions.get(SASL_AUTHENTICATE, (0, 0))[1])
        request = codec.struct("SaslAuthenticateRequest")(auth_bytes=token)
        try:
            answer = await self.exchange(SASL_AUTHENTICATE, version, request, timeout)
        except ConnectionLost:
            # brokers close the connection of a client that failed
            raise AuthenticationFailed("the cluster closed the connection during authentication") from None
        if answer.error_code:
            raise AuthenticationFailed(answer.error_message or "the cluster refused the credential")
        return bytes(answer.auth_bytes)

    def version(self, key: int, at_most: int = schema.MAX_VERSION, at_least: int = 0) -> int:
        """The newest version of an API that both sides speak; raises UnsupportedByCluster."""
        theirs, ours = self.versions.get(key), schema.api(key)
        if theirs is not None:
            newest = min(theirs[1], ours.max, at_most)
            if newest >= max(theirs[0], ours.min, at_least):
                return newest
        raise UnsupportedByCluster(f"the cluster has no {ours.name} in a version that serves here")

    # --- requests

    async def exchange(self, key: int, version: int, request: Struct, timeout: float) -> Struct:
        """Send one request and wait for its response; raises TimedOut, ConnectionLost, ProtocolError."""
        future: asyncio.Future[Struct] = asyncio.get_running_loop().create_future()

        def heard(answer: memoryview | ClientError) -> None:
            if future.done():
                return
            if isinstance(answer, ClientError):
                future.set_exception(answer)
                return
            try:
                future.set_result(_parse(key, version, answer))
            except (Malformed, schema.UnsupportedVersion) as error:
                future.set_exception(ProtocolError(f"{schema.api(key).name} response: {error}"))

        number = next(self._numbers)
        header = framing.RequestHeader(key, version, number, self._settings.client_id)
        self._send(number, framing.request(header, request), heard)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise TimedOut(f"no answer to {schema.api(key).name} within {timeout:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def post(self, key: int, version: int, body: Sequence[Buffer], heard: Heard) -> None:
        """Send an encoded request; `heard` is called once, from within what the loop reads. It has no deadline:
        `abort` a connection that keeps silent. Raises ConnectionLost."""
        number = next(self._numbers)
        header = framing.RequestHeader(key, version, number, self._settings.client_id)
        self._send(number, framing.request_bytes(header, body), heard)

    def _send(self, number: int, frame: Sequence[Buffer], heard: Heard) -> None:
        if self.lost or self._transport is None:
            raise ConnectionLost("the connection is closed")
        self._waiting[number] = heard
        if len(frame) == 1:
            self._transport.write(frame[0])
        else:
            self._transport.writelines(frame)

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        wire: socket.socket | None = transport.get_extra_info("socket")
        if wire is not None:
            with suppress(OSError):
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._splitter.feed(data)
        except framing.FrameTooLarge as error:
            self._break(ProtocolError(f"a response: {error}"))
            return
        for frame in frames:
            if len(frame) < 4:
                self._break(ProtocolError(f"a response of {len(frame)} bytes"))
                return
            heard = self._waiting.pop(int.from_bytes(frame[:4], "big", signed=True), None)
            if heard is not None:  # else its deadline had passed
                heard(frame)

    def connection_lost(self, error: Exception | None) -> None:
        self._break(ConnectionLost(str(error or "") or "the broker closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    def _break(self, error: ClientError) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for heard in waiting.values():
            heard(error)
        if self._transport is not None:
            self._transport.abort()

    def abort(self, why: str) -> None:
        """Let go at once; whoever waits for an answer hears ConnectionLost."""
        self._break(ConnectionLost(why))

    async def close(self) -> None:
        """Let go; within a second."""
        self.lost = True
        if self._transport is not None:
            self._transport.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.shield(self._closed)
        self.abort("the connection was closed here")


def _parse(key: int, version: int, frame: memoryview) -> Struct:
    if key == API_VERSIONS and version > 0 and frame[4:6] == UNSUPPORTED_VERSION.to_bytes(2, "big"):
        # KIP-511: an answer to a version the broker doesn't have is of version 0
        return framing.parse_response(key, 0, frame)[1]
    return framing.parse_response(key, version, frame)[1]


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context these settings ask for, or None."""
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = settings.tls_verify_host
        if settings.tls_certificate:
            password: Any = settings.tls_key_password or None
            context.load_cert_chain(settings.tls_certificate, settings.tls_key or None, password)
    except OSError as error:
        raise AuthenticationFailed(f"the TLS files can't be used: {error}") from error
    return context
