"""SUBSCRIBE and UNSUBSCRIBE: what may be subscribed to, from which moment on, and what is retained.

A SUBACK waits for a barrier of the delivery, so that nothing falls between (see `gateway.delivering.delivery`). Many
filters, and many retained messages, are dealt with in small steps (`chores`); the session isn't read from meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from gateway.chores import STEP, Chores
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
from gateway.sessions.connected import Feed, Retained
from gateway.sessions.sessions import Sessions

NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E
NO_SUBSCRIPTION = 0x11
QUOTA_EXCEEDED = 0x97
MOST_GROUPS = 500  # share groups with members here: each is looked at twice a second
STANDING = 64  # subscriptions of a session whose record is too long to be written at once: it has them all
EACH_STANDING = 16e-6  # seconds that its address waits for each of them: some 2 MB of records a second
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

    def work(self, session: Session, steps: Iterator[float | None]) -> None:
        """The first step now, what is left in turn with others'."""
        if next(steps, True) is None:
            self._chores.add(session.request.peer.address.rpartition(":")[0], steps)

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        receipt: Receipt[list[int]] = Receipt()
        begin = self._granting if session.state.asked is None else self._asking
        self.work(session, begin(session, subscriptions, receipt))
        return receipt

    def _asking(
        self, session: Session, subscriptions: Sequence[Subscription], receipt: Receipt[list[int]]
    ) -> Iterator[None]:
        """Topic plugins, before anything else."""
        asked, answers = session.state.asked, []
        for number, each in enumerate(subscriptions, 1):
            if number % STEP == 0:
                yield
            plain = split_share(each.filter)[1]
            if asked.get("subscribe", plain) is None:
                answers.append(asked.known("subscribe", plain))
        unknown = [each for each in answers if not each.settled]
        gather(unknown, lambda: self.work(session, self._granting(session, subscriptions, receipt)))

    def _granting(
        self, session: Session, subscriptions: Sequence[Subscription], receipt: Receipt[list[int]]
    ) -> Iterator[float | None]:
        rights, asked, joining = session.state.rights, session.state.asked, self.delivery().joining
        subscriber, now = self.sessions.subscriber(session), int(self._clock() * 1000)
        held = getattr(session, "subscriptions", None) or {}
        codes: list[int] = []
        granted: list[Subscription] = []
        new: list[Joining | None] = []  # of each that is granted
        groups: set[str] = set()  # that are new with this packet
        for number, each in enumerate(subscriptions):
            if number % STEP == 0:
                if number:
                    yield None
                if self.gone(session):  # at first, too: it may have waited for its turn
                    break
            shared, plain = each.filter.startswith("$share/"), split_share(each.filter)[1]
            grant = rights.subscribe(plain)
            if grant is Grant.DENIED or (asked is not None and not asked.get("subscribe", plain)):
                self._counters.denied_subscriptions += 1
                codes.append(NOT_AUTHORIZED)
                continue
            if shared and not self._may_share(each.filter, groups):
                codes.append(QUOTA_EXCEEDED)
                continue
            codes.append(each.qos)
            granted.append(checked(each, check=grant is Grant.CHECKED))
            joined = None if shared or each.filter in held else Joining(subscriber, granted[-1], now)
            if joined is not None:
                joining.add(joined)
            new.append(joined)
        if granted:
            yield from self._before_record(session)
        if self.gone(session):
            joining.remove(each for each in new if each is not None)
            receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
            return
        if not granted:
            receipt.settle(codes)
            return
        self.sessions.remember(session, granted)
        self.delivery().barrier().waiters.append(_Waiting(self, session, granted, codes, receipt, new, rights))

    def _before_record(self, session: Session) -> Iterator[float | None]:
        """A record has all subscriptions of its session, however few are new."""
        standing = self.sessions.standing(session)
        if standing > STANDING:
            yield None
            yield standing * EACH_STANDING

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
        due, connection.due = connection.due, None
        if due:
            if connection.feed is None:
                connection.feed = Feed(lambda each, newer, until: self._found(session, each, newer, until))
            connection.feed.waiting.update({each.filter: (each, newer, until) for each, newer in due})
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
            self.work(session, self._giving(session, feed))

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
        self.work(session, self._leaving(session, filters, receipt))
        return receipt

    def _leaving(self, session: Session, filters: Sequence[str], receipt: Receipt[list[int]]) -> Iterator[float | None]:
        subscriber, feed = self.sessions.subscriber(session), session.state.feed
        codes: list[int] = []
        for each in filters:
            if len(codes) % STEP == STEP - 1:
                yield None
                if self.gone(session):
                    break
            codes.append(0 if self.fanout.unsubscribe(subscriber, each) else NO_SUBSCRIPTION)
            if feed is not None:
                feed.waiting.pop(each, None)
        yield from self._before_record(session)
        forgotten = self.sessions.forget(session, filters[: len(codes)])
        if self.gone(session):
            receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
        else:
            follow(answer(forgotten, codes), receipt)


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
        self._subscribing.work(self._session, self._entering())

    def _entering(self) -> Iterator[None]:
        """Into the tree, each at the moment at which it is no longer joining."""
        session, subscribing = self._session, self._subscribing
        subscriber, joining = subscribing.sessions.subscriber(session), subscribing.delivery().joining
        due: list[tuple[Subscription, Collection[str]]] = []
        for number, (each, before) in enumerate(zip(self._granted, self._joining, strict=True)):
            if number % STEP == STEP - 1:
                yield
            if self._for_nobody():
                self._gone(number)
                return
            # what was granted meanwhile may be too wide by now
            entering = checked(each, check=True) if session.state.rights is not self._rights else each
            known = subscribing.fanout.subscribe(subscriber, entering)
            if wants_retained(each, known):
                due.append((each, before.newer if before is not None else ()))
            if before is not None:
                joining.remove((before,))
                self._joining[number] = None
        groups = [each.filter for each in self._granted if each.filter.startswith("$share/")]
        joined = subscribing.shares.joined(groups) if groups else settled()
        gather([] if joined.settled else [joined], lambda: self._entered(joined, due))

    def _for_nobody(self) -> bool:
        """Whether the session is over: one that stays has the subscriptions already, for its next connection."""
        session, mailbox = self._session, self._session.state.mailbox
        if mailbox is None:
            return self._subscribing.gone(session)
        return self._subscribing.sessions.mailboxes.get(session.client_id) is not mailbox

    def _entered(self, joined: Receipt[Any], due: list[tuple[Subscription, Collection[str]]]) -> None:
        """All are in the tree; they are the session's with the answer."""
        session, fanout = self._session, self._subscribing.fanout
        if self._subscribing.gone(session):
            self._gone(len(self._granted))
        elif joined.failure is not None:
            self._receipt.fail(joined.failure)
        else:
            if session.state.rights is not self._rights:  # the change passed by those that had entered by then
                for each in self._granted:
                    fanout.subscribe(self._subscribing.sessions.subscriber(session), checked(each, check=True))
            session.state.due = due
            self._receipt.settle(self._codes)

    def _gone(self, entered: int) -> None:
        """The session's connection ended when so many were in the tree."""
        if self._session.state.mailbox is None:
            subscriber = self._subscribing.sessions.subscriber(self._session)
            self._subscribing.fanout.drop(subscriber, [each.filter for each in self._granted[:entered]])
        self._over(Refused(TAKEN_OVER, "the session is gone"))

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
