"""Downlink: records of a topic with a downlink route on their way to one device each, and what became of them.

The record goes into its device's mailbox like any message; a device that is away costs no attempts. Every change of a
command's state is a record in `__sluice_commands`, keyed by the place of the original: pending, then delivered, expired
or failed. A route without a client template publishes to whoever subscribed, and keeps no state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from broker.client import Record
from gateway import contract
from gateway.contract import COMMANDS, Command
from gateway.counters import Counters
from gateway.delivering.expiry import earlier, expires_at
from gateway.delivering.keeping import Keeping
from gateway.mqtt.fanout import Fanout
from gateway.ports import Message, Receipt
from gateway.publishing.traffic import Traffic
from gateway.registry import Registry
from gateway.routes import Downlink, Outgoing, outgoing
from gateway.sessions.sessions import Sessions

log = logging.getLogger("gateway.commands")

Write = Callable[[str, bytes | None, bytes | None], Receipt[Any]]


class Commands:
    """`take` for each downlink record; `done` for each message that a device is done with."""

    def __init__(
        self,
        sessions: Sessions,
        registry: Registry,
        fanout: Fanout,
        counters: Counters,
        write: Write,
        clock: Callable[[], float],
        keeping: Keeping,
        traffic: Traffic | None = None,
        expired: Callable[[str, Message], None] = lambda client_id, message: None,
    ) -> None:
        """`expired` is told of what expired before anybody took it."""
        self._sessions = sessions
        self._registry = registry
        self._fanout = fanout
        self._counters = counters
        self._traffic = Traffic() if traffic is None else traffic
        self._write = write
        self._clock = clock
        self.keeping = keeping
        self._expired = expired
        self._routes: dict[tuple[str, int, int], tuple[str, str, str]] = {}

    def arrived(self, outgoing: Outgoing, record: Record) -> None:
        """Take a record that is read in its turn."""
        if outgoing.retain:
            expires = _expiry(outgoing, record)
            if expires is None or expires > self._clock():
                origin = (record.topic, record.partition, record.offset)
                self.keeping.take(
                    Message(outgoing.topic, outgoing.payload, outgoing.qos, True, expires_at=expires, origin=origin)
                )
        self.take(outgoing, record)

    def take(self, outgoing: Outgoing, record: Record) -> None:
        """Send a record on its way."""
        now = self._clock()
        origin = (record.topic, record.partition, record.offset)
        expires = _expiry(outgoing, record)
        message = Message(
            outgoing.topic, outgoing.payload, outgoing.qos, outgoing.retain, expires_at=expires, origin=origin
        )
        if not outgoing.client_id:
            self._traffic.downlink(outgoing.route, "pending", len(outgoing.payload))
            self._fanout.deliver(message)
            return
        route = (outgoing.route, outgoing.client_id, outgoing.topic)
        if self._routes.get(origin) == route:
            return  # taken as it came, while what its session had missed is read again
        self._routes[origin] = route
        if not self._sessions.concerns(outgoing.client_id):
            del self._routes[origin]
            return
        self._traffic.downlink(outgoing.route, "pending", len(outgoing.payload))
        session = self._sessions.live.get(outgoing.client_id)
        mailbox = self._sessions.mailboxes.get(outgoing.client_id)
        if expires is not None and expires <= now:
            self._counters.expired += 1
            self._expired(outgoing.client_id, message)
            self._end(origin, "expired")
        elif session is None and mailbox is None:
            self._counters.undeliverable += 1
            self._end(origin, "failed", "the device is not connected and has no session")
        elif not (mailbox if mailbox is not None else session.state).rights.may_receive(  # type: ignore[union-attr]
            message.topic
        ):
            self._counters.denied_deliveries += 1
            self._end(origin, "failed", "the device may not receive this topic")
        else:
            self._note(origin, "pending")
            target: Any = mailbox
            if mailbox is None and session is not None:
                target = session.state.gate or session
            if not target.deliver(message, outgoing.qos, False, ()):
                self._counters.dropped_full += 1
                self._end(origin, "failed", "the device takes nothing more")
            elif not outgoing.qos:
                self._end(origin, "delivered" if session is not None else "failed", "" if session else "away, QoS 0")

    def missed(self, record: Record, whose: Callable[[str], bool]) -> bool:
        """Take a record that some sessions missed on their way to this gateway; False: it has no downlink route."""
        routes = self._registry.downlinks.get(record.topic)
        if routes is None:
            return False
        for route in routes:
            found = outgoing(
                route, key=record.key, value=record.value or b"", headers=record.headers, partition=record.partition
            )
            if isinstance(found, Outgoing) and found.client_id and whose(found.client_id):
                self.take(found, record)
        return True

    def done(self, client_id: str, message: Message | None, code: int = 0, why: str = "") -> None:
        """A device is done with a message: acknowledged (`code` < 0x80), or dropped (`why`)."""
        if not self._registry.downlinks or message is None or message.origin is None:
            return
        if message.origin not in self._routes:
            for route in self._registry.downlinks.get(message.origin[0], ()):
                if route.client_id:  # sent before a restart
                    self._routes[message.origin] = (route.name, client_id, message.topic)
                    break
            else:
                return
        if why == "expired":
            self._end(message.origin, "expired")
        elif why or code >= 0x80:
            self._end(message.origin, "failed", why or f"the device answered 0x{code:02x}")
        else:
            self._end(message.origin, "delivered")

    def route_of(self, message: Message) -> Downlink | None:
        """The downlink route that a message came by; None: it came from a device. Of several routes of one topic the
        first, when it is not known any more which it was (sent before a restart)."""
        origin = message.origin
        found = () if origin is None else self._registry.downlinks.get(origin[0], ())
        if origin is None or not found:
            return None
        name = self._routes.get(origin, ("", "", ""))[0]
        return next((route for route in found if route.name == name), found[0])

    def _note(self, origin: tuple[str, int, int], state: str, reason: str = "") -> None:
        route, client_id, topic = self._routes[origin]
        record = Command(
            route=route, client_id=client_id, mqtt_topic=topic, state=state, at=self._clock(), reason=reason
        )
        self._write(COMMANDS, contract.encode(record), "{}/{}/{}".format(*origin).encode())

    def _end(self, origin: tuple[str, int, int], state: str, reason: str = "") -> None:
        self._traffic.downlink(self._routes[origin][0], state)
        self._note(origin, state, reason)
        del self._routes[origin]


def _expiry(outgoing: Outgoing, record: Record) -> float | None:
    """Epoch seconds; None: never."""
    return earlier(record.timestamp / 1000.0 + outgoing.expiry if outgoing.expiry else None, expires_at(record))
