"""What is pending in one partition, in an SQLite file: rows by number, by time and by id.

The file can be lost at any time: everything in it is in `__sluice_delays`. Rows, the position in `sluice.delay` and the
place in `__sluice_delays` up to which all of it is true are written in one transaction, so that a copy is whole or
behind, never wrong; a power cut takes back its newest transactions and no others (WAL, synchronous NORMAL). A copy of
another topic, of another schema, or one so old that compaction may have taken away removals it hasn't heard of
(`MAX_AGE_MS`), is thrown away.

Payloads lie in a table of their own, so that counting and searching a million rows need not pass over them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.delay.entry import Entry, Position, decode

SCHEMA_VERSION = 1
MAX_AGE_MS = 8 * 3_600_000
DELETE_RETENTION_MS = 86_400_000
"""What `__sluice_delays` is made with: removals outlive every copy that is still believed."""

_SCHEMA = """
CREATE TABLE pending (row INTEGER PRIMARY KEY, due INTEGER NOT NULL, target TEXT NOT NULL, key BLOB, id TEXT,
                      size INTEGER NOT NULL);
CREATE TABLE body (row INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE INDEX pending_due ON pending (due);
CREATE INDEX pending_id ON pending (id) WHERE id IS NOT NULL;
CREATE TABLE place (copy_of TEXT NOT NULL, log_next INTEGER NOT NULL, seen INTEGER NOT NULL,
                    next INTEGER NOT NULL, topic TEXT NOT NULL, generation INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A row whose time has come."""

    row: int
    entry: Entry


class Store:
    """Written by one thread; `Book` reads the same file from others."""

    def __init__(self, path: Path, copy_of: str, *, now: int) -> None:
        """`copy_of` names the topic by its id: what else the file may hold is dropped. `now` is epoch milliseconds."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
            usable = self._usable(copy_of, now)
        except sqlite3.DatabaseError:
            usable = False
        if not usable:
            self.discard()
            self._database = self._open()
            self._database.executescript(_SCHEMA)
            self._database.execute("INSERT INTO place VALUES (?, 0, ?, 0, '', 0)", (copy_of, now))
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        found = self._database.execute("SELECT log_next, next, topic, generation FROM place").fetchone()
        self.log_next: int = found[0]
        """The next offset of `__sluice_delays` to apply."""
        self.position = Position(next=found[1], topic=found[2], generation=found[3])
        self.next_due = self._next_due()
        """When the next row is due, in epoch milliseconds; None: nothing is pending."""

    def _open(self) -> sqlite3.Connection:
        self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("PRAGMA cache_size = -2048")
        self._database.execute("PRAGMA journal_size_limit = 16777216")
        return self._database

    def _usable(self, copy_of: str, now: int) -> bool:
        if self._database.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
            return False
        found = self._database.execute("SELECT copy_of, seen FROM place").fetchone()
        return found is not None and found[0] == copy_of and now - found[1] <= MAX_AGE_MS

    def discard(self) -> None:
        """Remove the file; it is read from the topic again."""
        self._database.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def apply(
        self,
        *,
        put: Mapping[int, tuple[Entry, bytes]],
        removed: Iterable[int],
        log_next: int,
        now: int,
        position: Position | None = None,
    ) -> None:
        """What the topic holds by now, up to before `log_next`: rows (with their encoded form), removed ones, the
        position if it moved."""
        database = self._database
        rows = [
            (row, entry.due, entry.target, entry.key, entry.id, len(entry.value or b""))
            for row, (entry, _) in put.items()
        ]
        database.execute("BEGIN IMMEDIATE")
        try:
            if rows:
                database.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?)", rows)
                database.executemany(
                    "INSERT OR REPLACE INTO body VALUES (?, ?)", ((row, value) for row, (_, value) in put.items())
                )
            gone = [(row,) for row in removed]
            if gone:
                database.executemany("DELETE FROM pending WHERE row = ?", gone)
                database.executemany("DELETE FROM body WHERE row = ?", gone)
            if position is not None:
                database.execute(
                    "UPDATE place SET next = ?, topic = ?, generation = ?",
                    (position.next, position.topic, position.generation),
                )
            database.execute("UPDATE place SET log_next = ?, seen = ?", (log_next, now))
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        self.log_next = log_next
        if position is not None:
            self.position = position
        if gone:
            self.next_due = self._next_due()
        elif rows:
            first = min(row[1] for row in rows)
            self.next_due = first if self.next_due is None else min(first, self.next_due)

    def touch(self, now: int) -> None:
        """The copy is true as of `now`: its owner has nothing to add."""
        self._database.execute("UPDATE place SET seen = ?", (now,))

    def due(self, now: int, *, rows: int, size: int) -> list[Due]:
        """The earliest rows that are due, at most `rows` of them and about `size` bytes."""
        if self.next_due is None or self.next_due > now:
            return []
        found: list[Due] = []
        taken = 0
        cursor = self._database.execute(
            "SELECT pending.row, body.value FROM pending JOIN body ON body.row = pending.row"
            " WHERE due <= ? ORDER BY due, pending.row LIMIT ?",
            (now, rows),
        )
        for row, value in cursor:
            found.append(Due(row, decode(value)))
            taken += len(value)
            if taken >= size:
                break
        cursor.close()
        return found

    def matching(self, key: bytes | None, identity: str) -> list[int]:
        """The rows pending with this key and id."""
        found = self._database.execute("SELECT row FROM pending WHERE id = ? AND key IS ?", (identity, key))
        return [row for (row,) in found]

    def holds(self, row: int) -> bool:
        return self._database.execute("SELECT 1 FROM pending WHERE row = ?", (row,)).fetchone() is not None

    def _next_due(self) -> int | None:
        found: int | None = self._database.execute("SELECT min(due) FROM pending").fetchone()[0]
        return found

    def close(self) -> None:
        self._database.close()
