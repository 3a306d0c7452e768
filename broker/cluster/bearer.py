"""Signed tokens (RFC 7519), checked against the keys in a JWKS file.

A module of its own, because what it imports takes 13 MB that a broker without tokens does not need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jwt

from broker.cluster import scram
from broker.config import OAuth

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


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
