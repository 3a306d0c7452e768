"""Who may sign in: users' SCRAM credentials from the metadata, the internal user, and signed tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.cluster import scram
from broker.cluster.metadata import Image, ScramCredential
from broker.config import OAuth
from broker.internal import InternalCredential

if TYPE_CHECKING:
    from broker.cluster.bearer import Tokens


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
        self._tokens = _tokens(oauth) if oauth is not None else None
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


def _tokens(oauth: OAuth) -> Tokens:
    """Imported only where tokens are set up (see `bearer`)."""
    from broker.cluster.bearer import Tokens

    return Tokens(oauth)


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
