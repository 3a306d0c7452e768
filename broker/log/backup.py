"""A consistent copy of a store, taken while it runs, from any process; and its return.

A backup is what a power cut would have left at one moment: the checkpoint in force, the segments as far as it vouches
for them, and the journal from there up to the last whole frame. Opening it replays that: every partition stands
as of the same instant, and nothing that was acknowledged before the backup began is missing.

While it runs it holds the file `hold` (shared): the store goes on, but drops no journal file and swaps no
compacted segment. What retention or a deletion removes meanwhile is told by the journal, which is copied last.

`backup.json`, written last: {"v": 1, "at": ms, "files": {path: [bytes, CRC-32C]}}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from crc32c import crc32c

from broker.log import checkpoint
from broker.log.failures import CorruptLog, StorageFailure, UnknownFormat
from broker.log.files import Files, Lock, make_root
from broker.log.journal import file_name, scan
from broker.log.recovery import METADATA
from broker.log.segment import LOG, OFFSETS, SUFFIXES, TIMES, TRANSACTIONS, stem

MANIFEST: Final = "backup.json"
_CHUNK: Final = 4 << 20
_ENTRY_BYTES: Final = {OFFSETS: 8, TIMES: 12, TRANSACTIONS: 34}


class BackupRefused(StorageFailure):
    """The backup or restore can't be done here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was copied."""

    files: int
    bytes: int


def backup(files: Files, folder: str, target: str, now: int, *, wait: Callable[[], None]) -> Done:
    """Copy the store in `folder` to the new folder `target`; `now` in ms. The store may be running.

    `wait` is called between attempts to take the hold (a sleep of some ms). Raises BackupRefused, CorruptLog, OSError.
    """
    if files.list(target):
        raise BackupRefused(f"{target} is not empty")
    if not files.exists(f"{folder}/{checkpoint.NAME}"):
        raise BackupRefused(f"{folder} holds no store")
    hold = _hold(files, f"{folder}/{checkpoint.HOLD}", wait)
    try:
        copy = _Copy(files, folder, target)
        state = _checkpoint(files, folder)
        copy.small(checkpoint.NAME, checkpoint.pack(state))
        for record in state["partitions"]:
            _partition(copy, record)
        _journal(copy, state["journal"]["sequence"])
    finally:
        hold.release()
    return copy.finish({"v": 1, "at": now, "files": copy.files})


def _hold(files: Files, path: str, wait: Callable[[], None]) -> Lock:
    for _ in range(1000):
        hold = files.lock(path, shared=True)
        if hold is not None:
            return hold
        wait()
    raise BackupRefused("the store would not let itself be held")


def _checkpoint(files: Files, folder: str) -> dict[str, Any]:
    path = f"{folder}/{checkpoint.NAME}"
    file = files.open(path)  # an open file stays the same one when the next checkpoint replaces it
    return checkpoint.parse(file.read(0, file.size()))


class _Copy:
    """The target folder, as far as it is filled."""

    def __init__(self, files: Files, source: str, target: str) -> None:
        self.port = files
        self.source = source
        self._target = target
        self.files: dict[str, tuple[int, int]] = {}
        self._total = 0
        make_root(files, target)

    def small(self, path: str, data: bytes) -> None:
        """Write one small file."""
        self._write(path, iter((data,)))

    def file(self, path: str, limit: int | None = None) -> None:
        """Copy a file, up to `limit` bytes; one that is gone is passed over."""
        try:
            file = self.port.open(f"{self.source}/{path}")
        except FileNotFoundError:
            return
        size = file.size() if limit is None else min(limit, file.size())
        self._write(path, (file.read(at, min(_CHUNK, size - at)) for at in range(0, size, _CHUNK)))

    def _write(self, path: str, chunks: Iterator[bytes]) -> None:
        out = self.port.open(f"{self._target}/{path}", create=True)
        at = crc = 0
        for chunk in chunks:
            out.write(at, [chunk])
            crc = crc32c(chunk, crc)
            at += len(chunk)
        out.datasync()
        self.files[path] = (at, crc)
        self._total += at

    def folder(self, name: str) -> None:
        """Make a folder within the target."""
        self.port.make_folder(f"{self._target}/{name}")

    def finish(self, manifest: dict[str, Any]) -> Done:
        """Make it durable, the manifest last."""
        for name in sorted({path.rpartition("/")[0] for path in self.files} - {""}):
            self.port.sync_folder(f"{self._target}/{name}")
        done = Done(files=len(self.files), bytes=self._total)
        self.small(MANIFEST, json.dumps(manifest, separators=(",", ":")).encode())
        self.port.sync_folder(self._target)
        return done


