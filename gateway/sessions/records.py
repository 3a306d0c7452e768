"""Session records: what is written of a session to `__sluice_sessions`, and a mailbox made from it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gateway import contract
from gateway.contract import SESSIONS, StoredSession, mark_key
from gateway.ports import Limits, Receipt, Session, Subscription, Will
from gateway.publishing.wills import Wills, will_object
from gateway.registry import Registry
from gateway.sessions.inbox import Inbox
from gateway.sessions.mailbox import Mailbox
from gateway.storage.ticks import Headers, Ticks

WRITER = "sluice.gateway"  # the header that says whose a deletion is


class SessionRecords:
    """Writes them for one gateway."""

    def __init__(
        self, gateway: str, registry: Registry, inbox: Inbox, ticks: Callable[[], Ticks], wills: Wills
    ) -> None:
        self._gateway = gateway
        self._registry = registry
        self._inbox = inbox
        self._ticks = ticks
        self._wills = wills
        self._headers: Headers = [(WRITER, gateway.encode())]

    def write(self, record: StoredSession) -> Receipt[Any]:
        return self._ticks().write(SESSIONS, contract.encode(record), record.client_id.encode(), self._headers)

    def erase(self, client_id: str) -> Receipt[Any]:
        return self._ticks().write(SESSIONS, None, client_id.encode(), self._headers)

    def unmark(self, client_id: str, packet_id: int) -> Receipt[Any]:
        return self._ticks().write(SESSIONS, None, mark_key(client_id, packet_id), self._headers)

    def of_session(self, session: Session, claim: int) -> StoredSession:
        """A connected session's, whether it outlives the connection or only has a will."""
        connection = session.state
        if connection.mailbox is not None:
            return self.of_mailbox(connection.mailbox, connection.will)
        return StoredSession(
            client_id=session.client_id,
            owner=connection.principal,
            gateway=self._gateway,
            expiry=0,
            protocol=session.request.protocol,
            connected=True,
            will=will_object(connection.will),
            claim=claim,
        )

    def of_mailbox(self, mailbox: Mailbox, will: Will | None = None) -> StoredSession:
        """A persistent session's. `will` is the connected session's."""
        due = self._wills.due.get(mailbox.client_id)
        return StoredSession(
            client_id=mailbox.client_id,
            owner=mailbox.owner,
            gateway=self._gateway,
            expiry=mailbox.expiry,
            protocol=mailbox.protocol,
            subscriptions=tuple(_stored(each) for each in mailbox.subscriptions.values()),
            connected=mailbox.session is not None,
            disconnected_at=mailbox.disconnected_at,
            will=will_object(due[1] if due is not None else will),
            will_at=due[0] if due is not None else None,
            own=asdict(mailbox.own) if mailbox.own is not None else None,
            queue=mailbox.limit,
            queue_bytes=mailbox.limit_bytes,
            overflow=mailbox.overflow,
            claim=mailbox.claim,
        )

    def mailbox_of(self, record: StoredSession, now: float) -> Mailbox:
        """A mailbox as the record has it; its messages are the inbox's to add."""
        own = contract.policy_of(record.own)
        rights = self._registry.rights(record.owner, record.client_id, own)
        given = {"queue": record.queue, "queue_bytes": record.queue_bytes, "overflow": record.overflow}
        limits = Limits(**{name: value for name, value in given.items() if value})  # type: ignore[arg-type]  # as named
        mailbox = self.mailbox(record.client_id, record.owner, limits)
        mailbox.rights = rights
        mailbox.username = record.owner
        mailbox.own = own
        mailbox.claim = record.claim
        mailbox.expiry = record.expiry
        mailbox.protocol = record.protocol
        mailbox.disconnected_at = now if record.connected else record.disconnected_at or now
        for each in record.subscriptions:
            subscription = Subscription(**each)
            mailbox.subscriptions[subscription.filter] = subscription
        return mailbox

    def mailbox(self, client_id: str, owner: str, limits: Limits) -> Mailbox:
        rights = self._registry.rights(owner, client_id)
        mailbox = Mailbox(client_id, owner, rights, limit=limits.queue, keeper=self._inbox)
        mailbox.limit_bytes = limits.queue_bytes
        mailbox.overflow = limits.overflow
        return mailbox


def _stored(each: Subscription) -> dict[str, Any]:
    """What of it is not as its default: a session may have a thousand, and each change of one writes them all."""
    found: dict[str, Any] = {"filter": each.filter}
    if each.qos:
        found["qos"] = each.qos
    if each.no_local:
        found["no_local"] = True
    if each.retain_as_published:
        found["retain_as_published"] = True
    if each.retain_handling:
        found["retain_handling"] = each.retain_handling
    if each.identifier is not None:
        found["identifier"] = each.identifier
    if each.check:
        found["check"] = True
    return found
