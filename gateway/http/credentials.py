"""The `Authorization` header: Basic (RFC 7617) is a user name with its password, Bearer (RFC 6750) a JSON Web Token."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from gateway.http.problems import unauthorised
from gateway.mqtt.errors import Malformed
from gateway.mqtt.properties import text_of


class Credentials(NamedTuple):
    """As a CONNECT has them; a token is a password without a user name."""

    username: str | None = None
    password: bytes | None = None


def credentials(value: bytes | None) -> Credentials:
    """Raises `Problem` 401 for what is neither; that is said of the header alone, so it needs no time to hide."""
    if value is None:
        return Credentials()
    scheme, _, rest = value.partition(b" ")
    kind, rest = scheme.lower(), rest.strip()
    if kind == b"basic":
        try:
            user, separator, password = base64.b64decode(rest, validate=True).partition(b":")
            username = text_of(user)
        except (binascii.Error, ValueError, Malformed):
            raise unauthorised("the Basic credential can't be read") from None
        if not separator:
            raise unauthorised("the Basic credential can't be read")
        return Credentials(username, password)
    if kind == b"bearer":
        if rest.count(b".") != 2:
            raise unauthorised("the bearer token is no JSON Web Token")
        return Credentials(None, rest)
    raise unauthorised("credentials are Basic or Bearer")
