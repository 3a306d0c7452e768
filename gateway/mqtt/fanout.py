"""From one message to the connected sessions that subscribed: the live subscriptions and the rules of delivery.

A session with several matching filters gets the message once, with the highest of their QoS and all their
identifiers (MQTT-3.3.4-2, -3). A shared subscription's message goes to one member: in turn to those that it can leave
for at once, else to one where it waits for room, and to one whose device is away only when no device is there. Rights
are asked per delivery where a subscription says `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Protocol

from gateway.mqtt.topics import Subscriptions, split_share
from gateway.ports import Message, Session, Subscription

MayRead = Callable[[Session, str], bool]
Overflow = Callable[[Session, Message, int, bool, tuple[int, ...]], None]
DROPPED_AT_ONCE = 16


class Groups(Protocol):
    """Who knows which shared messages are given to members here."""

    def admits(self, share_filter: str, message: Message) -> bool: ...

    def gave(self, share_filter: str, session: Any, message: Message, qos: int) -> None: ...

    def finished(self, client_id: str, message: Message) -> None: ...

    def emptied(self, share_filter: str) -> None: ...


class Share:
    """One share group's subscriptions with one filter."""

    __slots__ = ("filter", "members", "turn")

    def __init__(self, share_filter: str) -> None:
        self.filter = share_filter
        self.members: dict[Session, Subscription] = {}
        self.turn = 0


