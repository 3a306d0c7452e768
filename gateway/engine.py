"""The durable side of the gateway: implements `gateway.ports.Engine` by its parts.

authentication decides who connects, sessions who holds a client id, uplink where messages go, delivery what subscribers
get, registry what is allowed. This module joins them and reacts to what changes in the registry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from broker.client import TopicPartition
from gateway.asking import Gate, TopicAnswers
from gateway.authentication import Authenticator
from gateway.checkpoints import Checkpoints
from gateway.claims import Claims
from gateway.cluster import GatewayCluster
from gateway.commands import Commands
from gateway.connected import Connection
from gateway.contract import Ban, Control, GatewayStatus, Presence
from gateway.counters import Counters
from gateway.delivery import Delivery, Joining
from gateway.exactly import Lanes
from gateway.expiry import letter
from gateway.inbox import Inbox, Read, Row
from gateway.lease import Lease
from gateway.mailbox import EXPIRED, FULL, Mailbox
from gateway.moving import Moves
from gateway.mqtt.fanout import Fanout, wants_retained
from gateway.mqtt.topics import split_share
from gateway.plugins import PluginHost
from gateway.policy import Grant
from gateway.ports import (
    Challenge,
    ConnectRequest,
    Ending,
    Identity,
    Message,
    NotAcknowledged,
    Opened,
    PublishItem,
    Receipt,
    Refused,
    Session,
    Subscription,
    settled,
)
from gateway.presence import PresenceBook
from gateway.receipts import answer, follow, gather, refused
from gateway.records import SessionRecords
from gateway.registry import BanSet, Change, DeviceChanged, Registry, RightsChanged, RoutesChanged
from gateway.restoring import Restoring
from gateway.retained import RetainedMessages
from gateway.sessions import Sessions
from gateway.shares import Shares
from gateway.systree import SysTree
from gateway.tap import Taps
from gateway.ticks import Ticks
from gateway.traffic import Traffic
from gateway.uplink import Target, Uplinks
from gateway.wills import Wills

log = logging.getLogger("gateway.engine")

NOT_AUTHORIZED = 0x87
ADMINISTRATIVE = 0x98
NO_SUBSCRIPTION = 0x11


class GatewayEngine:
    """See the module."""

    def __init__(
        self,
        *,
        name: str,
        registry: Registry,
        authenticator: Authenticator,
        ticks: Callable[[], Ticks],
        lanes: Callable[[], Lanes],
        retained: RetainedMessages,
        counters: Counters,
        clock: Callable[[], float],
        wrote: Callable[[str], None],
        reserve: Callable[[str], None] = lambda topic: None,
        anonymous: bool,
        row: Row,
        read: Read,
        cluster: Callable[[Claims, PresenceBook], GatewayCluster],
        lease: Lease,
        keep_expired: bool = False,
        plugins: PluginHost | None = None,
        levels: int = 2,
    ) -> None:
        """`row` and `read`: see `Inbox`. `keep_expired`: messages that expire become dead letters.
        `levels`: how many topic levels the counters by prefix keep apart."""
        self.epoch = 0
        self.congested = False
        self.registry = registry
        self.counters = counters
        self.retained = retained
        self.plugins = plugins
        self.fanout = Fanout(self.may_read, self._overflow)
        traffic = Traffic(levels=levels)
        self.uplinks = Uplinks(
            ticks, lanes, registry, counters, clock=clock, wrote=wrote, reserve=reserve, traffic=traffic
        )
        self.delivery: Delivery | None = None
        self.inbox = Inbox(
            ticks=ticks,
            counters=counters,
            clock=clock,
            row=row,
            read=read,
            ended=self._ended,
            followed=lambda: keep_expired or bool(registry.downlinks),
            loop=asyncio.get_running_loop(),
        )
        self.lease = lease
        self.stopping = False
        self._started = clock()
        self.claims = Claims(name)
        self.presence = PresenceBook(
            name,
            self.claims,
            lambda topic, value, key, headers: ticks().write(topic, value, key, headers),
            self.status,
            started=self._started,
        )
        self.cluster = cluster(self.claims, self.presence)
        self.wills = Wills(registry, self.uplinks, counters, lease.when_held)
        records = SessionRecords(name, registry, self.inbox, ticks, self.wills)
        self.sessions = Sessions(
            gateway=name,
            registry=registry,
            fanout=self.fanout,
            counters=counters,
            clock=clock,
            inbox=self.inbox,
            records=records,
            wills=self.wills,
            claims=self.claims,
            book=self.presence,
            presence=self._presence,
            held=lease.held,
            cares=self.cluster.cares,
            alone=self.cluster.alone,
        )
        self.moves = Moves(
            gateway=name,
            sessions=self.sessions,
            inbox=self.inbox,
            records=records,
            wills=self.wills,
            claims=self.claims,
            book=self.presence,
            cluster=self.cluster,
            clock=clock,
            positions=self._positions,
            rows=self.cluster.rows,
            held=lease.held,
            checkpointed=lambda: self.checkpoints.written,
        )
        self.sessions.arrivals = self.moves.arrivals
        self.shares = Shares(
            gateway=name,
            gateways=lambda: self.cluster.gateways,
            fanout=self.fanout,
            claims=self.claims,
            book=self.presence,
            records=records,
            cluster=self.cluster,
            positions=self._positions,
            clock=clock,
            held=lease.held,
        )
        self.checkpoints = Checkpoints(
            gateway=name,
            sessions=self.sessions,
            inbox=self.inbox,
            ticks=ticks,
            clock=clock,
            positions=self._positions,
            held=lease.held,
            behind=self.shares.behind,
        )
        self.restoring = Restoring(
            gateway=name,
            sessions=self.sessions,
            arrivals=self.moves.arrivals,
            inbox=self.inbox,
            shares=self.shares,
            fanout=self.fanout,
            wills=self.wills,
            claims=self.claims,
            book=self.presence,
            clock=clock,
        )
        self.commands = Commands(
            self.sessions,
            registry,
            self.fanout,
            counters,
            lambda topic, value, key: ticks().write(topic, value, key),
            clock,
            traffic,
            self._expired,
        )
        self._name = name
        self._authenticator = authenticator
        self._ticks = ticks
        self._clock = clock
        self._anonymous = anonymous
        self._keep_expired = keep_expired
        self.listeners: tuple[str, ...] = ()
        self.taps = Taps(
            gateway=name,
            find=self.sessions.live.get,
            write=lambda topic, value, key: ticks().write(topic, value, key),
            clock=clock,
        )
        self.system: SysTree | None = None

    def _positions(self) -> Mapping[TopicPartition, int]:
        return self.delivery.tail.positions if self.delivery is not None else {}

    # --- connecting

    def authenticate(self, request: ConnectRequest) -> Receipt[Identity | Challenge]:
        return self._authenticator.authenticate(request)

    def answer(self, exchange: Any, data: bytes) -> Receipt[Identity | Challenge]:
        return self._authenticator.answer(exchange, data)

    def reauthenticate(self, session: Session, method: str, data: bytes) -> Receipt[Identity | Challenge]:
        try:
            return settled(self._authenticator.begin(session.request, method, data))
        except Refused as refusal:
            return refused(refusal)

    def open(self, session: Session) -> Receipt[Opened]:
        plugins, request = self.plugins, session.request
        if plugins is None or not plugins.filters_topics:
            return self.sessions.open(session)
        seen = plugins.session(request)
        asked = TopicAnswers(lambda action, topic: plugins.may(seen, action, topic))
        receipt: Receipt[Opened] = Receipt()

        def decide() -> None:
            if request.will is not None and not asked.get("publish", request.will.topic):
                self.counters.denied += 1
                receipt.fail(Refused(NOT_AUTHORIZED, "not authorised to publish the will"))
                return
            opened = self.sessions.open(session)
            if session.state is not None:
                session.state.asked = asked
                session.state.gate = Gate(session, asked, self._delivery_denied)
            follow(opened, receipt)

        gather([asked.known("publish", request.will.topic)] if request.will is not None else [], decide)
        return receipt

    def _delivery_denied(self) -> None:
        self.counters.denied_deliveries += 1

    def opened(self, session: Session) -> None:
        if self.taps.taps:
            self.taps.opened(session)  # type: ignore[arg-type]  # only real sessions are tapped
        if session.state.mailbox is not None:
            session.state.mailbox.feed()  # what arrived while the CONNACK was under way

    def closed(self, session: Session, ending: Ending) -> None:
        if self.taps.taps:
            self.taps.closed(session, ending.reason)  # type: ignore[arg-type]  # as above
        if self.sessions.live.get(session.client_id) is session:
            self.presence.note(self._presence(session, False, ending.reason))
        self.sessions.closed(session, ending)
        self.shares.closed(session.client_id)

    def _presence(self, session: Session, online: bool, reason: str) -> Presence:
        request, connection = session.request, session.state
        return Presence(
            client_id=session.client_id,
            online=online,
            since=connection.since if online else self._clock(),
            gateway=self._name,
            address=request.peer.address,
            protocol=request.protocol,
            principal=connection.principal,
            username=session.identity.username or "",
            keep_alive=request.keep_alive,
            clean=not session.durable,
            listener=request.peer.listener,
            tls=request.peer.tls,
            reason=reason,
            subscriptions=len(getattr(session, "subscriptions", None) or ()),
        )

    # --- publishing

    def target(self, session: Session, topic: str) -> Target:
        target = self.uplinks.target(session, topic)
        if session.state.asked is not None and session.state.asked.get("publish", target.mqtt_topic) is False:
            target.refused = NOT_AUTHORIZED
        return target

    def refuse(self, session: Session, target: Any) -> None:
        self.uplinks.refuse(target)

    def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        if not self.lease.held():
            # what it sends may have been sent again to the gateway that replaced this one
            return refused(NotAcknowledged("the gateway finds out what happened while it stood still"))
        if session.state.asked is not None:
            return self._publish_asked(session, items)
        return self.uplinks.publish(session, items)

    def _publish_asked(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        """Publish once the topic plugins have answered, in order; what they refuse is dropped and counted."""
        connection = session.state
        topics = dict.fromkeys(item[0].mqtt_topic for item in items)
        waiting = [
            connection.asked.known("publish", topic)
            for topic in topics
            if connection.asked.get("publish", topic) is None
        ]
        if connection.last is not None and not connection.last.settled:
            waiting.append(connection.last)

        def publish() -> Receipt[Any]:
            allowed = [item for item in items if connection.asked.get("publish", item[0].mqtt_topic)]
            for target, *_ in (item for item in items if item not in allowed):
                self.uplinks.refuse(target)
            return self.uplinks.publish(session, allowed) if allowed else settled()

        if not waiting:
            return publish()
        receipt: Receipt[Any] = Receipt()
        connection.last = submitted = Receipt[Any]()

        def go() -> None:
            follow(publish(), receipt)
            submitted.settle()

        gather(waiting, go)
        return receipt

    def release(self, session: Session, packet_id: int) -> Receipt[Any]:
        return self.sessions.release_packet(session, packet_id)

    # --- subscribing

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
                self.counters.denied_subscriptions += 1
                codes.append(NOT_AUTHORIZED)
                continue
            codes.append(each.qos)
            granted.append(_checked(each, check=grant is Grant.CHECKED))
        if not granted:
            return settled(codes)
        assert self.delivery is not None
        self.sessions.remember(session, granted)
        receipt: Receipt[list[int]] = Receipt()
        subscriber, now = self.sessions.subscriber(session), int(self._clock() * 1000)
        held = getattr(session, "subscriptions", None) or {}
        joining = [
            Joining(subscriber, each, now)
            for each in granted
            if each.filter not in held and not each.filter.startswith("$share/")
        ]
        self.delivery.joining += joining
        barrier = self.delivery.barrier()
        barrier.waiters.append(_Subscribing(self, session, granted, codes, receipt, joining))
        return receipt

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """The SUBACK is written: retained messages are due."""
        connection, now = session.state, self._clock()
        for each in subscriptions:
            if not wants_retained(each, connection.known.pop(each.filter, False)):
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
            self._feed(session)

    def _kept(self, topic_filter: str, now: float) -> Iterator[Message]:
        """What a new subscription finds."""
        if self.system is not None:
            yield from self.system.match(topic_filter)
        yield from self.retained.match(topic_filter, now)

    def tell(self, messages: Iterable[Message]) -> None:
        """Give messages that were never in the log to whoever subscribed here."""
        for message in messages:
            self.fanout.deliver(message)

    def _feed(self, session: Session) -> None:
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
            self.counters.delivered += 1

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        subscriber = self.sessions.subscriber(session)
        codes = [0 if self.fanout.unsubscribe(subscriber, each) else NO_SUBSCRIPTION for each in filters]
        written = self.sessions.forget(session, filters)
        return answer(written, codes)

    # --- delivering

    def wants(self, session: Session) -> None:
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.feed()
        if session.state.feed:
            self._feed(session)

    def sending(self, session: Session, packet_id: int, message: Message, qos: int) -> Receipt[Any] | None:
        mailbox = session.state.mailbox
        if mailbox is None:
            return None
        if not self.lease.held():
            return self._later(lambda: self.sending(session, packet_id, message, qos))
        entry = mailbox.sent(message, packet_id)
        return None if entry is None else self.sessions.store_entry(mailbox, entry)

    def received(self, session: Session, packet_id: int, message: Message | None) -> Receipt[Any] | None:
        mailbox = session.state.mailbox
        if mailbox is not None and not self.lease.held():
            return self._later(lambda: self.received(session, packet_id, message))
        entry = mailbox.received(message, packet_id) if mailbox is not None else None
        if mailbox is None or entry is None:
            return None
        return self.sessions.store_entry(mailbox, entry)

    def _later(self, call: Callable[[], Receipt[Any] | None]) -> Receipt[Any]:
        """Do it when the lease is held again; a session that was replaced meanwhile is closed by then."""
        receipt: Receipt[Any] = Receipt()
        self.lease.when_held(lambda: follow(call() or settled(), receipt))
        return receipt

    def _ended(self, client_id: str, message: Message, why: str) -> None:
        """A session will never get this."""
        if why == EXPIRED:
            self._expired(client_id, message)
        if why in (EXPIRED, FULL):
            self.uplinks.traffic.not_delivered(message.topic, why if why == EXPIRED else "dropped")
        self.commands.done(client_id, message, why=why)

    def _expired(self, client_id: str, message: Message) -> None:
        if self._keep_expired and message.qos:
            self._ticks().write(*letter(message, client_id))

    def dropped(self, session: Session, message: Message, why: str) -> None:
        if why == "expired":
            self._expired(session.client_id, message)
            self.counters.expired += 1
            session.state.expired += 1
            self.uplinks.traffic.not_delivered(message.topic, why)
        self.commands.done(session.client_id, message, why=why)
        self.shares.finished(session.client_id, message)
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.finished(message, 0)

    def finished(self, session: Session, packet_id: int, message: Message | None, code: int) -> None:
        if not self.lease.held():
            self.lease.when_held(lambda: self.finished(session, packet_id, message, code))
            return
        self.commands.done(session.client_id, message, code)
        self.shares.finished(session.client_id, message)
        mailbox = session.state.mailbox
        if mailbox is not None and session.client_id in self.sessions.mailboxes:  # it may have gone elsewhere
            entry = mailbox.finished(message, packet_id)
            if entry is not None:
                self.sessions.store_entry(mailbox, entry)

    def may_read(self, session: Session, topic: str) -> bool:
        if session.state.rights.may_receive(topic):
            return True
        self.counters.denied_deliveries += 1
        return False

    def _overflow(
        self, session: Session, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]
    ) -> None:
        self.counters.dropped_full += 1
        self.uplinks.traffic.not_delivered(message.topic, "full")
        if isinstance(session.state, Connection):
            session.state.overflowed += 1

    # --- what changes

    def changed(self, change: Change) -> None:
        """The registry changed; connected devices feel it at once."""
        self.epoch += 1
        if isinstance(change, RightsChanged):
            for session in list(self.sessions.live.values()):
                self._refresh_rights(session)
            for mailbox in self.sessions.mailboxes.values():
                self._refresh_mailbox(mailbox)
        elif isinstance(change, DeviceChanged):
            for session in list(self.sessions.live.values()):
                if session.state.principal != change.name:
                    continue
                if change.revoked:
                    session.close(ADMINISTRATIVE, "the device's access was changed")
                else:
                    self._refresh_rights(session)
            for mailbox in self.sessions.mailboxes.values():
                if mailbox.owner == change.name:
                    self._refresh_mailbox(mailbox)
        elif isinstance(change, BanSet):
            self._enforce(change.ban)
        elif isinstance(change, RoutesChanged) and self.delivery is not None:
            self.delivery.routes_changed()

    def _refresh_rights(self, session: Session) -> None:
        """From now on every delivery is asked for: a filter granted under the old rules may be too wide."""
        connection = session.state
        connection.rights = self.registry.rights(connection.principal, session.client_id, connection.own)
        if connection.mailbox is None:
            for each in list((getattr(session, "subscriptions", None) or {}).values()):
                self.fanout.subscribe(self.sessions.subscriber(session), _checked(each, check=True))

    def _refresh_mailbox(self, mailbox: Mailbox) -> None:
        mailbox.rights = self.registry.rights(mailbox.owner, mailbox.client_id, mailbox.own)
        for each in mailbox.subscriptions.values():
            self.fanout.subscribe(mailbox, _checked(each, check=True))  # type: ignore[arg-type]  # stands for its session

    def _enforce(self, ban: Ban) -> None:
        for session in list(self.sessions.live.values()):
            peer = session.request.peer.address.rpartition(":")[0].strip("[]")
            names = {"client": session.client_id, "user": session.state.principal, "address": peer}
            if names.get(ban.kind) == ban.value and (ban.until is None or ban.until > self._clock()):
                session.close(ADMINISTRATIVE, "banned")

    def control(self, order: Control) -> None:
        """An operator's order."""
        session = self.sessions.live.get(order.client_id)
        if order.verb in ("kick", "clear"):
            if session is not None:
                session.close(ADMINISTRATIVE, order.reason or "disconnected by an operator")
            mailbox = self.sessions.mailboxes.get(order.client_id)
            if order.verb == "clear" and mailbox is not None:
                self.sessions.discard(mailbox)
            log.info("%s of %s by %s", order.verb, order.client_id, order.actor or "?")
        elif order.verb in ("tap", "tap.keep", "tap.stop"):
            self.taps.order(order)
        else:
            log.warning("control %r is not known", order.verb)

    def others_changed(self) -> None:
        """A gateway came or went."""
        self.moves.arrivals.changed()
        self.shares.arrivals.changed()

    def status(self) -> GatewayStatus:
        return GatewayStatus(
            gateway=self._name,
            at=self._clock(),
            started=self._started,
            connections=len(self.sessions.live),
            sessions=len(self.sessions.mailboxes),
            subscriptions=self.fanout.count,
            retained=self.retained.count,
            counters=self.counters.snapshot(),
            listeners=self.listeners,
            anonymous=self._anonymous,
            stopped=self.stopping,
            shares=self.fanout.share_filters(),
        )


