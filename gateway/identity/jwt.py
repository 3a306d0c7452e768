"""JSON Web Tokens as MQTT passwords.

The algorithms are fixed by configuration, never taken from the token. `exp` is demanded, and the connection ends with
it; audience and issuer are checked where configured. The principal is the `sub` claim, which must be the MQTT user name
if one is given. A claim `acl` = {"publish": [filters], "subscribe": [filters]} narrows what the token's holder may do
beside the policies (placeholders as in policies).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from gateway.policy import Policy, unfit
from gateway.ports import ConnectRequest, Identity, Refused
from gateway.why import Why

ALGORITHMS = frozenset({"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"})
SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
BAD_CREDENTIALS = 0x86


class BadTokenSettings(Exception):
    """The token configuration can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    key: str
    algorithms: tuple[str, ...]
    audience: str | None = None
    issuer: str | None = None

    @classmethod
    def read(cls, path: Path) -> TokenSettings:
        """From a JSON file: {key or key_file, algorithms, audience, issuer}."""
        try:
            found = json.loads(path.read_text("utf-8"))
            key = found["key"] if "key" in found else Path(found["key_file"]).read_text("utf-8")
            algorithms = tuple(found["algorithms"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadTokenSettings(f"{path}: {error}") from error
        unknown = [each for each in algorithms if each not in ALGORITHMS]
        if unknown or not algorithms:
            raise BadTokenSettings(f"{path}: algorithms must be some of {', '.join(sorted(ALGORITHMS))}")
        if 0 < len(SYMMETRIC.intersection(algorithms)) < len(algorithms):
            # a public key must never be taken for a shared secret
            raise BadTokenSettings(f"{path}: shared-secret and public-key algorithms can't be mixed")
        return cls(key=key, algorithms=algorithms, audience=found.get("audience"), issuer=found.get("issuer"))


class TokenVerifier:
    """A verifier of `gateway.identity.authentication`."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings

    async def verify(self, request: ConnectRequest) -> Identity | None:
        """None when the password is no token at all."""
        if request.password is None or request.password.count(b".") != 2:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                request.password,
                self._settings.key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={"require": ["exp", "sub"], "verify_aud": self._settings.audience is not None},
            )
        except jwt.InvalidTokenError as error:
            raise Refused(BAD_CREDENTIALS, f"the token is not valid: {error}", why=Why.TOKEN) from None
        name = str(claims["sub"])
        if not name or unfit(name) or (request.username and request.username != name):
            raise Refused(BAD_CREDENTIALS, "the token is another's", why=Why.TOKEN)
        return Identity(name=name, username=name, expires_at=float(claims["exp"]), detail=_acl(name, claims.get("acl")))


def _acl(name: str, acl: Any) -> Policy | None:
    """The token's own policy; a malformed one allows nothing."""
    if acl is None:
        return None
    if not isinstance(acl, dict):
        return Policy(name=f"token of {name}")

    def filters(action: str) -> tuple[str, ...]:
        given = acl.get(action, [])
        return tuple(each for each in given if isinstance(each, str)) if isinstance(given, list) else ()

    return Policy(name=f"token of {name}", publish=filters("publish"), subscribe=filters("subscribe"))
