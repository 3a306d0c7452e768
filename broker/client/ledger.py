"""The idempotency ledger: of any number of consumers that are given the same record, one runs its handler to done.

Check-then-act races: two consumers both find "not seen". So a handler is preceded by an atomic *claim* with a lease and
followed by *done*:

    free ──claim──▶ claimed (token n, until t) ──done(n)──▶ done
                        │        ▲
               release(n)        └── claim after t: token n + 1

Invariants: at most one live claim per key; `done` and `renew` need the newest token, so a holder that slept through its
lease is told (`LeaseLost`) instead of ending what somebody else has taken over; done is final until it is forgotten.
A holder that crashes simply stops renewing. Whether a handler that lost its lease has had effects nobody can know: pass
`claim.token` on to systems that can fence by it.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Protocol


class ClaimState(Enum):
    """What `claim` found: it is ours now, it was done before, or somebody else holds it."""

    CLAIMED = "claimed"
    DONE = "done"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Claim:
    """`token` fences: only the newest claim of a key may end it. `until` is epoch seconds."""

    state: ClaimState
    key: str
    token: int = 0
    until: float = 0.0


class LeaseLost(Exception):
    """The claim was taken over: its lease had run out before the handler was done."""


class Ledger(Protocol):
    """Keys are for the caller to choose; `run_consumer` uses the group and `sluice.message.id`, else the group and
    topic/partition/offset. Times are epoch seconds, leases seconds."""

    def claim(self, key: str, owner: str, *, now: float, lease: float) -> Claim:
        """Try to take the key; atomic among all processes that share the ledger."""

    def renew(self, claim: Claim, *, now: float, lease: float) -> Claim:
        """Hold on to it for longer; raises LeaseLost."""

    def done(self, claim: Claim, *, now: float) -> None:
        """The work is finished, for good: durable when this returns. Raises LeaseLost."""

    def release(self, claim: Claim) -> None:
        """Give the key back undone; nothing happens if it was taken over."""

    def forget(self, *, before: float) -> int:
        """Drop what was done before this time; returns how many keys that were."""


SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    key TEXT PRIMARY KEY,
    done REAL,
    owner TEXT NOT NULL,
    token INTEGER NOT NULL,
    until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_done ON ledger (done) WHERE done IS NOT NULL;
"""
VERSION = 1


class UnknownVersion(Exception):
    """The file was written by a later release."""


class SqliteLedger:
    """A ledger in one SQLite file, shared by any number of threads and processes of one machine. Every step is a
    transaction of its own, fsynced (WAL, synchronous=FULL)."""

    def __init__(self, path: Path | str, *, busy_timeout: float = 10.0) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            self._database.close()
            raise UnknownVersion(f"{path} has version {version}; this release knows {VERSION}")
        if version < VERSION:
            self._database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def claim(self, key: str, owner: str, *, now: float, lease: float) -> Claim:
        until = now + lease
        with self._transaction() as database:
            row = database.execute("SELECT done, token, until FROM ledger WHERE key = ?", (key,)).fetchone()
            if row is None:
                database.execute("INSERT INTO ledger VALUES (?, NULL, ?, 1, ?)", (key, owner, until))
                return Claim(ClaimState.CLAIMED, key, 1, until)
            done, token, held_until = row
            if done is not None:
                return Claim(ClaimState.DONE, key, token)
            if held_until > now:
                return Claim(ClaimState.HELD, key, token, held_until)
            database.execute(
                "UPDATE ledger SET owner = ?, token = ?, until = ? WHERE key = ?", (owner, token + 1, until, key)
            )
            return Claim(ClaimState.CLAIMED, key, token + 1, until)

    def renew(self, claim: Claim, *, now: float, lease: float) -> Claim:
        self._end("UPDATE ledger SET until = ? WHERE key = ? AND token = ? AND done IS NULL", now + lease, claim)
        return replace(claim, until=now + lease)

    def done(self, claim: Claim, *, now: float) -> None:
        self._end("UPDATE ledger SET done = ? WHERE key = ? AND token = ? AND done IS NULL", now, claim)

    def _end(self, statement: str, moment: float, claim: Claim) -> None:
        with self._transaction() as database:
            if database.execute(statement, (moment, claim.key, claim.token)).rowcount != 1:
                raise LeaseLost(f"{claim.key}: somebody else has taken over")

    def release(self, claim: Claim) -> None:
        # the row stays, so that tokens go on rising
        with self._transaction() as database:
            database.execute(
                "UPDATE ledger SET until = 0 WHERE key = ? AND token = ? AND done IS NULL", (claim.key, claim.token)
            )

    def forget(self, *, before: float) -> int:
        with self._transaction() as database:
            return int(database.execute("DELETE FROM ledger WHERE done < ?", (before,)).rowcount)

    def close(self) -> None:
        with self._lock:
            self._database.close()
