"""An engine in memory: the whole port, nothing durable. Protocol tests and the foreign suites run on it.

With `manual` every publish, release and subscribe waits for `settle_all`, so that a test decides when something became
durable. Timers (will delay, session expiry) go through `later(seconds, call)`; `due(now)` runs them by hand.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.mqtt.fanout import Fanout, wants_retained
from gateway.mqtt.topics import Retained, matches, split_share
from gateway.ports import (
    OFFLINE_FOR_EVER,
    Challenge,
    ConnectRequest,
    Ending,
    Identity,
    InFlight,
    Limits,
    Message,
    Opened,
    PublishItem,
    Receipt,
    Refused,
    Session,
    SessionState,
    Subscription,
    Will,
    settled,
)


@dataclass
class MemoryTarget:
    topic: str
    refused: int = 0


@dataclass
class Kept:
    """A session without a connection."""

    state: SessionState
    expires_at: float


@dataclass
class Rules:
    """Deny lists of filters, for everybody; `users`: name → password, empty = anonymous is fine."""

    users: dict[str, bytes] = field(default_factory=dict)
    deny_publish: list[str] = field(default_factory=list)
    deny_subscribe: list[str] = field(default_factory=list)
    deny_delivery: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)


class MemoryEngine:
    def __init__(
        self,
        rules: Rules | None = None,
        *,
        manual: bool = False,
        clock: Callable[[], float] = time.time,
        later: Callable[[float, Callable[[], None]], Any] | None = None,
    ) -> None:
        self.epoch = 0
        self.congested = False
        self.rules = rules or Rules()
        self.manual = manual
        self.clock = clock
        self.published: list[tuple[str, str, bytes, int]] = []  # client id, topic, payload, flags
        self.keep_published = True
        self.released: list[tuple[str, int]] = []
        self.endings: list[tuple[str, Ending]] = []
        self.finishes: list[tuple[str, int, int]] = []
        self.drops: list[tuple[str, str]] = []
        self.live: dict[str, Session] = {}
        self.kept: dict[str, Kept] = {}
        self.open_receipts: list[tuple[Receipt[Any], Any]] = []
        self.retained: Retained[Message] = Retained()
        self.works: list[Iterator[None]] = []
        self._due: dict[str, list[tuple[Subscription, bool]]] = {}
        self._will_calls: dict[str, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._later = later or (lambda seconds, call: self._timers.append((self.clock() + seconds, call)))
        self.fanout = Fanout(self._may_read, self._overflow)

    # -- time ------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """Run the timers that are due by now."""
        ready = [entry for entry in self._timers if entry[0] <= now]
        self._timers = [entry for entry in self._timers if entry[0] > now]
        for _, call in ready:
            call()

    def _answer(self, value: Any = None) -> Receipt[Any]:
        if not self.manual:
            return settled(value)
        receipt: Receipt[Any] = Receipt()
        self.open_receipts.append((receipt, value))
        return receipt

    def settle_all(self) -> None:
        self.go_on()
        while self.open_receipts:
            receipt, value = self.open_receipts.pop(0)
            receipt.settle(value)
            self.go_on()

    # -- connecting ------------------------------------------------------------------------------------------------

    def authenticate(self, request: ConnectRequest) -> Receipt[Identity | Challenge]:
        receipt: Receipt[Identity | Challenge] = Receipt()
        if request.authentication_method is not None:
            if request.authentication_method != "X-ECHO":
                receipt.fail(Refused(0x8C, "unknown authentication method"))
            else:
                receipt.settle(Challenge(data=b"say it", exchange=(request.username, request.client_id)))
            return receipt
        users = self.rules.users
        if users and (
            request.username not in users
            or not hmac.compare_digest(
                hashlib.sha256(request.password or b"").digest(), hashlib.sha256(users[request.username]).digest()
            )
        ):
            receipt.fail(Refused(0x86, "wrong user name or password"))
            return receipt
        receipt.settle(
            Identity(name=request.username or request.client_id, username=request.username, limits=self.rules.limits)
        )
        return receipt

    def answer(self, exchange: Any, data: bytes) -> Receipt[Identity | Challenge]:
        receipt: Receipt[Identity | Challenge] = Receipt()
        username, client_id = exchange
        if data == b"more":
            receipt.settle(Challenge(data=b"and again", exchange=exchange))
        elif data == b"it":
            receipt.settle(
                Identity(
                    name=username or client_id,
                    username=username,
                    limits=self.rules.limits,
                    authentication_data=b"welcome",
                )
            )
        else:
            receipt.fail(Refused(0x87, "wrong answer"))
        return receipt

    def reauthenticate(self, session: Session, method: str, data: bytes) -> Receipt[Identity | Challenge]:
        return settled(Challenge(data=b"say it", exchange=(session.identity.username, session.client_id)))

    def open(self, session: Session) -> Receipt[Opened]:
        will = session.request.will
        if will is not None and self._denied(self.rules.deny_publish, will.topic):
            receipt: Receipt[Opened] = Receipt()
            receipt.fail(Refused(0x87, "the will may not be published"))
            return receipt
        client_id = session.client_id
        before = self.live.get(client_id)
        if before is not None:
            before.close(0x8E, "taken over")
        pending = self._will_calls.pop(client_id, None)
        kept = self.kept.pop(client_id, None)
        if kept is not None and kept.expires_at <= self.clock():
            kept = None
        if session.request.clean_start:
            if pending is not None:
                pending()
            kept = None
        self.live[client_id] = session
        if kept is not None:
            for subscription in kept.state.subscriptions:
                self.fanout.subscribe(session, subscription)
        return self._answer(Opened(present=kept is not None, state=kept.state if kept else None))

    def opened(self, session: Session) -> None:
        pass

    def closed(self, session: Session, ending: Ending) -> None:
        client_id = session.client_id
        self.endings.append((client_id, ending))
        self.fanout.drop(session, [subscription.filter for subscription in ending.state.subscriptions])
        if self.live.get(client_id) is session:
            del self.live[client_id]
        now = self.clock()
        expiry = ending.session_expiry
        if expiry:
            until = float("inf") if expiry == OFFLINE_FOR_EVER else now + expiry
            self.kept[client_id] = Kept(ending.state, until)
        will = session.request.will
        if will is None or not ending.will:
            return

        def fire() -> None:
            if self._will_calls.get(client_id) is fire:
                del self._will_calls[client_id]
            self._fire(client_id, will)

        delay = min(will.delay, expiry)
        if not delay:
            self._fire(client_id, will)
            return
        self._will_calls[client_id] = fire
        self._later(delay, lambda: fire() if self._will_calls.get(client_id) is fire else None)

    def _fire(self, client_id: str, will: Will) -> None:
        if self._denied(self.rules.deny_publish, will.topic):
            return
        self._spread(client_id, will.topic, will.payload, will.qos, will.retain, will.properties)

    # -- publishing ------------------------------------------------------------------------------------------------

    @staticmethod
    def _denied(filters: list[str], topic: str) -> bool:
        return any(matches(entry, topic) for entry in filters)

    def target(self, session: Session, topic: str) -> MemoryTarget:
        denied = topic.startswith("$") or self._denied(self.rules.deny_publish, topic)
        return MemoryTarget(topic, 0x87 if denied else 0)

    def refuse(self, session: Session, target: Any) -> None:
        pass

    def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        for target, payload, flags, _, properties in items:
            if self.keep_published:
                self.published.append((session.client_id, target.topic, payload, flags))
            self._spread(session.client_id, target.topic, payload, flags >> 1 & 3, bool(flags & 1), properties)
        return self._answer()

    def release(self, session: Session, packet_id: int) -> Receipt[Any]:
        self.released.append((session.client_id, packet_id))
        return self._answer()

    def _spread(self, sender: str, topic: str, payload: bytes, qos: int, retain: bool, properties: Any) -> None:
        expires = None
        if properties is not None and properties.message_expiry is not None:
            expires = self.clock() + properties.message_expiry
        message = Message(topic, payload, qos, retain, properties=properties, expires_at=expires, sender=sender)
        if retain:
            if payload:
                self.retained.set(topic, message)
            else:
                self.retained.remove(topic)
        self.fanout.deliver(message)
        for client_id, kept in self.kept.items():
            self._keep(client_id, kept, message)

    def _keep(self, client_id: str, kept: Kept, message: Message) -> None:
        found = [entry for entry in kept.state.subscriptions if matches(split_share(entry.filter)[1], message.topic)]
        found = [entry for entry in found if not (entry.no_local and message.sender == client_id)]
        if not found or kept.expires_at <= self.clock():
            return
        qos = min(message.qos, max(entry.qos for entry in found))
        if qos:
            identifiers = tuple(entry.identifier for entry in found if entry.identifier is not None)
            retain = message.retain and any(entry.retain_as_published for entry in found)
            kept.state.queue.append((message, qos, retain, identifiers))

    # -- subscribing -----------------------------------------------------------------------------------------------

    def work(self, session: Session, steps: Iterator[None]) -> None:
        if next(steps, True) is None:
            self.works.append(steps)
            if not self.manual:
                self.go_on()

    def go_on(self) -> None:
        """Do what is left of what sessions asked for."""
        while self.works:
            self.step()

    def step(self) -> None:
        steps = self.works.pop(0)
        if next(steps, True) is None:
            self.works.insert(0, steps)

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        codes = []
        due: list[tuple[Subscription, bool]] = []
        for subscription in subscriptions:
            plain = split_share(subscription.filter)[1]
            if plain in self.rules.deny_subscribe:
                codes.append(0x87)
                continue
            codes.append(subscription.qos)
            due.append((subscription, self.fanout.subscribe(session, subscription)))
        self._due.setdefault(session.client_id, []).extend(due)
        return self._answer(codes)

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        self._send_retained(session, self._due.pop(session.client_id, []))

    def _send_retained(self, session: Session, due: list[tuple[Subscription, bool]]) -> None:
        for subscription, known in due:
            if not wants_retained(subscription, known):
                continue
            identifiers = () if subscription.identifier is None else (subscription.identifier,)
            for message in list(self.retained.match(subscription.filter)):
                if message.expires_at is not None and message.expires_at <= self.clock():
                    continue
                if self._may_read(session, message.topic):
                    session.deliver(message, min(message.qos, subscription.qos), True, identifiers)

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        return self._answer([0 if self.fanout.unsubscribe(session, entry) else 0x11 for entry in filters])

    # -- delivering ------------------------------------------------------------------------------------------------

    def _may_read(self, session: Session, topic: str) -> bool:
        return not self._denied(self.rules.deny_delivery, topic)

    def _overflow(
        self, session: Session, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]
    ) -> None:
        self.drops.append((session.client_id, "no room"))

    def wants(self, session: Session) -> None:
        pass

    def sending(self, session: Session, packet_id: int, message: Message, qos: int) -> Receipt[Any] | None:
        return None

    def received(self, session: Session, packet_id: int, message: Message | None) -> Receipt[Any] | None:
        return None

    def dropped(self, session: Session, message: Message, why: str) -> None:
        self.drops.append((session.client_id, why))

    def finished(self, session: Session, packet_id: int, message: Message | None, code: int) -> None:
        self.finishes.append((session.client_id, packet_id, code))


__all__ = ["InFlight", "Kept", "MemoryEngine", "MemoryTarget", "Rules"]
