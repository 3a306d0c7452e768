"""What is to be done about a session on its way here, by its newest record and its holder before the claim. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from gateway.contract import StoredSession
from gateway.peers.claims import Holder


class Step(Enum):
    """What is to be done about an arrival."""

    WAIT = auto()  # its holder hasn't let go
    NOTHING = auto()  # there is nothing to take over
    RELEASED = auto()  # take it, from the positions in its record
    LEFT = auto()  # take it, from the last checkpoint of the gateway in its record


def step(record: StoredSession | None, previous: Holder | None, me: str, alive: Callable[[str], bool]) -> Step:
    """What the newest record of a session and its holder before the claim call for."""
    if previous is None:
        return Step.NOTHING
    if record is not None and record.released and record.claim >= previous.epoch:
        return Step.RELEASED
    if previous.gateway != me and alive(previous.gateway):
        return Step.WAIT
    if record is None:
        return Step.NOTHING
    if record.released:
        return Step.RELEASED
    if record.gateway not in (me, previous.gateway) and alive(record.gateway):
        return Step.WAIT
    return Step.LEFT
