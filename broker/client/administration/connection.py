"""One connection to one broker: TLS, SASL, negotiated versions, pipelined requests with a deadline each."""

import asyncio
import itertools
import ssl
from contextlib import suppress
from typing import Any

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
from broker.wire.codec import Malformed, Struct

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
LARGEST_RESPONSE = 256 << 20
UNSUPPORTED_VERSION = 35


class ConnectionLost(Unreachable):
    """The broker closed the connection, or it broke; what was under way may or may not have been done."""


class Connection:
    """An open, authenticated connection. Made by `connect`; for one event loop."""

    def __init__(self, settings: Settings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._settings = settings
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[int, int, asyncio.Future[Struct]]] = {}
        self._receiving: asyncio.Task[None] | None = None
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
                    reader, writer = await asyncio.open_connection(
                        host, port, ssl=context, server_hostname=host if context else None
                    )
                except ssl.SSLError as error:
                    raise AuthenticationFailed(f"TLS with {host}:{port}: {error}") from error
                except OSError as error:
                    raise Unreachable(f"{host}:{port}: {error}") from error
                connection = cls(settings, reader, writer)
                try:
                    await connection._open(timeout)
                except BaseException:
                    await connection.close()
                    raise
                return connection
        except TimeoutError:
            raise TimedOut(f"{host}:{port} did not answer within {timeout:g} s") from None

    async def _open(self, timeout: float) -> None:
        self._receiving = asyncio.get_running_loop().create_task(self._receive())
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

    async def exchange(self, key: int, version: int, request: Struct, timeout: float) -> Struct:
        """Send one request and wait for its response; raises TimedOut, ConnectionLost, ProtocolError."""
        if self.lost:
            raise ConnectionLost("the connection is closed")
        number = next(self._numbers)
        header = framing.RequestHeader(key, version, number, self._settings.client_id)
        future: asyncio.Future[Struct] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (key, version, future)
        try:
            self._writer.writelines(framing.request(header, request))
            async with asyncio.timeout(timeout):
                await self._writer.drain()
                return await future
        except TimeoutError:
            raise TimedOut(f"no answer to {schema.api(key).name} within {timeout:g} s") from None
        except OSError as error:
            self._break(ConnectionLost(str(error)))
            raise ConnectionLost(str(error)) from error
        finally:
            self._waiting.pop(number, None)

    async def _receive(self) -> None:
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(4), "big", signed=True)
                if not 4 <= size <= LARGEST_RESPONSE:
                    raise ProtocolError(f"a response of {size} bytes")
                frame = await self._reader.readexactly(size)
                found = self._waiting.pop(int.from_bytes(frame[:4], "big", signed=True), None)
                if found is None:
                    continue  # its deadline had passed
                key, version, future = found
                if future.done():
                    continue
                try:
                    future.set_result(self._parse(key, version, frame))
                except (Malformed, schema.UnsupportedVersion) as error:
                    future.set_exception(ProtocolError(f"{schema.api(key).name} response: {error}"))
        except ClientError as error:
            self._break(error)
        except (OSError, EOFError) as error:
            self._break(ConnectionLost(str(error) or "the broker closed the connection"))
        except asyncio.CancelledError:
            self._break(ConnectionLost("the connection was closed here"))
            raise

    @staticmethod
    def _parse(key: int, version: int, frame: bytes) -> Struct:
        if key == API_VERSIONS and version > 0 and frame[4:6] == UNSUPPORTED_VERSION.to_bytes(2, "big"):
            # KIP-511: an answer to a version the broker doesn't have is of version 0
            return framing.parse_response(key, 0, frame)[1]
        return framing.parse_response(key, version, frame)[1]

    def _break(self, error: ClientError) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for _, _, future in waiting.values():
            if not future.done():
                future.set_exception(error)
        self._writer.close()

    async def close(self) -> None:
        self.lost = True
        if self._receiving is not None:
            self._receiving.cancel()
            with suppress(asyncio.CancelledError):
                await self._receiving
        self._writer.close()
        with suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


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
