"""Secrets that must be read again (a bridge's password), encrypted at rest: in the database and in the log.

AES-256-GCM under a key that is in neither: `SLUICE_SEALING_KEY` (64 hex digits), else a file of the data folder (0600),
made on first use. What a secret is for is bound into it (`context`): text copied to another record, or a record that
now points elsewhere, doesn't open.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_NAME = "sealing_key"
VARIABLE = "SLUICE_SEALING_KEY"
_PREFIX = "v1:"
_NONCE = 12
_KEY = 32


class Unsealable(Exception):
    """A stored secret can't be opened: enter it again. Its key is another, or what it is for was changed."""


class BadSealingKey(Exception):
    """`SLUICE_SEALING_KEY`, or the key's file, does not hold 64 hex digits."""


def load_key(data: Path, environ: Mapping[str, str] | None = None) -> bytes:
    """The key of this installation; raises BadSealingKey."""
    given = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    return _parsed(given) if given else _parsed(_from_file(data / FILE_NAME))


def _from_file(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # written aside and linked into place: of two processes starting together, one key wins whole
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def _parsed(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise BadSealingKey(str(BadSealingKey.__doc__))
    return key


def seal(secret: str, key: bytes, context: str) -> str:
    """Text to keep; it differs each time."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(key).encrypt(nonce, secret.encode(), context.encode())
    return _PREFIX + base64.b64encode(nonce + sealed).decode()


def unseal(text: str, key: bytes, context: str) -> str:
    """What was sealed for this very context; raises Unsealable."""
    try:
        raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        if not text.startswith(_PREFIX) or len(raw) <= _NONCE:
            raise ValueError(text)
        return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], context.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise Unsealable(str(Unsealable.__doc__)) from error