def _partition(copy: _Copy, record: dict[str, Any]) -> None:
    folder = record["folder"]
    copy.folder(folder)
    copy.file(f"{folder}/{METADATA}")
    if record["producers"] is not None:
        copy.file(f"{folder}/{record['producers']:020d}{checkpoint.SNAPSHOT}")
    for name in copy.port.list(f"{copy.source}/{folder}"):
        start, dot, suffix = name.partition(".")
        if dot + suffix not in SUFFIXES or not start.isdigit() or int(start) >= record["segment"]:
            continue
        copy.file(f"{folder}/{name}")
    last = f"{folder}/{stem(record['segment'])}"
    copy.file(last + LOG, record["size"])
    for suffix, entries in zip(SUFFIXES[1:], record["saved"], strict=True):
        copy.file(last + suffix, entries * _ENTRY_BYTES[suffix])


def _journal(copy: _Copy, sequence: int) -> None:
    """The whole frames of the files from `sequence` on. A file is final once the next one is there."""
    while True:
        path = f"{copy.source}/{file_name(sequence)}"
        if not copy.port.exists(path):
            return
        final = copy.port.exists(f"{copy.source}/{file_name(sequence + 1)}")
        file = copy.port.open(path)
        data = file.read(0, file.size())
        found = scan(data, sequence)
        if found.later and (found.base is None or any(frame.durable > found.end for frame in found.later)):
            raise CorruptLog(f"{path} is damaged: a backup of it would lack what was acknowledged there")
        if found.base is not None:  # else just begun, or a crash came before its header: it holds nothing
            copy.small(file_name(sequence), data[: found.end - found.base])
        if not final:
            return
        sequence += 1


def check(files: Files, source: str) -> dict[str, tuple[int, int]]:
    """The files of a whole and undamaged backup. Raises CorruptLog, UnknownFormat, BackupRefused."""
    if not files.exists(f"{source}/{MANIFEST}"):
        raise BackupRefused(f"{source} holds no finished backup")
    raw = files.open(f"{source}/{MANIFEST}").read(0, files.size_of(f"{source}/{MANIFEST}"))
    try:
        manifest = json.loads(raw)
        version, listed = manifest["v"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError):
        raise CorruptLog(f"{source}/{MANIFEST} is damaged") from None
    if version != 1:
        raise UnknownFormat(f"the backup has format {version}; this version reads up to 1")
    for path, (size, crc) in listed.items():
        if not files.exists(f"{source}/{path}") or files.size_of(f"{source}/{path}") != size:
            raise CorruptLog(f"{source}/{path} is missing or has another length")
        file = files.open(f"{source}/{path}")
        found = 0
        for at in range(0, size, _CHUNK):
            found = crc32c(file.read(at, min(_CHUNK, size - at)), found)
        if found != crc:
            raise CorruptLog(f"{source}/{path} fails its CRC")
    return listed


def restore(files: Files, source: str, folder: str) -> Done:
    """Put a backup into the new folder `folder`, checked first; opening a store there replays it.

    Raises BackupRefused, CorruptLog, UnknownFormat, OSError.
    """
    if files.list(folder):
        raise BackupRefused(f"{folder} is not empty")
    listed = check(files, source)
    copy = _Copy(files, source, folder)
    state = checkpoint.parse(files.open(f"{source}/{checkpoint.NAME}").read(0, listed[checkpoint.NAME][0]))
    for record in state["partitions"]:
        copy.folder(record["folder"])
    for path in listed:
        if path != checkpoint.NAME:
            copy.file(path)
    for record in state["partitions"]:
        files.sync_folder(f"{folder}/{record['folder']}")
    files.sync_folder(folder)
    checkpoint.replace(files, folder, state)  # last, and whole or not at all: half a restore is no store
    return Done(files=len(listed), bytes=sum(size for size, _ in listed.values()))
