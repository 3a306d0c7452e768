"""Reading what is pending, beside the thread that writes it: counts and pages of one partition's store.

Every call opens the file read-only for itself and gives up after `LONGEST_SECONDS`.
"""

from __future__ import annotations

import base64
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.client.delays import HORIZONS, LARGEST_PAGE

LONGEST_SECONDS = 2.0
SHOWN_BYTES = 256
COUNT_SHARE = 50
"""Counting a million rows takes a while: counts are kept for so many times as long as they took."""


class Book:
    """One partition's. For one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counted: tuple[float, dict[str, int]] | None = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=LONGEST_SECONDS)
        try:
            deadline = time.monotonic() + LONGEST_SECONDS
            database.set_progress_handler(lambda: time.monotonic() > deadline, 20_000)
            yield database
        finally:
            database.close()

    def counts(self, now: int) -> dict[str, int]:
        """How many rows by horizon; `now` is epoch milliseconds. Raises sqlite3.Error."""
        began = time.monotonic()
        if self._counted is not None and began < self._counted[0]:
            return self._counted[1]
        with self._open() as database:
            below = [
                database.execute("SELECT count(*) FROM pending WHERE due < ?", (now + distance,)).fetchone()[0]
                for distance in list(HORIZONS.values())[:-1]
            ]
            below.append(database.execute("SELECT count(*) FROM pending").fetchone()[0])
        found = dict(
            zip(HORIZONS, (after - before for before, after in zip([0, *below], below, strict=False)), strict=True)
        )
        ended = time.monotonic()
        self._counted = ended + (ended - began) * COUNT_SHARE, found
        return found

    def page(self, question: Mapping[str, Any], partition: int) -> list[list[Any]]:
        """Rows as JSON has them: number, due, target, key (base64 or null), id, size. Raises sqlite3.Error."""
        conditions, values = ["1"], list[Any]()
        if question.get("target"):
            conditions.append("instr(target, ?)")
            values.append(str(question["target"]))
        if question.get("id"):
            conditions.append("id = ?")
            values.append(str(question["id"]))
        if "key" in question:
            conditions.append("key = ?")
            values.append(base64.b64decode(question["key"]))
        if "after" in question:
            due, other, row = (int(each) for each in question["after"])
            conditions.append("(due > ? OR (due = ? AND ? < ?) OR (due = ? AND ? = ? AND row > ?))")
            values += [due, due, other, partition, due, other, partition, row]
            conditions.append("due >= ?")
            values.append(due)
        limit = max(1, min(int(question.get("limit", 50)), LARGEST_PAGE + 1))
        with self._open() as database:
            rows = database.execute(
                f"SELECT row, due, target, key, id, size FROM pending WHERE {' AND '.join(conditions)}"  # noqa: S608 - fixed text
                " ORDER BY due, row LIMIT ?",
                [*values, limit],
            ).fetchall()
        return [
            [row, due, target, _shown(key), None if identity is None else identity[:SHOWN_BYTES], size]
            for row, due, target, key, identity, size in rows
        ]


def _shown(key: bytes | None) -> str | None:
    return None if key is None else base64.b64encode(key[:SHOWN_BYTES]).decode()
