"""Signing in: SaslHandshake 0-1 (KIP-43), SaslAuthenticate 0-2 (KIP-152; re-authentication KIP-368).

SCRAM-SHA-256 and -512 (RFC 5802), PLAIN (over TLS or loopback only), OAUTHBEARER (RFC 7628, tokens checked against a
JWKS file). Handshake version 0, whose tokens follow bare of any frame header, is refused. A failed sign-in is answered
with SASL_AUTHENTICATION_FAILED and the connection closed, after a pause so that guessing is slow; a token that proves
nobody is first answered with the challenge of RFC 7628, section 3.2.2, as in Kafka.
"""

from __future__ import annotations

import asyncio
from typing import Any

from broker.api.registry import Context, Disconnect, handles
from broker.cluster import scram
from broker.cluster.credentials import TokenRefused
from broker.cluster.scram import AuthenticationFailed
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

SaslHandshakeResponse = struct("SaslHandshakeResponse")
SaslAuthenticateResponse = struct("SaslAuthenticateResponse")

FAILURE_PAUSE = 0.1
INVALID_TOKEN = b'{"status":"invalid_token"}'


class Exchange:
    """One sign-in under way: the mechanism agreed on and the messages so far."""

    __slots__ = ("mechanism", "refused", "scram")

    def __init__(self, mechanism: str, scram_exchange: scram.Exchange | None) -> None:
        self.mechanism = mechanism
        self.scram = scram_exchange
        self.refused = ""
        """Why the token that came proves nobody: whatever the client says next, the exchange has failed."""


def offered(ctx: Context) -> tuple[str, ...]:
    """The mechanisms this listener takes."""
    protected = ctx.listener.tls or ctx.listener.loopback
    if ctx.listener.internal:
        return ("SCRAM-SHA-256", "SCRAM-SHA-512")
    return tuple(mechanism for mechanism in ctx.broker.config.mechanisms if mechanism != "PLAIN" or protected)


@handles(17, min=0, max=1, before_authentication=True)
def sasl_handshake(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.listener.sasl:
        return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)
    mechanisms = list(offered(ctx))
    if header.api_version == 0 or request.mechanism not in mechanisms:
        ctx.sasl = None
        return SaslHandshakeResponse(error_code=ErrorCode.UNSUPPORTED_SASL_MECHANISM, mechanisms=mechanisms)
    exchange = None
    if request.mechanism in scram.MECHANISMS:
        exchange = scram.Exchange(request.mechanism, ctx.broker.credentials.find, ctx.broker.credentials.decoys)
    ctx.sasl = Exchange(request.mechanism, exchange)
    return SaslHandshakeResponse(mechanisms=mechanisms)


@handles(36, min=0, max=2, before_authentication=True)
async def sasl_authenticate(ctx: Context, header: RequestHeader, request: Any) -> Any:
    exchange = ctx.sasl
    if exchange is None:
        return SaslAuthenticateResponse(
            error_code=ErrorCode.ILLEGAL_SASL_STATE,
            error_message="SaslAuthenticate request received without a SaslHandshake.",
        )
    try:
        if exchange.refused:
            raise AuthenticationFailed(exchange.refused)
        answer, user, lifetime = await _step(ctx, exchange, bytes(request.auth_bytes))
    except TokenRefused as refused:
        exchange.refused = str(refused)
        ctx.broker.meter.failed_authentications += 1
        await asyncio.sleep(FAILURE_PAUSE)
        return SaslAuthenticateResponse(auth_bytes=INVALID_TOKEN, error_message=None)
    except AuthenticationFailed as failure:
        ctx.sasl = None
        if not exchange.refused:
            ctx.broker.meter.failed_authentications += 1
            await asyncio.sleep(FAILURE_PAUSE)
        ctx.connection.dismiss(f"authentication failed: {exchange.mechanism}")
        return SaslAuthenticateResponse(
            error_code=ErrorCode.SASL_AUTHENTICATION_FAILED, error_message=str(failure), auth_bytes=b""
        )
    if user is not None:
        _signed_in(ctx, user, lifetime)
    return SaslAuthenticateResponse(
        auth_bytes=answer, error_message=None, session_lifetime_ms=0 if lifetime is None else int(lifetime * 1000)
    )


def _signed_in(ctx: Context, user: str, lifetime: float | None) -> None:
    principal = f"User:{user}"
    if ctx.authenticated and principal != ctx.principal:
        raise Disconnect(f"re-authentication as {principal} on a connection of {ctx.principal}")
    ctx.sasl = None
    ctx.principal = principal
    ctx.authenticated = True
    ctx.session_expires = None if lifetime is None else ctx.broker.clock.monotonic() + lifetime
    ctx.broker.meter.authentications += 1
    ctx.connection.authenticated()


async def _step(ctx: Context, exchange: Exchange, message: bytes) -> tuple[bytes, str | None, float | None]:
    """(answer, the user once proven, seconds the session may last or None); raises AuthenticationFailed."""
    if exchange.scram is not None:
        if not exchange.scram.started:
            return exchange.scram.first(message), None, None
        finished = exchange.scram.final(message)
        _require_place(ctx, finished.user)
        return finished.message, finished.user, None
    if exchange.mechanism == "PLAIN":
        user = await _plain(ctx, message)
        _require_place(ctx, user)
        return b"", user, None
    user, lifetime = ctx.broker.credentials.bearer(message, ctx.broker.clock.now())
    _require_place(ctx, user)
    return b"", user, lifetime


def _require_place(ctx: Context, user: str) -> None:
    """The internal user signs in at the internal listener only, and nobody else does there."""
    if (f"User:{user}" == ctx.broker.credentials.internal_principal) != ctx.listener.internal:
        raise AuthenticationFailed("Authentication failed: Invalid username or password")


async def _plain(ctx: Context, message: bytes) -> str:
    """RFC 4616. The password is checked against what is kept for SCRAM, with both hashes whether the user exists or
    not, so that the time does not tell."""
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1]:
        raise AuthenticationFailed("Malformed PLAIN message")
    try:
        authzid, user, password = (part.decode() for part in parts)
    except UnicodeDecodeError:
        raise AuthenticationFailed("Malformed PLAIN message") from None
    if authzid and authzid != user:
        raise AuthenticationFailed("Authentication failed: Client requested an authorization id that is different")
    right = False
    for mechanism in scram.MECHANISMS:
        found = ctx.broker.credentials.find(user, mechanism)
        kept = found or ctx.broker.credentials.decoys.credential(user, mechanism)
        matches = await asyncio.to_thread(scram.matches, password, kept, mechanism)
        right = right or (matches and found is not None)
    if not right:
        raise AuthenticationFailed("Authentication failed: Invalid username or password")
    return user
