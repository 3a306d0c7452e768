"""What a mailbox asks of whoever stores what it has, and tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.ports import Message

if TYPE_CHECKING:
    from gateway.sessions.mailbox import Mailbox

FULL = "the queue is full"
EXPIRED = "expired"
GONE = "its record is not in the log any more"


class Keeper(Protocol):
    """Who stores what mailboxes have."""

    def touched(self, mailbox: Mailbox) -> None:
        """There is something to be stored."""

    def wanted(self, mailbox: Mailbox) -> None:
        """The first chunk of the shelf is to be loaded; may be said twice."""

    def dropped(self, mailbox: Mailbox, message: Message, why: str) -> None:
        """A message was dropped: FULL, EXPIRED or GONE."""

    def dropped_unseen(self, mailbox: Mailbox, number: int, first: int, count: int, why: str) -> None:
        """So many entries of this chunk, from this one on, were dropped without being looked at."""

    def now(self) -> float: ...
