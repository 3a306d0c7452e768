"""What a gateway knows of one session, told when somebody asks: its subscriptions, and what waits for it.

An answer is one record of `__sluice_tap` under the name that the question gave, and nothing is kept. Only the gateway
that holds the session answers, whether its device is connected or away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway import contract
from gateway.contract import TAP, Control, TapReport
from gateway.ports import Message, Receipt, Session, Subscription
from gateway.sessions.mailbox import Mailbox

log = logging.getLogger("gateway.telling")

FILTERS = 200  # of one answer
LATE = 30.0  # a question older than this is not answered

Write = Callable[[str, bytes | None, bytes | None], Receipt[Any]]


class Telling:
    """`tell` answers one question. `oldest` is what has waited longest in a mailbox."""

    def __init__(
        self,
        *,
        gateway: str,
        live: Mapping[str, Session],
        mailboxes: Mapping[str, Mailbox],
        oldest: Callable[[Mailbox], Awaitable[Message | None]],
        write: Write,
        clock: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._live = live
        self._mailboxes = mailboxes
        self._oldest = oldest
        self._write = write
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, question: Control) -> None:
        """Somebody asks; raises nothing."""
        here = question.client_id in self._live or question.client_id in self._mailboxes
        if here and question.tap and question.at > self._clock() - LATE:
            task = asyncio.get_running_loop().create_task(self.answer(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def answer(self, question: Control) -> None:
        """Write the answer."""
        session, mailbox = self._live.get(question.client_id), self._mailboxes.get(question.client_id)
        oldest = await self._oldest(mailbox) if mailbox is not None else None
        now = self._clock()
        report = TapReport(
            gateway=self._gateway,
            at=now,
            until=now,
            connected=session is not None,
            rows=(shown(session, mailbox, oldest),),
            ended="told",
        )
        self._write(TAP, contract.encode(report), question.tap.encode())


def shown(session: Any, mailbox: Mailbox | None, oldest: Message | None) -> dict[str, Any]:
    """`subscriptions` (at most FILTERS; `left_out` more), `queued` and `in_flight` messages, and of the `oldest` that
    waits its MQTT topic and, where it has one, its place in the log."""
    subscriptions: Mapping[str, Subscription] = {}
    if session is not None:
        subscriptions = getattr(session, "subscriptions", None) or {}
    elif mailbox is not None:
        subscriptions = mailbox.subscriptions
    row: dict[str, Any] = {
        "type": "session",
        "subscriptions": [_subscription(each) for each in list(subscriptions.values())[:FILTERS]],
        "left_out": max(0, len(subscriptions) - FILTERS),
        "queued": (session.waiting if session is not None else 0) + (mailbox.waiting if mailbox is not None else 0),
        "in_flight": session.in_flight if session is not None else len(mailbox.pending) if mailbox is not None else 0,
    }
    if oldest is not None:
        row["oldest"] = {"topic": oldest.topic[:1000], "expires_at": oldest.expires_at}
        if oldest.origin is not None:
            row["oldest"]["origin"] = list(oldest.origin)
    return row


def _subscription(each: Subscription) -> dict[str, Any]:
    found: dict[str, Any] = {"filter": each.filter[:1000], "qos": each.qos}
    for name in ("no_local", "retain_as_published", "identifier"):
        if value := getattr(each, name):
            found[name] = value
    return found
