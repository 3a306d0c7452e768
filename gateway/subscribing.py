"""SUBSCRIBE and UNSUBSCRIBE: what may be subscribed to, from which moment on, and what is retained.

A SUBACK waits for a barrier of the delivery, so that nothing falls between (see `gateway.delivering.delivery`). Many
filters, and many retained messages, are dealt with in small steps (`chores`); the session isn't read from meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from gateway.chores import FEW, STEP, Chores
from gateway.counters import Counters
from gateway.delivering.delivery import Delivery
from gateway.delivering.joining import Joining
from gateway.delivering.retained import RetainedMessages
from gateway.moving.shares import Shares
from gateway.mqtt.fanout import Fanout, wants_retained
from gateway.mqtt.topics import split_share
from gateway.operations.systree import SysTree
from gateway.policy import Grant
from gateway.ports import Message, Receipt, Refused, Session, Subscription
from gateway.receipts import answer, follow, gather
from gateway.sessions.connected import Feed, Retained
from gateway.sessions.sessions import Sessions

NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E
NO_SUBSCRIPTION = 0x11
QUOTA_EXCEEDED = 0x97
MOST_GROUPS = 500  # share groups with members here: each is looked at twice a second
LONGEST_SHARED = 1_000  # characters of a shared filter: other gateways are told of each, every two seconds


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
        chores: Chores,
    ) -> None:
        self.sessions = sessions
        self.fanout = fanout
        self._retained = retained
        self.shares = shares
        self._counters = counters
        self._clock = clock
        self.delivery = delivery
        self._chores = chores
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
        receipt: Receipt[list[int]] = Receipt()
        self.work(session, self._granting(session, subscriptions, receipt), len(subscriptions))
        return receipt

    def work(self, session: Session, steps: Iterator[None], count: int) -> None:
        """Do this at once when it is for a few, else in steps."""
        if count > FEW:
            self._chores.add(session.request.peer.address.rpartition(":")[0], steps)
        else:
            for _ in steps:
                pass

    def _granting(
        self, session: Session, subscriptions: Sequence[Subscription], receipt: Receipt[list[int]]
    ) -> Iterator[None]:
        rights, asked = session.state.rights, session.state.asked
        codes: list[int] = []
        granted: list[Subscription] = []
        groups: set[str] = set()  # that are new with this packet
        for number, each in enumerate(subscriptions):
            if number % STEP == 0:
                if number:
                    yield
                if self.gone(session):  # at first, too: it may have waited for its turn
                    receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
                    return
            plain = split_share(each.filter)[1]
            grant = rights.subscribe(plain)
            if grant is Grant.DENIED or (asked is not None and not asked.get("subscribe", plain)):
                self._counters.denied_subscriptions += 1
                codes.append(NOT_AUTHORIZED)
                continue
            if each.filter.startswith("$share/") and not self._may_share(each.filter, groups):
                codes.append(QUOTA_EXCEEDED)
                continue
            codes.append(each.qos)
            granted.append(checked(each, check=grant is Grant.CHECKED))
        if not granted:
            receipt.settle(codes)
            return
        delivery = self.delivery()
        self.sessions.remember(session, granted)
        subscriber, now = self.sessions.subscriber(session), int(self._clock() * 1000)
        held = getattr(session, "subscriptions", None) or {}
        joining = [
            None if each.filter in held or each.filter.startswith("$share/") else Joining(subscriber, each, now)
            for each in granted
        ]
        delivery.joining.add(each for each in joining if each is not None)
        waiting = _Waiting(self, session, granted, codes, receipt, joining, rights)
        delivery.barrier().waiters.append(waiting)

    def _may_share(self, share_filter: str, new: set[str]) -> bool:
        """Whether there is room for the group."""
        if not self.fanout.members(share_filter):
            new.add(share_filter)
        return len(share_filter) <= LONGEST_SHARED and self.fanout.groups_here + len(new) <= MOST_GROUPS

    def gone(self, session: Session) -> bool:
        """Whether the session's connection has ended or was taken over."""
        return self.sessions.live.get(session.client_id) is not session

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """The SUBACK is written: retained messages are due."""
        connection, until = session.state, self._retained.changes
        entered, connection.entered = connection.entered or {}, None
        for each in subscriptions:
            known, newer = entered.get(each.filter, (False, ()))
            if wants_retained(each, known):
                if connection.feed is None:
                    connection.feed = Feed()
                connection.feed.waiting[each.filter] = self._found(session, each, newer, until)
        if connection.feed is not None:
            self.feed(session)

    def _found(
        self, session: Session, subscription: Subscription, newer: Collection[str], until: int
    ) -> Iterator[Retained | None]:
        """What a new subscription finds, with a None now and then. `newer`: topics of which it has more than that."""
        identifiers = () if subscription.identifier is None else (subscription.identifier,)
        for message in self._kept(subscription.filter, until):
            if message is None:
                yield None
            elif message.topic in newer or (subscription.no_local and message.sender == session.client_id):
                continue
            elif session.state.rights.may_receive(message.topic):
                yield message, min(message.qos, subscription.qos), identifiers

    def _kept(self, topic_filter: str, until: int) -> Iterator[Message | None]:
        if self.system is not None:
            yield from self.system.match(topic_filter)
        yield from self._retained.seek(topic_filter, self._clock(), until)

    def feed(self, session: Session) -> None:
        """Give retained messages while there is room; the first ones now."""
        feed = session.state.feed
        if feed is not None and not feed.giving:
            feed.giving = True
            steps = self._giving(session, feed)
            if next(steps, True) is None:
                self.work(session, steps, FEW + 1)

    def _giving(self, session: Session, feed: Feed) -> Iterator[None]:
        connection = session.state
        for number, each in enumerate(feed, 1):
            if number % STEP == 0:
                yield
            if connection.feed is not feed:
                return  # the connection has ended
            if each is None:
                continue
            message, qos, identifiers = each
            if not self._retained.current(message):
                continue  # what replaced it comes as a message of its own
            taker = connection.mailbox
            if taker is not None:
                taken = taker.offer(message, qos, True, identifiers)
            else:
                taken = (connection.gate or session).deliver(message, qos, True, identifiers)
            if not taken:
                feed.refused = each
                feed.giving = False
                return
        connection.feed = None

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        receipt: Receipt[list[int]] = Receipt()
        self.work(session, self._leaving(session, filters, receipt), len(filters))
        return receipt

    def _leaving(self, session: Session, filters: Sequence[str], receipt: Receipt[list[int]]) -> Iterator[None]:
        subscriber, feed = self.sessions.subscriber(session), session.state.feed
        codes = []
        for number, each in enumerate(filters, 1):
            if number % STEP == 0:
                yield
                if self.gone(session):
                    receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
                    return
            codes.append(0 if self.fanout.unsubscribe(subscriber, each) else NO_SUBSCRIPTION)
            if feed is not None:
                feed.waiting.pop(each, None)
        follow(answer(self.sessions.forget(session, filters), codes), receipt)


