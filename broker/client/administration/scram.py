"""The client's side of SASL PLAIN and SCRAM (RFC 5802), as bytes in and bytes out."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

from broker.client.errors import AuthenticationFailed

MIN_ITERATIONS = 4096
MAX_ITERATIONS = 1_000_000
_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}


def plain(username: str, password: str) -> bytes:
    """The only message of SASL PLAIN (RFC 4616)."""
    return f"\0{username}\0{password}".encode()


def salted_password(mechanism: str, password: str, salt: bytes, iterations: int) -> bytes:
    """Hi(password, salt, iterations): what a broker stores keys of."""
    return hashlib.pbkdf2_hmac(_HASHES[mechanism], password.encode(), salt, iterations)


class ScramClient:
    """One exchange: send `first()`, then `final(server's first)`, then `verify(server's final)`."""

    def __init__(
        self, mechanism: str, username: str, password: str, nonce: Callable[[], str] = lambda: secrets.token_urlsafe(24)
    ) -> None:
        self._hash = _HASHES[mechanism]
        self._mechanism = mechanism
        self._password = password
        self._nonce = nonce()
        name = username.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """The proof for the server's challenge; raises AuthenticationFailed on one that can't be trusted."""
        try:
            text = challenge.decode()
            fields = dict(part.split("=", 1) for part in text.split(","))
            nonce, salt, iterations = fields["r"], base64.b64decode(fields["s"], validate=True), int(fields["i"])
        except (ValueError, KeyError):
            raise AuthenticationFailed("the server's SCRAM challenge is malformed") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise AuthenticationFailed("the server's SCRAM nonce does not continue ours")
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise AuthenticationFailed(f"the server asks for {iterations} SCRAM iterations")
        salted = salted_password(self._mechanism, self._password, salt, iterations)
        unproven = f"c=biws,r={nonce}"
        message = f"{self._bare},{text},{unproven}".encode()
        client_key = self._mac(salted, b"Client Key")
        stored_key = hashlib.new(self._hash, client_key).digest()
        signature = self._mac(stored_key, message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = self._mac(self._mac(salted, b"Server Key"), message)
        return f"{unproven},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, outcome: bytes) -> None:
        """Check that the server knew the password too."""
        text = outcome.decode("utf-8", "replace")
        if not text.startswith("v="):
            raise AuthenticationFailed(text.removeprefix("e=") or "refused")
        try:
            signature = base64.b64decode(text[2:].split(",")[0], validate=True)
        except ValueError:
            signature = b""
        if not hmac.compare_digest(signature, self._signature):
            raise AuthenticationFailed("the server did not prove that it knows this user")

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, self._hash).digest()
