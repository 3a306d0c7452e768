"""The history store: three tiers of points in one SQLite file of its own, so that sampling never waits for people.

| tier | a point every | kept for | which series |
| fine | 1 s | 20 min | the cluster's, and up to `FINE_SERIES` others: those that moved latest first |
| middle | 10 s | 26 h | likewise, up to `MIDDLE_SERIES` |
| coarse | 5 min | 32 d | as middle |

Middle and coarse points are the mean of what was seen in their span. What was not seen is absent and drawn as a gap.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

FINE_SERIES = 400
MIDDLE_SERIES = 4000
TIERS = (("fine", 1, 20 * 60), ("middle", 10, 26 * 3600), ("coarse", 300, 32 * 86400))
MAX_POINTS = 1500

SCHEMA = """
CREATE TABLE IF NOT EXISTS version (number INTEGER NOT NULL);
INSERT INTO version SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM version);
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS fine (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS middle (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS coarse (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at)) WITHOUT ROWID;
"""
VERSION = 1


class UnknownVersion(RuntimeError):
    """The history file was written by a later release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Times (epoch seconds, rising) and, for each series asked for, as many values; None where nothing was seen."""

    at: list[int]
    values: list[list[float | None]]
    step: int


def read(series: Sequence[str], *, now: float, window: int, path: Path | None = None) -> Columns:
    """The last `window` seconds of each series, from the finest tier that holds them."""
    path = path or settings.SLUICE.history_database
    table, step, _ = next((tier for tier in TIERS if window <= tier[2]), TIERS[-1])
    if not path.exists():
        return Columns(at=[], values=[[] for _ in series], step=step)
    since = int(now) - window
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as connection:
        found = [_points(connection, table, name, since) for name in series]
        if table == "fine" and not any(found):  # not watched closely: the next tier has it
            table, step = "middle", 10
            found = [_points(connection, table, name, since) for name in series]
    thin = max(1, -(-window // (step * MAX_POINTS)))
    step *= thin
    merged: dict[int, list[float | None]] = {}
    for index, points in enumerate(found):
        for at, value in points:
            merged.setdefault(at - at % step, [None] * len(series))[index] = value
    # A hole longer than three steps is drawn as a hole: a null of its own breaks the line.
    times: list[int] = []
    rows: list[list[float | None]] = []
    for time in sorted(merged):
        if times and time - times[-1] > 3 * step:
            times.append(times[-1] + step)
            rows.append([None] * len(series))
        times.append(time)
        rows.append(merged[time])
    return Columns(at=times, values=[[row[index] for row in rows] for index in range(len(series))], step=step)


def _points(connection: sqlite3.Connection, table: str, name: str, since: int) -> list[tuple[int, float]]:
    query = (
        f"SELECT at, value FROM {table} WHERE series = (SELECT id FROM series WHERE name = ?) AND at >= ? ORDER BY at"  # noqa: S608 - the table's name is one of three constants
    )
    return connection.execute(query, (name, since)).fetchall()


@dataclass(slots=True)
class _Sum:
    total: float = 0.0
    count: int = 0


@dataclass(slots=True)
class _Span:
    start: int = 0
    sums: dict[str, _Sum] = field(default_factory=dict)


class Writer:
    """The monitor's side. `add` once a second with every value that is known; owns its connection and thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # seconds of history may be lost with the machine
        self._connection.executescript(SCHEMA)
        (number,) = self._connection.execute("SELECT number FROM version").fetchone()
        if number != VERSION:
            raise UnknownVersion(f"{path} has version {number}; this release knows {VERSION}")
        self._ids = {name: number for number, name in self._connection.execute("SELECT id, name FROM series")}
        self._moved: dict[str, tuple[float, int]] = {}
        self._spans = {"middle": _Span(), "coarse": _Span()}
        self._pruned = 0

    def close(self) -> None:
        self._connection.close()

    def add(self, values: Mapping[str, float], now: float) -> None:
        second = int(now)
        fine, middle = self._chosen(values, second)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert("fine", second, {name: values[name] for name in fine})
            for table, step in (("middle", 10), ("coarse", 300)):
                self._collect(table, step, second, {name: values[name] for name in middle})
            if second - self._pruned >= 60:
                for table, _, kept in TIERS:
                    self._connection.execute(f"DELETE FROM {table} WHERE at < ?", (second - kept,))  # noqa: S608 - constant
                self._pruned = second
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def _chosen(self, values: Mapping[str, float], second: int) -> tuple[list[str], list[str]]:
        """The series for the fine tier and for the others: the cluster's always, then those that moved latest."""
        always, moving = [], []
        for name, value in values.items():
            if name.startswith("cluster/"):
                always.append(name)
                continue
            before = self._moved.get(name)
            if before is None or before[0] != value:
                self._moved[name] = (value, second if before or value else 0)
            elif value:  # a lag that stands still is still news
                self._moved[name] = (value, max(before[1], second - 600))
            moving.append(name)
        for name in self._moved.keys() - values.keys():
            del self._moved[name]
        moving.sort(key=lambda name: -self._moved[name][1])
        return always + moving[:FINE_SERIES], always + moving[:MIDDLE_SERIES]

    def _collect(self, table: str, step: int, second: int, values: Mapping[str, float]) -> None:
        span = self._spans[table]
        start = second - second % step
        if start != span.start:
            means = {name: one.total / one.count for name, one in span.sums.items()}
            if means:
                self._insert(table, span.start, means)
            self._spans[table] = span = _Span(start=start)
        for name, value in values.items():
            one = span.sums.setdefault(name, _Sum())
            one.total += value
            one.count += 1

    def _insert(self, table: str, at: int, values: Mapping[str, float]) -> None:
        for name in values.keys() - self._ids.keys():
            cursor = self._connection.execute("INSERT INTO series (name) VALUES (?)", (name,))
            self._ids[name] = cursor.lastrowid or 0
        rows = [(self._ids[name], at, value) for name, value in values.items()]
        self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608 - constant