class Fanout:
    """`may_read(session, topic)` decides checked deliveries; `overflow` hears of what a session had no room for."""

    __slots__ = ("_gone", "_may_read", "_overflow", "_plain", "_shared", "_shares", "groups", "slowly", "version")

    def __init__(self, may_read: MayRead, overflow: Overflow) -> None:
        self._may_read = may_read
        self.slowly: Callable[[Iterator[None]], None] | None = None  # takes long work; None: it is done at once
        self._gone: set[Session] = set()  # who gets nothing any more, with filters that are still to be taken out
        self.groups: Groups | None = None  # None: all are this gateway's
        self._overflow = overflow
        self._plain: Subscriptions[Session, Subscription] = Subscriptions()
        self._shared: Subscriptions[Share, None] = Subscriptions()
        self._shares: dict[str, Share] = {}  # by the whole $share/... filter
        self.version = 0  # rises with every change

    @property
    def count(self) -> int:
        return self._plain.count + sum(len(share.members) for share in self._shares.values())

    def subscribe(self, session: Session, subscription: Subscription) -> bool:
        """Add or replace; True when the session had this very filter before."""
        self.version += 1
        group, plain = split_share(subscription.filter)
        if group is None:
            return self._plain.add(plain, session, subscription)
        share = self._shares.get(subscription.filter)
        if share is None:
            share = self._shares[subscription.filter] = Share(subscription.filter)
            self._shared.add(plain, share, None)
        known = session in share.members
        share.members[session] = subscription
        return known

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """True when the session had this filter."""
        self.version += 1
        group, plain = split_share(topic_filter)
        if group is None:
            return self._plain.remove(plain, session)
        share = self._shares.get(topic_filter)
        if share is None or share.members.pop(session, None) is None:
            return False
        if not share.members:
            del self._shares[topic_filter]
            if self.groups is not None:
                self.groups.emptied(topic_filter)
            self._shared.remove(plain, share)
        return True

    def drop(self, session: Session, filters: Iterable[str]) -> None:
        """Forget a session that had these filters, for good."""
        filters = list(filters)
        if self.slowly is None or len(filters) <= DROPPED_AT_ONCE:
            for topic_filter in filters:
                self.unsubscribe(session, topic_filter)
        else:
            self._gone.add(session)
            self.slowly(self._dropping(session, filters))

    def _dropping(self, session: Session, filters: list[str]) -> Iterator[None]:
        for number, topic_filter in enumerate(filters, 1):
            self.unsubscribe(session, topic_filter)
            if number % DROPPED_AT_ONCE == 0:
                yield
        self._gone.discard(session)

    def members(self, share_filter: str) -> dict[Session, Subscription]:
        """Who is in a share group here, by the whole `$share/...` filter."""
        share = self._shares.get(share_filter)
        return share.members if share is not None else {}

    @property
    def groups_here(self) -> int:
        """How many share groups have members here."""
        return len(self._shares)

    def share_filters(self) -> tuple[str, ...]:
        """The share groups with members here, by their whole filter."""
        return tuple(sorted(self._shares))

    def deliver_to_group(self, share_filter: str, message: Message) -> bool:
        """Give a message to one member of a share group; False: nobody took it."""
        share = self._shares.get(share_filter)
        return share is not None and self.deliver_shared(share, message)

    def heard(self, topic: str) -> bool:
        """Whether anybody subscribed to it."""
        return bool(self._plain.match(topic) or (self._shared.count and self._shared.match(topic)))

    def deliver(self, message: Message, *, shared: bool = True) -> int:
        """Give the message to every subscriber it matches; how many took it.

        `shared` False leaves share groups out (another gateway chose for them).
        """
        reached = 0
        found = self._plain.match(message.topic)
        if len(found) == 1:
            for session, subscription in list(found[0].items()):
                identifier = subscription.identifier
                identifiers = () if identifier is None else (identifier,)
                retain = message.retain and subscription.retain_as_published
                reached += self._give(session, message, subscription, subscription.qos, retain, identifiers)
        elif found:
            reached = self._merged(message, found)
        if shared and self._shared.count:
            for shares in self._shared.match(message.topic):
                for share in list(shares):
                    if self.groups is None or self.groups.admits(share.filter, message):
                        # one client may get several copies: which of them it has finished, the object tells
                        reached += self.deliver_shared(share, message.copy() if reached else message)
        return reached

    def _merged(self, message: Message, found: list[dict[Session, Subscription]]) -> int:
        wanted: dict[Session, list[Subscription]] = {}
        for subscribers in found:
            for session, subscription in subscribers.items():
                if not (subscription.no_local and session.client_id == message.sender):
                    wanted.setdefault(session, []).append(subscription)
        reached = 0
        for session, subscriptions in wanted.items():
            qos = max(subscription.qos for subscription in subscriptions)
            retain = message.retain and any(entry.retain_as_published for entry in subscriptions)
            identifiers = tuple(entry.identifier for entry in subscriptions if entry.identifier is not None)
            strictest = next((entry for entry in subscriptions if entry.check), subscriptions[0])
            reached += self._give(session, message, strictest, qos, retain, identifiers)
        return reached

    def _give(
        self,
        session: Session,
        message: Message,
        subscription: Subscription,
        granted: int,
        retain: bool,
        identifiers: tuple[int, ...],
    ) -> bool:
        if subscription.no_local and session.client_id == message.sender:
            return False
        if self._gone and session in self._gone:
            return False
        if subscription.check and not self._may_read(session, message.topic):
            return False
        qos = message.qos if message.qos < granted else granted
        if session.deliver(message, qos, retain, identifiers):
            return True
        self._overflow(session, message, qos, retain, identifiers)
        return False

    def deliver_shared(self, share: Share, message: Message) -> bool:
        """Give the message to the next member that may have it and is nearest to taking it; the last resort is
        `overflow`."""
        waiting: tuple[Session, int, bool, tuple[int, ...]] | None = None
        for place, session, subscription in self._in_turn(share, message):
            identifiers: tuple[int, ...] = ()
            if subscription.identifier is not None:
                identifiers = (subscription.identifier,)
            qos = min(message.qos, subscription.qos)
            retain = message.retain and subscription.retain_as_published
            if self.groups is not None:  # before: it may be dropped, as expired, while it is given
                self.groups.gave(share.filter, session, message, qos)
            if session.deliver(message, qos, retain, identifiers):
                share.turn = place + 1
                return True
            if self.groups is not None:
                self.groups.finished(session.client_id, message)
            waiting = waiting or (session, qos, retain, identifiers)
        if waiting is not None:
            session, qos, retain, identifiers = waiting
            self._overflow(session, message, qos, retain, identifiers)
        return False

    def _in_turn(self, share: Share, message: Message) -> Iterator[tuple[int, Session, Subscription]]:
        """The members that may have it, each with its place: those it can leave for at once, from whose turn it is on,
        and then the others, the nearest first."""
        members = list(share.members.items())
        farther: list[tuple[int, int, Session, Subscription]] = []
        for step in range(len(members)):
            place = (share.turn + step) % len(members)
            session, subscription = members[place]
            if subscription.check and not self._may_read(session, message.topic):
                continue
            if session in self._gone:
                continue
            distance = session.distance
            if distance:
                farther.append((distance, place, session, subscription))
            else:
                yield place, session, subscription
        for _, place, session, subscription in sorted(farther, key=itemgetter(0)):
            yield place, session, subscription


def wants_retained(subscription: Subscription, known: bool) -> bool:
    """Whether retained messages are due after a SUBSCRIBE (3.8.3.1); never for shared subscriptions (4.8.2)."""
    if subscription.filter.startswith("$share/"):
        return False
    return subscription.retain_handling == 0 or (subscription.retain_handling == 1 and not known)
