"""What becomes of a message that a session was given, and who is told: its mailbox, the command it was, its share
group, the counters, a dead-letter topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.counters import Counters
from gateway.delivering.commands import Commands
from gateway.delivering.expiry import letter
from gateway.moving.shares import Shares
from gateway.peers.lease import Lease
from gateway.ports import Message, Receipt, Session, settled
from gateway.publishing.traffic import Traffic
from gateway.receipts import follow
from gateway.registry import Registry
from gateway.routes import DEAD_LETTER, DISCARD
from gateway.sessions.connected import Connection
from gateway.sessions.keeper import EXPIRED, FULL
from gateway.sessions.sessions import Sessions
from gateway.storage.ticks import Ticks


class Outcomes:
    """The engine's answers to `sending`, `received`, `dropped` and `finished` (see `gateway.ports.Engine`)."""

    def __init__(
        self,
        *,
        registry: Registry,
        sessions: Sessions,
        commands: Commands,
        shares: Shares,
        lease: Lease,
        ticks: Callable[[], Ticks],
        counters: Counters,
        traffic: Traffic,
        keep_expired: bool,
    ) -> None:
        """`keep_expired`: messages that expire become dead letters where their route does not say otherwise."""
        self._registry = registry
        self._sessions = sessions
        self._commands = commands
        self._shares = shares
        self._lease = lease
        self._ticks = ticks
        self._counters = counters
        self._traffic = traffic
        self._keep_expired = keep_expired

    def sending(self, session: Session, packet_id: int, message: Message, qos: int) -> Receipt[Any] | None:
        mailbox = session.state.mailbox
        if mailbox is None:
            return None
        if not self._lease.held():
            return self._later(lambda: self.sending(session, packet_id, message, qos))
        entry = mailbox.sent(message, packet_id)
        return None if entry is None else self._sessions.store_entry(mailbox, entry)

    def received(self, session: Session, packet_id: int, message: Message | None) -> Receipt[Any] | None:
        mailbox = session.state.mailbox
        if mailbox is not None and not self._lease.held():
            return self._later(lambda: self.received(session, packet_id, message))
        entry = mailbox.received(message, packet_id) if mailbox is not None else None
        if mailbox is None or entry is None:
            return None
        return self._sessions.store_entry(mailbox, entry)

    def _later(self, call: Callable[[], Receipt[Any] | None]) -> Receipt[Any]:
        """Do it when the lease is held again; a session that was replaced meanwhile is closed by then."""
        receipt: Receipt[Any] = Receipt()
        self._lease.when_held(lambda: follow(call() or settled(), receipt))
        return receipt

    def ended(self, client_id: str, message: Message, why: str) -> None:
        """A session will never get this."""
        if why == EXPIRED:
            self.expired(client_id, message)
        if why in (EXPIRED, FULL):
            self._traffic.not_delivered(message.topic, why if why == EXPIRED else "dropped")
        self._commands.done(client_id, message, why=why)

    def expired(self, client_id: str, message: Message) -> None:
        """It expired on its way to this client. Whether it becomes a dead letter, the route in force now decides."""
        if not message.qos or not (self._keep_expired or self._registry.keeps_expired):
            return
        route = self._commands.route_of(message) or self._registry.table.find(message.topic)
        if route.expired != DISCARD and (self._keep_expired or route.expired == DEAD_LETTER):
            self._counters.expired_kept += 1
            self._traffic.kept(route.name, message.topic)
            self._ticks().write(*letter(message, client_id))

    def dropped(self, session: Session, message: Message, why: str) -> None:
        if why == "expired":
            self.expired(session.client_id, message)
            self._counters.expired += 1
            session.state.expired += 1
            self._traffic.not_delivered(message.topic, why)
        self._commands.done(session.client_id, message, why=why)
        self._shares.finished(session.client_id, message)
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.finished(message, 0)

    def finished(self, session: Session, packet_id: int, message: Message | None, code: int) -> None:
        if not self._lease.held():
            self._lease.when_held(lambda: self.finished(session, packet_id, message, code))
            return
        self._commands.done(session.client_id, message, code)
        self._shares.finished(session.client_id, message)
        mailbox = session.state.mailbox
        if mailbox is not None and session.client_id in self._sessions.mailboxes:  # it may have gone elsewhere
            entry = mailbox.finished(message, packet_id)
            if entry is not None:
                self._sessions.store_entry(mailbox, entry)

    def overflow(
        self, session: Session, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]
    ) -> None:
        """There was no room for a message that no mailbox takes."""
        self._counters.dropped_full += 1
        self._traffic.not_delivered(message.topic, "full")
        if isinstance(session.state, Connection):
            session.state.overflowed += 1