class _Subscribing:
    """A SUBSCRIBE that waits for its barrier."""

    __slots__ = ("_codes", "_engine", "_granted", "_joining", "_receipt", "_session")

    def __init__(
        self,
        engine: GatewayEngine,
        session: Session,
        granted: list[Subscription],
        codes: list[int],
        receipt: Receipt[list[int]],
        joining: list[Joining],
    ) -> None:
        self._engine = engine
        self._joining = joining
        self._session = session
        self._granted = granted
        self._codes = codes
        self._receipt = receipt

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        session, engine = self._session, self._engine
        assert engine.delivery is not None
        for joining in self._joining:
            engine.delivery.joining.remove(joining)
        if receipt.failure is not None:
            self._receipt.fail(receipt.failure)
            return
        if engine.sessions.live.get(session.client_id) is not session:
            self._receipt.fail(Refused(TAKEN_OVER, "the session is gone"))
            return
        subscriber = engine.sessions.subscriber(session)
        for each in self._granted:
            session.state.known[each.filter] = engine.fanout.subscribe(subscriber, each)
        groups = [each.filter for each in self._granted if each.filter.startswith("$share/")]
        if groups:
            follow(answer(engine.shares.joined(groups), self._codes), self._receipt)
        else:
            self._receipt.settle(self._codes)


TAKEN_OVER = 0x8E


def _checked(subscription: Subscription, *, check: bool) -> Subscription:
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
