"""The server's side of SCRAM (RFC 5802, 7677) for enhanced authentication: `SCRAM-SHA-256` and `SCRAM-SHA-512`.

Two messages from the client, two answers: `first` gives the challenge, `final` the server's proof. Nothing here tells
an unknown user from a wrong password: an unknown one gets a made-up salt (always the same for the same name) and fails
at the end. Channel binding is not offered (`n,,` and `y,,` are understood).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

METHODS = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
MIN_ITERATIONS = 4096


class ScramFailed(Exception):
    """The client's message is malformed, or it does not know the password. `text` is for the client."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is kept of a password; none of it lets anybody sign in. `algorithm`: "sha256" or "sha512"."""

    algorithm: str
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def credential(password: str, *, algorithm: str, salt: bytes, iterations: int = MIN_ITERATIONS) -> Credential:
    """Make a credential. Costs `iterations` hashes: keep it off the event loop."""
    normal = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac(algorithm, normal, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    return Credential(
        algorithm=algorithm,
        salt=salt,
        iterations=iterations,
        stored_key=hashlib.new(algorithm, client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", algorithm),
    )


class Exchange:
    """One authentication. `find(username)` gives the credential or None; `nonce` is fresh randomness, printable
    without commas; `secret` stays the same for the server's lifetime.
    """

    __slots__ = ("_bare", "_binding", "_challenge", "_credential", "_known", "_nonce", "username")

    def __init__(self) -> None:
        self.username = ""
        self._bare = b""
        self._binding = b""
        self._challenge = b""
        self._nonce = b""
        self._known = False
        self._credential: Credential | None = None

    def first(
        self,
        message: bytes,
        *,
        method: str,
        find: Callable[[str], Credential | None],
        nonce: bytes,
        secret: bytes,
    ) -> bytes:
        """client-first-message → server-first-message. Raises `ScramFailed`."""
        parts = message.split(b",", 2)
        if len(parts) != 3 or parts[0] not in (b"n", b"y"):
            raise ScramFailed("channel-binding-not-supported" if message[:1] == b"p" else "invalid-encoding")
        authorisation, self._bare = parts[1], parts[2]
        self._binding = b",".join(parts[:2]) + b","
        fields = self._bare.split(b",")
        if len(fields) < 2 or fields[0][:2] != b"n=" or fields[1][:2] != b"r=" or len(fields[1]) < 10:
            raise ScramFailed("invalid-encoding")
        self.username = _name(fields[0][2:])
        if authorisation and authorisation != b"a=" + fields[0][2:]:
            raise ScramFailed("other-error")
        found = find(self.username)
        algorithm = METHODS[method]
        self._known = found is not None and found.algorithm == algorithm
        if found is None or not self._known:
            salt = hmac.digest(secret, self.username.encode(), "sha256")[:16]
            found = Credential(
                algorithm=algorithm, salt=salt, iterations=MIN_ITERATIONS, stored_key=b"", server_key=b""
            )
        self._credential = found
        self._nonce = fields[1][2:] + nonce
        self._challenge = b"r=%b,s=%b,i=%d" % (self._nonce, base64.b64encode(found.salt), found.iterations)
        return self._challenge

    def final(self, message: bytes) -> bytes:
        """client-final-message → server-final-message: the client knows the password. Raises `ScramFailed`."""
        known = self._credential
        if known is None:
            raise ScramFailed("other-error")
        self._credential = None  # one attempt
        without_proof, comma, proof_field = message.rpartition(b",p=")
        fields = without_proof.split(b",")
        if not comma or len(fields) < 2 or fields[0][:2] != b"c=" or fields[1][:2] != b"r=":
            raise ScramFailed("invalid-encoding")
        if _base64(fields[0][2:]) != self._binding:
            raise ScramFailed("channel-bindings-dont-match")
        if not hmac.compare_digest(fields[1][2:], self._nonce):
            raise ScramFailed("other-error")
        proof = _base64(proof_field)
        signed = b",".join((self._bare, self._challenge, without_proof))
        signature = hmac.digest(known.stored_key or b"\x00", signed, known.algorithm)
        if len(proof) != len(signature):
            raise ScramFailed("invalid-proof")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        right = hmac.compare_digest(hashlib.new(known.algorithm, client_key).digest(), known.stored_key)
        if not right or not self._known:
            raise ScramFailed("invalid-proof")
        return b"v=" + base64.b64encode(hmac.digest(known.server_key, signed, known.algorithm))


def _name(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ScramFailed("invalid-username-encoding") from None
    if "=" in text.replace("=2C", "").replace("=3D", "") or not text:
        raise ScramFailed("invalid-username-encoding")
    return text.replace("=2C", ",").replace("=3D", "=")


def _base64(raw: bytes) -> bytes:
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error:
        raise ScramFailed("invalid-encoding") from None
