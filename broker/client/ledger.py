"""The idempotency ledger: of any number of consumers that are given the same record, one runs its handler to
done.

Check-then-act races: two consumers both find "not seen". So a handler is preceded by an atomic *claim* with
a lease and followed by *done*. Whoever finds a live claim waits or passes; a claim whose lease ran out (its
holder crashed) can be taken over, and then the old holder's `done` is refused.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class ClaimState(Enum):
    """What `claim` found."""

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
    """Keys are for the caller to choose; `run_consumer` uses `sluice.message.id`, else
    topic/partition/offset."""

    def claim(self, key: str, owner: str, *, now: float, lease: float) -> Claim: ...

    def renew(self, claim: Claim, *, now: float, lease: float) -> Claim: ...

    def done(self, claim: Claim, *, now: float) -> None: ...

    def release(self, claim: Claim) -> None: ...

    def forget(self, *, before: float) -> int: ...
