"""Who may sign in: users' SCRAM credentials from the metadata, the internal user, and signed tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import jwt

from broker.cluster import scram
from broker.cluster.metadata import Image, ScramCredential
from broker.config import OAuth
from broker.internal import InternalCredential

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class TokenRefused(scram.AuthenticationFailed):
    """A token was sent in good form, and proves nobody."""


class Credentials:
    """Finds credentials; keeps no password."""

    def __init__(self, image: Callable[[], Image], internal: InternalCredential | None, oauth: OAuth | None) -> None:
        self._image = image
        self._internal: dict[str, ScramCredential] = {}
        self._internal_user = ""
        self.internal_principal = ""
        self.decoys = scram.Decoys()
        self._tokens = Tokens(oauth) if oauth is not None else None
        if internal is not None:
            self._internal_user = internal.username
            self.internal_principal = internal.principal
            self._internal = {name: scram.credential(internal.password, name) for name in scram.MECHANISMS}

    def find(self, user: str, mechanism: str) -> ScramCredential | None:
        """What is kept of the user's password, or None."""
        if user == self._internal_user:
            return self._internal.get(mechanism)
        return self._image().scram.get((user, mechanism))

    def bearer(self, message: bytes, now: int) -> tuple[str, float]:
        """The user an OAUTHBEARER message proves, and the seconds its token still lasts. `now` in epoch ms.

        Raises AuthenticationFailed for what is no such message, TokenRefused for a token that proves nobody.
        """
        if self._tokens is None:
            raise scram.AuthenticationFailed("OAUTHBEARER is not set up")
        token = token_of(message)
        try:
            return self._tokens.user(token, now)
        except scram.AuthenticationFailed as failure:
            raise TokenRefused(str(failure)) from failure


def token_of(message: bytes) -> str:
    """The token in an initial client response (RFC 7628, section 3.1)."""
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise scram.AuthenticationFailed("Malformed OAUTHBEARER message") from None
    for part in text.split("\x01"):
        name, _, value = part.partition("=")
        kind, _, token = value.partition(" ")
        if name == "auth" and kind.lower() == "bearer" and token:
            return token.strip()
    raise scram.AuthenticationFailed("Malformed OAUTHBEARER message")


class Tokens:
    """Checks signed tokens against the keys in a JWKS file, which is read again when it changes."""

    def __init__(self, oauth: OAuth) -> None:
        self._oauth = oauth
        self._keys: Sequence[jwt.PyJWK] = ()
        self._stamp: tuple[int, int] | None = None

    def user(self, token: str, now: int) -> tuple[str, float]:
        """The user the token names and the seconds until it expires; raises AuthenticationFailed."""
        claims = self._claims(token)
        user = claims.get(self._oauth.claim)
        expires = claims.get("exp")
        if not isinstance(user, str) or not user:
            raise scram.AuthenticationFailed("The token names no user")
        if not isinstance(expires, int | float):
            raise scram.AuthenticationFailed("The token never expires")
        left = expires - now / 1000
        if left <= 0:
            raise scram.AuthenticationFailed("The token has expired")
        return user, left

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise scram.AuthenticationFailed("Not a token") from None
        keys = self._current()
        named = [key for key in keys if key.key_id == header.get("kid")] if header.get("kid") else list(keys)
        for key in named:
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else list(ALGORITHMS),
                    audience=self._oauth.audience,
                    issuer=self._oauth.issuer,
                    options={"verify_aud": self._oauth.audience is not None, "require": ["exp"]},
                )
            except jwt.PyJWTError:
                continue
        raise scram.AuthenticationFailed("The token's signature, issuer, audience or time is not right")

    def _current(self) -> Sequence[jwt.PyJWK]:
        found = self._oauth.jwks.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            with self._oauth.jwks.open(encoding="utf-8") as file:
                self._keys = jwt.PyJWKSet.from_dict(json.load(file)).keys
            self._stamp = stamp
        return self._keys
