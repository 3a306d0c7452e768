"""The client's side of SCRAM (RFC 5802), for tests."""

from __future__ import annotations

import base64
import hashlib
import hmac

from broker.cluster import scram


class ScramClient:
    """Gives the client's two messages; `verifier` is what the server's last one must prove."""

    def __init__(self, user: str, password: str, mechanism: str) -> None:
        self._password = password.encode()
        self._algorithm = scram.MECHANISMS[mechanism]
        self._bare = f"n={user},r=clientnonce"
        self._header = ""
        self.verifier = b""

    def first(self, header: str = "n,,") -> bytes:
        self._header = header
        return (header + self._bare).encode()

    def final(self, server_first: bytes, nonce: str | None = None) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac(self._algorithm, self._password, salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", self._algorithm)
        without = f"c={base64.b64encode(self._header.encode()).decode()},r={nonce or fields['r']}"
        signed = f"{self._bare},{server_first.decode()},{without}".encode()
        signature = hmac.digest(hashlib.new(self._algorithm, client_key).digest(), signed, self._algorithm)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.verifier = hmac.digest(hmac.digest(salted, b"Server Key", self._algorithm), signed, self._algorithm)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()
