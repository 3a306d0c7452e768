"""Device credentials: generated 128-bit secrets under a fast keyed hash, human passwords under Argon2id.

A generated secret has 128 bits of entropy, so a slow hash would add nothing but a way to flood the gateway; each is
hashed by BLAKE2b keyed with a random salt of its own. A password that a person chose gets Argon2id, and `slow` says so:
the caller verifies it off the event loop. The console makes credentials with this same module.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.contract import Credential
from gateway.mqtt import scram

MIN_PASSWORD = 8
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # OWASP's second recommendation


class WeakPassword(Exception):
    """The password is too short."""


def generate() -> tuple[str, Credential]:
    """A new secret, to be shown once, and what is kept of it."""
    secret = secrets.token_urlsafe(16)
    return secret, from_secret(secret)


def credentials_of(secret: str) -> tuple[Credential, Credential]:
    """All credentials of a generated secret: as a password, and for SCRAM-SHA-256."""
    return from_secret(secret), scram_from(secret)


def from_secret(secret: str) -> Credential:
    """The credential of a generated secret. Never for a password that a person chose."""
    salt = secrets.token_bytes(16)
    return Credential(kind="blake2b", hash=_digest(secret.encode(), salt).hex(), salt=salt.hex())


def from_password(password: str) -> Credential:
    """The credential of a password that a person chose; takes tens of milliseconds."""
    if len(password) < MIN_PASSWORD:
        raise WeakPassword(f"a password needs at least {MIN_PASSWORD} characters")
    return Credential(kind="argon2id", hash=_HASHER.hash(password))


def scram_from(password: str, algorithm: str = "sha256") -> Credential:
    """The credential for SCRAM of a secret or password; takes milliseconds."""
    made = scram.credential(password, algorithm=algorithm, salt=secrets.token_bytes(16))
    keys = f"{made.iterations}:{made.stored_key.hex()}:{made.server_key.hex()}"
    return Credential(kind=f"scram-{algorithm}", hash=keys, salt=made.salt.hex())


def scram_of(credentials: Iterable[Credential], algorithm: str) -> scram.Credential | None:
    """The SCRAM credential of an algorithm, if there is one that is well formed."""
    for each in credentials:
        if each.kind != f"scram-{algorithm}":
            continue
        try:
            iterations, stored, server = each.hash.split(":")
            return scram.Credential(
                algorithm=algorithm,
                salt=bytes.fromhex(each.salt),
                iterations=int(iterations),
                stored_key=bytes.fromhex(stored),
                server_key=bytes.fromhex(server),
            )
        except ValueError:
            return None
    return None


def slow(credential: Credential) -> bool:
    """Whether `verify` takes long enough to hold an event loop up."""
    return credential.kind == "argon2id"


def verify(credential: Credential, password: bytes) -> bool:
    """Whether the password is this credential's. A malformed or unknown credential verifies nothing."""
    if credential.kind == "blake2b":
        try:
            salt, kept = bytes.fromhex(credential.salt), bytes.fromhex(credential.hash)
        except ValueError:
            return False
        return len(salt) >= 8 and hmac.compare_digest(_digest(password, salt), kept)
    if credential.kind == "argon2id":
        try:
            return _HASHER.verify(credential.hash, password)
        except (VerificationError, InvalidHashError):
            return False
    return False


def _digest(secret: bytes, salt: bytes) -> bytes:
    return hashlib.blake2b(secret, key=salt, digest_size=32).digest()
