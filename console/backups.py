"""A backup of the whole product: one folder (or one `.tar` file), taken while everything runs.

What is in it, in the order it is taken:

    console.sqlite3, history.sqlite3     through SQLite's online backup: each as of one moment
    internal.json, secret_key, first-login.txt, where they are there
    broker/                              the store as of one moment (`broker.log.backup`)
    manifest.json                        written last: {"format": "sluice-backup", "v": 1, "at": ms,
                                         "files": {name: [bytes, CRC-32]}, "broker": whether there is a store}

The store comes after the database, so that nothing the database calls published is missing in a topic. Not in it, for
they are made again from the topics or the program: the gateway's local copy, compiled translations, static files, the
wake-ups of jobs. A backup holds the product's secrets: it is readable by its owner alone, as the data folder is.

A restore checks every byte first, and only ever fills a folder that holds no product.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker import backup as store
from broker import internal
from console.supervisor import folder

MANIFEST: Final = "manifest.json"
FORMAT: Final = "sluice-backup"
VERSION: Final = 1
DATABASES: Final = ("console.sqlite3", "history.sqlite3")
SECRETS: Final = ("internal.json", "secret_key", "first-login.txt")
GATEWAY: Final = "gateway*.sqlite3"
FIRST_CHECKPOINT_SECONDS: Final = 60.0
_CHUNK: Final = 1 << 20


class BackupFailed(Exception):
    """A backup or restore can't be done here; the words say why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was copied, and what is not in it."""

    files: int
    bytes: int
    notes: tuple[str, ...] = ()


