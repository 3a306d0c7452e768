"""Share sessions (KIP-932): which partitions a member fetches, kept between its requests.

A session begins with epoch 0, each request carries the next epoch, -1 ends it. The epoch wraps to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.wire.errors import ErrorCode

FIRST = 0
FINAL = -1
_LAST = 2**31 - 1

Partition = tuple[bytes, int]


@dataclass(slots=True, eq=False)
class ShareSession:
    """One member's session."""

    group: str
    member: str
    owner: object
    """The connection it came over; a session ends with its connection."""
    epoch: int = FIRST
    partitions: dict[Partition, None] = field(default_factory=dict)

    def rotated(self) -> list[Partition]:
        """Its partitions, beginning with another one each time, so that none waits behind a busy one."""
        order = list(self.partitions)
        if order:
            first = order[0]
            del self.partitions[first]
            self.partitions[first] = None
        return order


class ShareSessions:
    """All sessions."""

    def __init__(self, limit: int = 2_000) -> None:
        self._limit = limit
        self._sessions: dict[tuple[str, str], ShareSession] = {}

    def begin(self, group: str, member: str, owner: object) -> ShareSession | ErrorCode:
        """A new session in the place of any older one of that member."""
        if (group, member) not in self._sessions and len(self._sessions) >= self._limit:
            return ErrorCode.SHARE_SESSION_LIMIT_REACHED
        session = self._sessions[group, member] = ShareSession(group, member, owner, epoch=1)
        return session

    def advance(self, group: str, member: str, epoch: int) -> ShareSession | ErrorCode:
        """The session a request with that epoch continues (or with -1 ends)."""
        session = self._sessions.get((group, member))
        if session is None:
            return ErrorCode.SHARE_SESSION_NOT_FOUND
        if epoch == FINAL:
            return session
        if epoch != session.epoch:
            return ErrorCode.INVALID_SHARE_SESSION_EPOCH
        session.epoch = 1 if epoch == _LAST else epoch + 1
        return session

    def end(self, group: str, member: str, owner: object | None = None) -> bool:
        """Drop the session (of that owner, where one is named); whether there was one."""
        session = self._sessions.get((group, member))
        if session is None or (owner is not None and session.owner is not owner):
            return False
        del self._sessions[group, member]
        return True