class _Waiting:
    """A SUBSCRIBE that waits for its barrier. `joining`: of each subscription that is new."""

    __slots__ = ("_codes", "_granted", "_joining", "_receipt", "_rights", "_session", "_subscribing")

    def __init__(
        self,
        subscribing: Subscribing,
        session: Session,
        granted: list[Subscription],
        codes: list[int],
        receipt: Receipt[list[int]],
        joining: list[Joining | None],
        rights: Any,
    ) -> None:
        self._subscribing = subscribing
        self._joining = joining
        self._session = session
        self._rights = rights
        self._granted = granted
        self._codes = codes
        self._receipt = receipt

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        if receipt.failure is not None:
            self._over(receipt.failure)
            return
        for each in self._joining:
            if each is not None:
                each.since = 0  # from now on all is theirs, whatever its time
        self._subscribing.work(self._session, self._entering(), len(self._granted))

    def _entering(self) -> Iterator[None]:
        """Into the tree, each at the moment at which it is no longer joining."""
        session, subscribing = self._session, self._subscribing
        subscriber, joining = subscribing.sessions.subscriber(session), subscribing.delivery().joining
        entered: dict[str, tuple[bool, Collection[str]]] = {}
        for number, (each, before) in enumerate(zip(self._granted, self._joining, strict=True)):
            if number % STEP == STEP - 1:
                yield
            if subscribing.gone(session):
                if session.state.mailbox is None:
                    subscribing.fanout.drop(subscriber, [each.filter for each in self._granted[:number]])
                self._over(Refused(TAKEN_OVER, "the session is gone"))
                return
            # what was granted meanwhile may be too wide by now
            entering = checked(each, check=True) if session.state.rights is not self._rights else each
            known = subscribing.fanout.subscribe(subscriber, entering)
            entered.setdefault(each.filter, (known, before.newer if before is not None else ()))
            if before is not None:
                joining.remove((before,))
                self._joining[number] = None
        session.state.entered = entered
        groups = [each.filter for each in self._granted if each.filter.startswith("$share/")]
        if groups:
            follow(answer(subscribing.shares.joined(groups), self._codes), self._receipt)
        else:
            self._receipt.settle(self._codes)

    def _over(self, failure: Exception) -> None:
        self._subscribing.delivery().joining.remove(each for each in self._joining if each is not None)
        self._receipt.fail(failure)


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
