"""What operators decide reaches devices that are connected: policies, revoked credentials, bans, kicks."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.contract import Ban, Control
from gateway.mqtt.fanout import Fanout
from gateway.operations.tap import Taps
from gateway.operations.telling import Telling
from gateway.ports import Session
from gateway.registry import BanSet, Change, DeviceChanged, Registry, RightsChanged
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.sessions import Sessions
from gateway.subscribing import checked

log = logging.getLogger("gateway.engine")

ADMINISTRATIVE = 0x98
USE_ANOTHER_SERVER = 0x9C


class Enforcing:
    """See the module."""

    def __init__(
        self,
        *,
        registry: Registry,
        sessions: Sessions,
        fanout: Fanout,
        taps: Taps,
        telling: Telling,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._fanout = fanout
        self._taps = taps
        self._telling = telling
        self._clock = clock

    def changed(self, change: Change) -> None:
        """The registry changed; connected devices feel it at once."""
        if isinstance(change, RightsChanged):
            for session in list(self._sessions.live.values()):
                self._refresh_rights(session)
            for mailbox in self._sessions.mailboxes.values():
                self._refresh_mailbox(mailbox)
        elif isinstance(change, DeviceChanged):
            for session in list(self._sessions.live.values()):
                if session.state.principal != change.name:
                    continue
                if change.revoked:
                    session.close(ADMINISTRATIVE, "the device's access was changed")
                else:
                    self._refresh_rights(session)
            for mailbox in self._sessions.mailboxes.values():
                if mailbox.owner == change.name:
                    self._refresh_mailbox(mailbox)
        elif isinstance(change, BanSet):
            self._enforce(change.ban)

    def _refresh_rights(self, session: Session) -> None:
        """From now on every delivery is asked for: a filter granted under the old rules may be too wide."""
        connection = session.state
        connection.rights = self._registry.rights(connection.principal, session.client_id, connection.own)
        if connection.mailbox is None:
            for each in list((getattr(session, "subscriptions", None) or {}).values()):
                self._fanout.subscribe(self._sessions.subscriber(session), checked(each, check=True))

    def _refresh_mailbox(self, mailbox: Mailbox) -> None:
        mailbox.rights = self._registry.rights(mailbox.owner, mailbox.client_id, mailbox.own)
        for each in mailbox.subscriptions.values():
            self._fanout.subscribe(mailbox, checked(each, check=True))  # type: ignore[arg-type]  # stands for its session

    def _enforce(self, ban: Ban) -> None:
        for session in list(self._sessions.live.values()):
            peer = session.request.peer.address.rpartition(":")[0].strip("[]")
            names = {"client": session.client_id, "user": session.state.principal, "address": peer}
            if names.get(ban.kind) == ban.value and (ban.until is None or ban.until > self._clock()):
                session.close(ADMINISTRATIVE, "banned")

    def control(self, order: Control) -> None:
        """An operator's order."""
        session = self._sessions.live.get(order.client_id)
        if order.verb in ("kick", "clear"):
            if session is not None:
                session.close(
                    USE_ANOTHER_SERVER if order.reference else ADMINISTRATIVE,
                    order.reason or "disconnected by an operator",
                    server_reference=order.reference,
                )
            mailbox = self._sessions.mailboxes.get(order.client_id)
            if order.verb == "clear" and mailbox is not None:
                self._sessions.end(mailbox)
            log.info("%s of %s by %s", order.verb, order.client_id, order.actor or "?")
        elif order.verb in ("tap", "tap.keep", "tap.stop"):
            self._taps.order(order)
        elif order.verb == "tell":
            self._telling.tell(order)
        else:
            log.warning("control %r is not known", order.verb)
