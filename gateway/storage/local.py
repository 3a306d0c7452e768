"""The gateway's local copy of compacted topics, in one SQLite file.

It only shortens a restart: everything in it can be read from the log again. Rows and the position up to which they are
true are written in one transaction, so that a copy is either whole or behind, never wrong. The file belongs to one
cluster and one version of this schema; a copy of anything else is thrown away. Used from one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE identity (cluster TEXT NOT NULL);
CREATE TABLE positions (topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, topic_id TEXT NOT NULL,
                        PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE rows (topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                   PRIMARY KEY (topic, key)) WITHOUT ROWID;
"""

Change = tuple[str, bytes, bytes | None]
"""(topic, key, value or None for a deletion)."""


def file_name(gateway: str) -> str:
    """The file of a gateway: several on one machine may share a data folder."""
    return f"gateway-{quote(gateway, safe='')}.sqlite3"


class LocalCopy:
    """Rows of compacted topics and the next offsets to read."""

    def __init__(self, path: Path, cluster: str) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
            ours = self._is_ours(cluster)
        except sqlite3.DatabaseError:  # not a database
            ours = False
        if not ours:
            self._database.close()
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._database = self._open()
            self._database.executescript(_SCHEMA)
            self._database.execute("INSERT INTO identity VALUES (?)", (cluster,))
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._database.commit()

    def _open(self) -> sqlite3.Connection:
        self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        # losing the newest transactions to a power cut is fine: rows and position go together
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        return self._database

    def _is_ours(self, cluster: str) -> bool:
        try:
            if self._database.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
                return False
            return bool(self._database.execute("SELECT cluster FROM identity").fetchone() == (cluster,))
        except sqlite3.DatabaseError:
            return False

    def position(self, topic: str, partition: int, topic_id: str) -> int | None:
        """The next offset to read, or None if nothing of this very topic is held."""
        found = self._database.execute(
            "SELECT next FROM positions WHERE topic = ? AND partition = ? AND topic_id = ?",
            (topic, partition, topic_id),
        ).fetchone()
        return None if found is None else int(found[0])

    def forget(self, topic: str) -> None:
        """Drop what is held of a topic."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM rows WHERE topic = ?", (topic,))
        self._database.execute("DELETE FROM positions WHERE topic = ?", (topic,))
        self._database.execute("COMMIT")

    def rows(self, topic: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value of a topic, in the order of the keys."""
        yield from self._database.execute("SELECT key, value FROM rows WHERE topic = ? ORDER BY key", (topic,))

    def get(self, topic: str, key: bytes) -> bytes | None:
        """The value of one key."""
        found = self._database.execute("SELECT value FROM rows WHERE topic = ? AND key = ?", (topic, key)).fetchone()
        return None if found is None else bytes(found[0])

    def range(self, topic: str, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `low` up to but without `high`, in the order of the keys."""
        yield from self._database.execute(
            "SELECT key, value FROM rows WHERE topic = ? AND key >= ? AND key < ? ORDER BY key", (topic, low, high)
        )

    def write(self, changes: Iterable[Change], positions: Iterable[tuple[str, int, int, str]]) -> None:
        """Apply changes in order and move positions (topic, partition, next, topic id), in one transaction."""
        newest = {(topic, key): value for topic, key, value in changes}
        self._database.execute("BEGIN IMMEDIATE")
        try:
            gone = (place for place, value in newest.items() if value is None)
            self._database.executemany("DELETE FROM rows WHERE topic = ? AND key = ?", gone)
            kept = ((*place, value) for place, value in newest.items() if value is not None)
            self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", kept)
            self._database.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", positions)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()