def backup(data: Path, target: Path, *, database_url: str, kafka: str, now: Callable[[], float] = time.time) -> Outcome:
    """Copy the product in `data` into the new folder or `.tar` file `target`. Raises BackupFailed."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise BackupFailed(f"{target} is there already: name a new folder or file")
    if target.resolve().is_relative_to(data.resolve()):
        raise BackupFailed(f"{target} lies within the data folder: name a place outside of {data}")
    packed = target.suffix == ".tar"
    place = target.with_name(f".{target.name}.{os.getpid()}") if packed else target
    made = not place.exists()
    try:
        with _private():
            outcome = _fill(data, place, database_url=database_url, kafka=kafka, now=now)
            if packed:
                _pack(place, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if made:
                shutil.rmtree(place)
        if isinstance(error, (store.Failed, OSError, sqlite3.Error)):
            raise BackupFailed(f"no backup was made: {_words(error)}") from error
        raise
    if packed:
        shutil.rmtree(place, ignore_errors=True)
    return outcome


def _fill(data: Path, place: Path, *, database_url: str, kafka: str, now: Callable[[], float]) -> Outcome:
    notes: list[str] = []
    place.mkdir(parents=True, exist_ok=True)
    if database_url:
        notes.append("the console's database (DATABASE_URL) is not in it: dump it with its own tool before this backup")
    for name in DATABASES:
        if (data / name).exists() and not (database_url and name == DATABASES[0]):
            _copy_database(data / name, place / name)
    for name in SECRETS:
        if (data / name).exists():
            folder.write_secret(place / name, (data / name).read_text())
    embedded = not kafka
    if embedded:
        _await_first_checkpoint(data)
        store.take(data, place, int(now() * 1000))
    else:
        notes.append("the cluster behind SLUICE_KAFKA is not in it")
    names = [name for name in (*DATABASES, *SECRETS) if (place / name).exists()]
    if not names and not embedded:
        raise BackupFailed(f"{data} holds no product: set SLUICE_DATA")
    manifest = {
        "format": FORMAT,
        "v": VERSION,
        "at": int(now() * 1000),
        "files": {name: list(_sum(place / name)) for name in names},
        "broker": embedded,
    }
    folder.write_secret(place / MANIFEST, json.dumps(manifest, indent=1))
    _sync(place)
    _sync(place.parent)
    return _outcome(place, notes)


def _await_first_checkpoint(data: Path) -> None:
    """A store is to be copied from its first checkpoint on: a new product's comes by itself."""
    deadline = time.monotonic() + FIRST_CHECKPOINT_SECONDS
    while not store.has_store(data):
        if not (data / store.FOLDER).exists():
            raise BackupFailed(f"{data} holds no product: set SLUICE_DATA")
        if time.monotonic() > deadline:
            raise BackupFailed(f"{data / store.FOLDER} has no checkpoint yet: is the product running?")
        time.sleep(0.2)


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's online backup: as of one moment, while others write."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as reader,
        contextlib.closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)
        writer.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _pack(place: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}.new.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(place, arcname="", recursive=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(source: Path, beside: Path) -> Iterator[Path]:
    """The folder of a backup; a `.tar` file is unpacked into a folder in `beside` that goes afterwards."""
    if source.is_dir():
        yield source
        return
    place = beside / f".unpacked.{os.getpid()}"
    try:
        with _private(), tarfile.open(source, "r:") as archive:
            place.mkdir(parents=True)
            for member in archive:
                name = Path(member.name)
                if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                    raise BackupFailed(f"{source} is no backup of this product: it holds {member.name!r}")
                if member.isdir():
                    (place / name).mkdir(parents=True, exist_ok=True)
                    continue
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with (place / name).open("xb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
        yield place
    except FileNotFoundError as error:
        raise BackupFailed(f"{source} is not there") from error
    except tarfile.TarError as error:
        raise BackupFailed(f"{source} is no backup of this product, or not a whole one ({error})") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check(place: Path) -> dict[str, Any]:
    """The manifest of a whole backup, every byte of which is as it was taken. Raises BackupFailed."""
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        known, version = manifest["format"] == FORMAT, manifest["v"]
        files, embedded = dict(manifest["files"]), bool(manifest["broker"])
    except FileNotFoundError as error:
        raise BackupFailed(f"{place} holds no finished backup") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BackupFailed(f"{place / MANIFEST} is damaged") from error
    if not known or version != VERSION:
        raise BackupFailed(f"the backup has format {version}; this version reads up to {VERSION}")
    try:
        for name, wanted in files.items():
            if name not in (*DATABASES, *SECRETS):
                raise BackupFailed(f"the backup names a file that is none of the product's: {name!r}")
            if not (place / name).is_file() or list(_sum(place / name)) != wanted:
                raise BackupFailed(f"{place / name} is missing or damaged")
        if embedded:
            store.check(place)
    except (store.Failed, OSError) as error:
        raise BackupFailed(f"the backup is damaged: {_words(error)}") from error
    return {"files": files, "broker": embedded, "at": manifest["at"]}


def restore(source: Path, data: Path) -> Outcome:
    """Make the product anew in `data` from a backup, checked first. Raises BackupFailed."""
    try:
        folder.ready(data)
        held = folder.lock(data)
    except (folder.FolderUnusable, folder.FolderInUse) as error:
        raise BackupFailed(str(error)) from error
    try:
        _refuse_used(data)
        with _private(), opened(source, data) as place:
            manifest = check(place)
            for name in manifest["files"]:
                _copy(place / name, data / name)
            internal.move(data)  # the port it names may be the original's, which may run here
            if manifest["broker"]:
                store.put_back(place, data)
            _sync(data)
            return _outcome(place)
    except (store.Failed, internal.InternalCredentialUnreadable, OSError) as error:
        for name in (*DATABASES, *SECRETS):
            (data / name).unlink(missing_ok=True)
        shutil.rmtree(data / store.FOLDER, ignore_errors=True)
        raise BackupFailed(f"nothing was restored: {_words(error)}") from error
    finally:
        os.close(held)


def _refuse_used(data: Path) -> None:
    """Only a folder without a product: what every start makes by itself is none."""
    found = [name for name in (*DATABASES, *SECRETS, store.FOLDER) if (data / name).exists()]
    found += [path.name for path in data.glob(GATEWAY)]
    if found:
        raise BackupFailed(f"{data} holds a product already ({found[0]}): set SLUICE_DATA to a new folder")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
        writer.flush()
        os.fsync(writer.fileno())


def _sum(path: Path) -> tuple[int, int]:
    size = crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc


def _outcome(place: Path, notes: Sequence[str] = ()) -> Outcome:
    sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
    return Outcome(files=len(sizes), bytes=sum(sizes), notes=tuple(notes))


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """What is made here is for its owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _words(error: BaseException) -> str:
    return str(error.strerror or error).lower() if isinstance(error, OSError) else str(error)
