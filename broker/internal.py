"""The internal credential: how the product's own processes sign in to the broker, whatever the ACLs say.

`internal.json` (mode 0600) lies in the data folder: `{"username", "password", "bootstrap"}`. The broker opens a SASL
listener on the loopback address named by `bootstrap` and treats the user as super-user. Who can read the data folder
can read everything in it anyway, so the file gives nobody more than they had.

Neutral ground: imports nothing but the standard library, so that both halves of the broker package may use it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

FILE_NAME = "internal.json"
USERNAME = "__sluice"


class InternalCredentialUnreadable(Exception):
    """The internal credential file is there but is not what this program writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalCredential:
    """The super-user's name and password, and the loopback address (`host:port`) of the internal listener."""

    username: str
    password: str
    bootstrap: str

    @property
    def principal(self) -> str:
        return f"User:{self.username}"


def read(folder: Path) -> InternalCredential | None:
    """The credential kept in the data folder, or None when none was made yet."""
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        return InternalCredential(
            username=str(found["username"]), password=str(found["password"]), bootstrap=str(found["bootstrap"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InternalCredentialUnreadable(f"{path}: {error}") from error


def ensure(folder: Path) -> InternalCredential:
    """The credential kept in the data folder; made, with a free loopback port, when there is none."""
    found = read(folder)
    if found is not None:
        return found
    return write(
        folder,
        InternalCredential(
            username=USERNAME, password=secrets.token_urlsafe(32), bootstrap=f"127.0.0.1:{_free_port()}"
        ),
    )


def move(folder: Path) -> None:
    """Give the internal listener another free port; the name and the password stay."""
    found = read(folder)
    if found is not None:
        write(folder, replace(found, bootstrap=f"127.0.0.1:{_free_port()}"))


def write(folder: Path, credential: InternalCredential) -> InternalCredential:
    """Put the credential into the data folder, whole or not at all, readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {
            "username": credential.username,
            "password": credential.password,
            "bootstrap": credential.bootstrap,
        }
    )
    temporary = folder / f"{FILE_NAME}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    return credential


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
