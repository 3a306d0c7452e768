"""What is to be done about a session on its way here, by the record of it that stands. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from gateway.contract import StoredSession


class Step(Enum):
    """What is to be done about an arrival."""

    WAIT = auto()  # whose it is has not let go
    TAKE = auto()  # try to take it, as its record says: it was let go of, or nobody had it
    LEFT = auto()  # try to take it, as the last checkpoint of the dead gateway in its record has it
    GO_ON = auto()  # it was taken


def step(record: StoredSession | None, me: str, alive: Callable[[str], bool]) -> Step:
    """What the record of a session that stands calls for."""
    if record is None or record.free:
        return Step.TAKE
    if record.taker == me:
        return Step.GO_ON
    if record.keeper == me:
        # that it was let go of is on its way into the log; a session that ends with its connection is not let go of
        return Step.WAIT if record.expiry else Step.TAKE
    if alive(record.keeper):
        return Step.WAIT
    return Step.TAKE if record.released else Step.LEFT
