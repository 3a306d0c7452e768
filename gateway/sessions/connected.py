"""The engine's part of a connected session."""

from __future__ import annotations

from typing import Any

from gateway.contract import Presence
from gateway.identity.asking import Gate, TopicAnswers
from gateway.policy import Policy, Rights
from gateway.ports import Receipt, Session, Will
from gateway.sessions.mailbox import Mailbox


class Connection:
    """What `Session.state` holds. `token` is the claim's that the connection stands on."""

    __slots__ = (
        *("asked", "expired", "feed", "gate", "known", "last", "mailbox", "overflowed", "own", "principal"),
        *("published_at", "rights", "since", "token", "will"),
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
        self.feed: list[Any] | None = None  # retained messages still to be given
        self.expired = 0  # messages on their way to it, since it connected
        self.overflowed = 0  # for want of room
        self.published_at = 0.0  # when it last did, by the clock of `Ticks`
        self.known: dict[str, bool] | None = None  # filters of a SUBSCRIBE under way: had before


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
