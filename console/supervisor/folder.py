"""The data folder: made, locked for one supervisor, and given the product's own secrets (0600)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FolderUnusable(OSError):
    """The data folder can't be made or written to."""


class FolderInUse(OSError):
    """Another supervisor holds the data folder."""


def ready(folder: Path) -> None:
    """Make the folder (0700) and prove that it can be written to. Raises FolderUnusable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FolderUnusable(f"the data folder {folder} can't be written to ({reason}): set SLUICE_DATA") from error


def lock(folder: Path) -> int:
    """Lock the folder until this process ends; returns the descriptor to keep open. Raises FolderInUse.

    The kernel drops the lock with the process, so a killed supervisor leaves nothing to clean up.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise FolderInUse(
            f"the data folder {folder} is in use by process {holder}: stop it, or set SLUICE_DATA"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def write_secret(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
