"""SUBSCRIBE and UNSUBSCRIBE: what may be subscribed to, from which moment on, and what is retained.

A SUBACK waits for a barrier of the delivery, so that nothing falls between (see `gateway.delivering.delivery`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gateway.counters import Counters
from gateway.delivering.delivery import Delivery
from gateway.delivering.joining import Joining
from gateway.delivering.retained import RetainedMessages
from gateway.moving.shares import Shares
from gateway.mqtt.fanout import Fanout, wants_retained
from gateway.mqtt.topics import split_share
from gateway.operations.systree import SysTree
from gateway.policy import Grant
from gateway.ports import Message, Receipt, Refused, Session, Subscription, settled
from gateway.receipts import answer, follow, gather
from gateway.sessions.sessions import Sessions

NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E
NO_SUBSCRIPTION = 0x11


class Subscribing:
    """The subscribing part of the engine. `system` is the `$SYS` tree once there is one."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        fanout: Fanout,
        retained: RetainedMessages,
        shares: Shares,
        counters: Counters,
        clock: Callable[[], float],
        delivery: Callable[[], Delivery],
    ) -> None:
        self.sessions = sessions
        self.fanout = fanout
        self._retained = retained
        self.shares = shares
        self._counters = counters
        self._clock = clock
        self.delivery = delivery
        self.system: SysTree | None = None

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        asked = session.state.asked
        if asked is None:
            return self._subscribe(session, subscriptions)
        receipt: Receipt[list[int]] = Receipt()
        unknown = [each for each in subscriptions if asked.get("subscribe", split_share(each.filter)[1]) is None]
        gather(
            [asked.known("subscribe", split_share(each.filter)[1]) for each in unknown],
            lambda: follow(self._subscribe(session, subscriptions), receipt),
        )
        return receipt

    def _subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        rights, asked = session.state.rights, session.state.asked
        codes: list[int] = []
        granted: list[Subscription] = []
        for each in subscriptions:
            plain = split_share(each.filter)[1]
            grant = rights.subscribe(plain)
            if grant is Grant.DENIED or (asked is not None and not asked.get("subscribe", plain)):
                self._counters.denied_subscriptions += 1
                codes.append(NOT_AUTHORIZED)
                continue
            codes.append(each.qos)
            granted.append(checked(each, check=grant is Grant.CHECKED))
        if not granted:
            return settled(codes)
        delivery = self.delivery()
        self.sessions.remember(session, granted)
        receipt: Receipt[list[int]] = Receipt()
        subscriber, now = self.sessions.subscriber(session), int(self._clock() * 1000)
        held = getattr(session, "subscriptions", None) or {}
        joining = [
            Joining(subscriber, each, now)
            for each in granted
            if each.filter not in held and not each.filter.startswith("$share/")
        ]
        delivery.joining.add(joining)
        barrier = delivery.barrier()
        barrier.waiters.append(_Waiting(self, session, granted, codes, receipt, joining))
        return receipt

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """The SUBACK is written: retained messages are due."""
        connection, now = session.state, self._clock()
        known = connection.known or {}
        for each in subscriptions:
            if not wants_retained(each, known.pop(each.filter, False)):
                continue
            identifiers = () if each.identifier is None else (each.identifier,)
            for message in self._kept(each.filter, now):
                if each.no_local and message.sender == session.client_id:
                    continue
                if connection.rights.may_receive(message.topic):
                    if connection.feed is None:
                        connection.feed = []
                    connection.feed.append((message, min(message.qos, each.qos), identifiers))
        if connection.feed:
            self.feed(session)

    def _kept(self, topic_filter: str, now: float) -> Iterator[Message]:
        """What a new subscription finds."""
        if self.system is not None:
            yield from self.system.match(topic_filter)
        yield from self._retained.match(topic_filter, now)

    def feed(self, session: Session) -> None:
        """Give retained messages while there is room."""
        connection = session.state
        feed, connection.feed = connection.feed, None
        if not feed:
            return
        mailbox = connection.mailbox
        for number, (message, qos, identifiers) in enumerate(feed):
            if mailbox is not None:
                taken = mailbox.offer(message, qos, True, identifiers)
            else:
                taken = (connection.gate or session).deliver(message, qos, True, identifiers)
            if not taken:
                connection.feed = feed[number:]
                return
            self._counters.delivered += 1

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        subscriber = self.sessions.subscriber(session)
        codes = [0 if self.fanout.unsubscribe(subscriber, each) else NO_SUBSCRIPTION for each in filters]
        written = self.sessions.forget(session, filters)
        return answer(written, codes)


class _Waiting:
    """A SUBSCRIBE that waits for its barrier."""

    __slots__ = ("_codes", "_granted", "_joining", "_receipt", "_rights", "_session", "_subscribing")

    def __init__(
        self,
        subscribing: Subscribing,
        session: Session,
        granted: list[Subscription],
        codes: list[int],
        receipt: Receipt[list[int]],
        joining: list[Joining],
    ) -> None:
        self._subscribing = subscribing
        self._joining = joining
        self._session = session
        self._rights = session.state.rights
        self._granted = granted
        self._codes = codes
        self._receipt = receipt

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        session, subscribing = self._session, self._subscribing
        subscribing.delivery().joining.remove(self._joining)
        if receipt.failure is not None:
            self._receipt.fail(receipt.failure)
            return
        if subscribing.sessions.live.get(session.client_id) is not session:
            self._receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
            return
        subscriber = subscribing.sessions.subscriber(session)
        if session.state.rights is not self._rights:  # what was granted meanwhile may be too wide by now
            self._granted = [checked(each, check=True) for each in self._granted]
        connection = session.state
        if connection.known is None:
            connection.known = {}
        for each in self._granted:
            connection.known[each.filter] = subscribing.fanout.subscribe(subscriber, each)
        groups = [each.filter for each in self._granted if each.filter.startswith("$share/")]
        if groups:
            follow(answer(subscribing.shares.joined(groups), self._codes), self._receipt)
        else:
            self._receipt.settle(self._codes)


def checked(subscription: Subscription, *, check: bool) -> Subscription:
    """The same subscription; `check`: whether each delivery is asked for."""
    if subscription.check == check:
        return subscription
    return Subscription(
        filter=subscription.filter,
        qos=subscription.qos,
        no_local=subscription.no_local,
        retain_as_published=subscription.retain_as_published,
        retain_handling=subscription.retain_handling,
        identifier=subscription.identifier,
        check=check,
    )
