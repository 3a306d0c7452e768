"""The file-system port: everything the log asks of a disk, and the real disk behind it.

Nothing else in this package touches files, so a test can put a disk here that forgets what was not synced,
fills up, or fails. The promises leaned on are POSIX's weakest: a write is durable after `datasync` of its file, a
name after `sync_folder` of its folder, and a rename is atomic. A write is whole or raises; what a failed write
left behind is unspecified.

Files are addressed by position (no shared cursor), so one thread may read or sync while another writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from broker.log.failures import FolderInUse

Buffer = bytes | bytearray | memoryview

_VECTOR_MAX: Final = 1024  # IOV_MAX on Linux
_SMALL: Final = 2048  # below this many bytes a buffer costs less to join than to pass by itself


class File(Protocol):
    """One open file. Closed when the last reference goes, so a thread that still syncs it is never surprised."""

    def write(self, position: int, buffers: Sequence[Buffer]) -> None:
        """Write all of it at `position`, or raise OSError."""

    def read(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position`; fewer only at the end of the file."""

    def datasync(self) -> None:
        """Make content and length durable (fdatasync). An error is final for what was written (never retry)."""

    def truncate(self, size: int) -> None:
        """Cut, or extend with zeros."""

    def allocate(self, size: int) -> None:
        """Take the space for `size` bytes now, so that later writes below it can't fail for lack of it."""

    def size(self) -> int:
        """Length in bytes."""


class Lock(Protocol):
    """A lock held on a file until released or the process ends."""

    def release(self) -> None:
        """Let go."""


class Files(Protocol):
    """A file system."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing. Raises FileNotFoundError unless `create`."""

    def list(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty when there is no such folder."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""

    def size_of(self, path: str) -> int:
        """Length of a file in bytes."""

    def make_folder(self, path: str) -> None:
        """Make a folder (and those above); fine when it is there."""

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing `target`."""

    def remove(self, path: str) -> None:
        """Remove a file; fine when it is not there."""

    def sync_folder(self, folder: str) -> None:
        """Make the names in a folder durable."""

    def lock(self, path: str, *, shared: bool = False) -> Lock | None:
        """Take the lock of that file without waiting; None when another holds it."""

    def free(self, folder: str) -> int:
        """Bytes of free space."""


def coalesce(buffers: Sequence[Buffer]) -> list[Buffer]:
    """The same bytes in fewer pieces: runs of small buffers are joined, large ones stay as they are."""
    if len(buffers) <= 16:
        return list(buffers)
    out: list[Buffer] = []
    run: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) < _SMALL:
            run.append(buffer)
            continue
        if run:
            out.append(b"".join(run))
            run.clear()
        out.append(buffer)
    if run:
        out.append(b"".join(run))
    return out


class RealFile:
    """A file of the operating system."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, flags: int) -> None:
        self._fd = -1
        self.path = path
        self._fd = os.open(path, flags, 0o640)

    def __del__(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def write(self, position: int, buffers: Sequence[Buffer]) -> None:
        """See File."""
        pieces = coalesce(buffers)
        for start in range(0, len(pieces), _VECTOR_MAX):
            position = self._write(position, pieces[start : start + _VECTOR_MAX])

    def _write(self, position: int, pieces: list[Buffer]) -> int:
        """One vector; after a short write the rest is tried again, so the cause comes back as an error."""
        while pieces:
            written = os.pwritev(self._fd, pieces, position)
            position += written
            index = 0
            while index < len(pieces) and written >= len(pieces[index]):
                written -= len(pieces[index])
                index += 1
            pieces = pieces[index:]
            if written:
                pieces[0] = memoryview(pieces[0])[written:]
        return position

    def read(self, position: int, size: int) -> bytes:
        """See File."""
        data = os.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]
        missing = size - len(data)
        while missing:
            position += len(parts[-1])
            part = os.pread(self._fd, missing, position)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def datasync(self) -> None:
        """See File."""
        os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        """See File."""
        os.ftruncate(self._fd, size)

    def allocate(self, size: int) -> None:
        """See File."""
        os.posix_fallocate(self._fd, 0, size)

    def size(self) -> int:
        """See File."""
        return os.fstat(self._fd).st_size


class RealLock:
    """flock(2): gone with the process, however it ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """See Lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealFiles:
    """The operating system's file system."""

    __slots__ = ()

    def open(self, path: str, *, create: bool = False) -> File:
        """See Files."""
        return RealFile(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0))

    def list(self, folder: str) -> list[str]:
        """See Files."""
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208  (names are wanted, not paths)
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        """See Files."""
        return Path(path).exists()

    def size_of(self, path: str) -> int:
        """See Files."""
        return Path(path).stat().st_size

    def make_folder(self, path: str) -> None:
        """See Files."""
        Path(path).mkdir(mode=0o750, parents=True, exist_ok=True)

    def remove_folder(self, path: str) -> None:
        """See Files."""
        Path(path).rmdir()

    def rename(self, source: str, target: str) -> None:
        """See Files."""
        Path(source).replace(target)

    def remove(self, path: str) -> None:
        """See Files."""
        Path(path).unlink(missing_ok=True)

    def sync_folder(self, folder: str) -> None:
        """See Files."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str, *, shared: bool = False) -> Lock | None:
        """See Files."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return RealLock(fd)

    def free(self, folder: str) -> int:
        """See Files."""
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize


def take_folder(files: Files, folder: str) -> Lock:
    """The lock that makes a data folder ours. Raises FolderInUse."""
    held = files.lock(f"{folder}/lock")
    if held is None:
        raise FolderInUse(f"another process has {folder} open")
    return held


def make_root(files: Files, folder: str) -> None:
    """Make a folder that outlives a power cut: its name durable, and those of the folders made above it."""
    parent = folder.rstrip("/").rpartition("/")[0] or ("/" if folder.startswith("/") else ".")
    if not files.exists(folder):
        if not files.exists(parent):
            make_root(files, parent)
        files.make_folder(folder)
        files.sync_folder(parent)
