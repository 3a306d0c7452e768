"""The engine's part of a connected session."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from gateway.contract import Presence
from gateway.identity.asking import Gate, TopicAnswers
from gateway.policy import Policy, Rights
from gateway.ports import Message, Receipt, Session, Subscription, Will
from gateway.sessions.mailbox import Mailbox

Retained = tuple[Message, int, tuple[int, ...]]
"""A message, its QoS and subscription identifiers."""


Found = Iterator[Retained | None]


class Feed:
    """Retained messages for new subscriptions, found as they are given; a None now and then, for others' turn.

    A filter waits once, however often it is subscribed to.
    """

    __slots__ = ("_current", "_find", "giving", "refused", "waiting")

    def __init__(self, find: Callable[[Subscription, Collection[str], int], Found]) -> None:
        """`find` is called with what is `waiting`, when its turn comes."""
        self._find = find
        self._current: Found | None = None
        # by filter: the subscription, topics of which it has something newer, the last of the changes it may see
        self.waiting: dict[str, tuple[Subscription, Collection[str], int]] = {}
        self.refused: Retained | None = None  # for want of room: the next one to be given
        self.giving = False

    def __iter__(self) -> Found:
        """What is left; whoever stops goes on later with another iterator."""
        if self.refused is not None:
            refused, self.refused = self.refused, None
            yield refused
        while self.waiting or self._current is not None:
            if self._current is None:
                self._current = self._find(*self.waiting.pop(next(iter(self.waiting))))
            for each in self._current:  # noqa: UP028 - `yield from` would close it together with this one
                yield each
            self._current = None
            yield None


class Connection:
    """What `Session.state` holds. `token` is the claim's that the connection stands on."""

    __slots__ = (
        *("asked", "due", "expired", "feed", "gate", "last", "mailbox"),
        *("overflowed", "own", "principal", "published_at", "rights", "since", "token", "will"),
    )

    def __init__(self, principal: str, rights: Rights, since: float, will: Will | None) -> None:
        self.principal = principal
        self.rights = rights
        self.since = since
        self.will = will
        self.token = ""
        self.own: Policy | None = None
        self.asked: TopicAnswers | None = None  # where topic plugins decide
        self.gate: Gate | None = None
        self.last: Receipt[Any] | None = None  # the newest run that waited for their answers
        self.mailbox: Mailbox | None = None
        self.feed: Feed | None = None  # retained messages still to be given
        self.expired = 0  # messages on their way to it, since it connected
        self.overflowed = 0  # for want of room
        self.published_at = 0.0  # when it last did, by the clock of `Ticks`
        # to be looked for once the SUBACK is written; topics of which it has something newer than what is retained
        self.due: list[tuple[Subscription, Collection[str]]] | None = None


def presence_of(session: Session, *, gateway: str, online: bool, reason: str, now: float) -> Presence:
    """What the others are told of a session's device."""
    request, connection = session.request, session.state
    return Presence(
        client_id=session.client_id,
        online=online,
        since=connection.since if online else now,
        gateway=gateway,
        address=request.peer.address,
        protocol=request.protocol,
        principal=connection.principal,
        username=session.identity.username or "",
        keep_alive=request.keep_alive,
        clean=not session.durable,
        listener=request.peer.listener,
        tls=request.peer.tls,
        reason=reason,
        subscriptions=len(getattr(session, "subscriptions", None) or ()),
    )
