"""What a store says of itself: what the disk lets it do, what went wrong, and what opening it found."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.log.failures import StorageFailure, StorageFull, StorageUnwritable

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_UNWRITABLE: Final = frozenset(("space", "journal", "segment"))
_REMEMBERED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the disk lets the store do."""

    ok: bool
    writable: bool  # False: appends are refused for now (full disk) or until a restart (fatal)
    fatal: bool
    reason: str  # one line, empty when ok
    damaged: Sequence[str] = field(default_factory=tuple)  # corruption found, one line each


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What opening found and did; the server logs it."""

    clean: bool
    partitions: int
    replayed_entries: int
    replayed_bytes: int
    cut_bytes: int  # torn tail of the journal: never acknowledged
    damage: Sequence[str]  # corruption, one line each: never passed over in silence


def failure_from(error: OSError) -> StorageFailure:
    """What a failed write means to whoever waited for it."""
    if error.errno in _FULL:
        return StorageFull(f"nothing can be written: {error.strerror}")
    return StorageUnwritable(f"a write failed: {error.strerror}")


class Trouble:
    """What went wrong in one store, as long as it lasts."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        """What keeps it from writing, by kind: space, journal, segment, checkpoint; gone when it heals."""
        self.fatal = ""
        """Why nothing is acknowledged any more until a restart."""
        self._damage: dict[str, None] = {}
        self._failed: list[tuple[int, int, StorageFailure]] = []

    def damaged(self, what: Iterable[str]) -> None:
        """Corruption was found; it is told of until the process ends."""
        self._damage.update(dict.fromkeys(what))

    def healed(self, kind: str) -> None:
        """That kind of problem is over, if there was one."""
        self.problems.pop(kind, None)

    def lost(self, low: int, high: int, failure: StorageFailure) -> None:
        """The journal positions from `low` to `high` never became durable."""
        self._failed.append((low, high, failure))
        del self._failed[:-_REMEMBERED]

    def failure_of(self, position: int) -> StorageFailure | None:
        """Why that position never became durable; None when nothing of the kind is known."""
        for low, high, failure in self._failed:
            if low <= position <= high:
                return failure
        return None

    def health(self) -> Health:
        """What the disk lets the store do right now."""
        damage = tuple(self._damage)
        if self.fatal:
            return Health(ok=False, writable=False, fatal=True, reason=self.fatal, damaged=damage)
        reason = "; ".join(self.problems.values())
        writable = not (self.problems.keys() & _UNWRITABLE)
        if not reason and damage:
            reason = f"damaged data: {damage[0]}" + (f" (and {len(damage) - 1} more)" if len(damage) > 1 else "")
        return Health(ok=not reason, writable=writable, fatal=False, reason=reason, damaged=damage)
