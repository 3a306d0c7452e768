"""What a store says of itself: what the disk lets it do, and what opening it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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
