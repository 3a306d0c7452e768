"""SCRAM, the server's side (RFC 5802, RFC 7677), and what is kept of a password.

Sans-IO: `Exchange` takes the client's two messages and gives the server's two. What is kept of a password can neither
sign in nor be turned back into it. An unknown user runs the same exchange with a salt and keys derived from a secret
of this process, so neither the answer nor the time it takes tells whether the user exists; the proof then fails like
any wrong password's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass

from broker.cluster.metadata import ScramCredential

MECHANISMS = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
MECHANISM_NUMBERS = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
MIN_ITERATIONS = 4096
MAX_ITERATIONS = 16384
DEFAULT_ITERATIONS = 4096


class AuthenticationFailed(Exception):
    """The peer did not prove who it is. The message may be shown to it."""


def credential(password: str, mechanism: str, iterations: int = DEFAULT_ITERATIONS) -> ScramCredential:
    """What to keep of a password, under a fresh random salt."""
    salt = os.urandom(24)
    salted = hashlib.pbkdf2_hmac(MECHANISMS[mechanism], password.encode(), salt, iterations)
    return from_salted_password(salted, salt, mechanism, iterations)


def from_salted_password(salted: bytes, salt: bytes, mechanism: str, iterations: int) -> ScramCredential:
    """What to keep, from a password already salted by the client (AlterUserScramCredentials)."""
    algorithm = MECHANISMS[mechanism]
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    return ScramCredential(
        salt=salt,
        stored_key=hashlib.new(algorithm, client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", algorithm),
        iterations=iterations,
    )


def matches(password: str, kept: ScramCredential, mechanism: str) -> bool:
    """Whether this is the password something was kept of; costs the hash's iterations, so not for the event loop."""
    salted = hashlib.pbkdf2_hmac(MECHANISMS[mechanism], password.encode(), kept.salt, kept.iterations)
    derived = from_salted_password(salted, kept.salt, mechanism, kept.iterations)
    return hmac.compare_digest(derived.stored_key, kept.stored_key)


class Decoys:
    """Credentials of users that do not exist: always the same for a name, right for no password."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or os.urandom(32)

    def credential(self, user: str, mechanism: str) -> ScramCredential:
        def derived(label: bytes) -> bytes:
            return hmac.digest(self._secret, label + mechanism.encode() + b"\0" + user.encode(), "sha512")

        size = hashlib.new(MECHANISMS[mechanism]).digest_size
        return ScramCredential(
            salt=derived(b"salt")[:24],
            stored_key=derived(b"stored")[:size],
            server_key=derived(b"server")[:size],
            iterations=DEFAULT_ITERATIONS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The exchange succeeded: who the peer is, and the last message to send it."""

    user: str
    message: bytes


class Exchange:
    """One sign-in. `first()` answers client-first, `final()` client-final; any fault raises AuthenticationFailed."""

    def __init__(
        self,
        mechanism: str,
        find: Callable[[str, str], ScramCredential | None],
        decoys: Decoys,
        nonce: Callable[[], str] | None = None,
    ) -> None:
        self._mechanism = mechanism
        self._algorithm = MECHANISMS[mechanism]
        self._find = find
        self._decoys = decoys
        self._nonce = nonce or (lambda: base64.b64encode(os.urandom(24)).decode())
        self.started = False
        self._user = ""
        self._known = False
        self._credential: ScramCredential | None = None
        self._full_nonce = ""
        self._server_nonce = ""
        self._gs2 = b""
        self._first_bare = b""
        self._server_first = b""

    def first(self, message: bytes) -> bytes:
        """Take client-first-message, give server-first-message."""
        text = _text(message)
        parts = text.split(",", 2)
        if len(parts) != 3 or (parts[0] not in ("n", "y") and not parts[0].startswith("p=")):
            raise AuthenticationFailed("Malformed SCRAM client first message")
        if parts[0].startswith("p="):
            raise AuthenticationFailed("Channel binding is not supported")
        authzid = parts[1]
        self._gs2 = f"{parts[0]},{authzid},".encode()
        self._first_bare = parts[2].encode()
        attributes = _attributes(parts[2])
        if "m" in attributes:
            raise AuthenticationFailed("SCRAM extensions are not supported")
        user, nonce = attributes.get("n"), attributes.get("r")
        if not user or not nonce:
            raise AuthenticationFailed("Malformed SCRAM client first message")
        self._user = _unescape(user)
        if authzid and _unescape(authzid.removeprefix("a=")) != self._user:
            raise AuthenticationFailed("Authentication failed: Client requested an authorization id that is different")
        found = self._find(self._user, self._mechanism)
        decoy = self._decoys.credential(self._user, self._mechanism)
        self._known = found is not None
        self._credential = found or decoy
        self._server_nonce = self._nonce()
        self._full_nonce = nonce + self._server_nonce
        salt = base64.b64encode(self._credential.salt).decode()
        self._server_first = f"r={self._full_nonce},s={salt},i={self._credential.iterations}".encode()
        self.started = True
        return self._server_first

    def final(self, message: bytes) -> Finished:
        """Take client-final-message; give the user and server-final-message."""
        if self._credential is None:
            raise AuthenticationFailed("SCRAM messages out of order")
        text = _text(message)
        without_proof, separator, proof_text = text.rpartition(",p=")
        attributes = _attributes(without_proof)
        if not separator or "m" in attributes:
            raise AuthenticationFailed("Malformed SCRAM client final message")
        binding_is_right = attributes.get("c") == base64.b64encode(self._gs2).decode()
        # librdkafka up to 2.0 sends its own nonce twice; as Kafka we ask for our part at its end (the proof covers it).
        nonce_is_right = attributes.get("r", "").endswith(self._server_nonce)
        try:
            proof = base64.b64decode(proof_text, validate=True)
        except (binascii.Error, ValueError):
            raise AuthenticationFailed("Malformed SCRAM client final message") from None
        signed = b",".join((self._first_bare, self._server_first, without_proof.encode()))
        signature = hmac.digest(self._credential.stored_key, signed, self._algorithm)
        client_key = bytes(a ^ b for a, b in zip(proof.ljust(len(signature), b"\0"), signature, strict=False))
        stored_key = hashlib.new(self._algorithm, client_key).digest()
        proof_is_right = hmac.compare_digest(stored_key, self._credential.stored_key) and len(proof) == len(signature)
        verifier = hmac.digest(self._credential.server_key, signed, self._algorithm)
        if not (proof_is_right & nonce_is_right & binding_is_right & self._known):
            raise AuthenticationFailed(
                f"Authentication failed during authentication due to invalid credentials with SASL mechanism "
                f"{self._mechanism}"
            )
        return Finished(user=self._user, message=b"v=" + base64.b64encode(verifier))


def _text(message: bytes) -> str:
    try:
        return bytes(message).decode()
    except UnicodeDecodeError:
        raise AuthenticationFailed("SCRAM messages are UTF-8") from None


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if separator and len(name) == 1:
            found.setdefault(name, value)
    return found


def _unescape(name: str) -> str:
    if "=" not in name:
        return name
    pieces = name.split("=")
    result = [pieces[0]]
    for piece in pieces[1:]:
        if not piece.startswith(("2C", "3D")):
            raise AuthenticationFailed("Malformed user name in SCRAM message")
        result.append(("," if piece.startswith("2C") else "=") + piece[2:])
    return "".join(result)
