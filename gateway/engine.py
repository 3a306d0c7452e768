"""The durable side of the gateway: implements `gateway.ports.Engine` by its parts.

authentication decides who connects, sessions who holds a client id, uplink where messages go, delivery what subscribers
get, registry what is allowed. This module joins them and reacts to what changes in the registry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from broker.client import TopicPartition
from gateway.chores import Chores
from gateway.contract import GatewayStatus, Presence
from gateway.counters import Counters
from gateway.delivering.commands import Commands
from gateway.delivering.delivery import Delivery
from gateway.delivering.keeping import Keeping
from gateway.delivering.retained import RetainedMessages
from gateway.enforcing import Enforcing
from gateway.identity.asking import Gate, TopicAnswers
from gateway.identity.authentication import Authenticator
from gateway.identity.plugins import PluginHost
from gateway.moving.checkpoints import Checkpoints
from gateway.moving.cluster import GatewayCluster
from gateway.moving.moves import Moves
from gateway.moving.restoring import Restoring
from gateway.moving.shares import Shares
from gateway.mqtt.fanout import Fanout
from gateway.operations.tap import Taps
from gateway.operations.telling import Telling
from gateway.outcomes import Outcomes
from gateway.peers.claims import Claims
from gateway.peers.lease import Lease
from gateway.peers.presence import PresenceBook
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
from gateway.publishing.asked import publish_asked
from gateway.publishing.target import Target
from gateway.publishing.traffic import Traffic
from gateway.publishing.uplinks import Uplinks
from gateway.publishing.wills import Wills
from gateway.receipts import follow, gather, refused
from gateway.registry import Change, Registry, RoutesChanged
from gateway.sessions.connected import presence_of
from gateway.sessions.inbox import Inbox, Read, Row
from gateway.sessions.records import SessionRecords
from gateway.sessions.sessions import Sessions
from gateway.storage.exactly import Lanes
from gateway.storage.ticks import Ticks
from gateway.subscribing import Subscribing
from gateway.why import Why

log = logging.getLogger("gateway.engine")

NOT_AUTHORIZED = 0x87


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
        inboxes: int,
        cluster: Callable[[Claims, PresenceBook], GatewayCluster],
        lease: Lease,
        keep_expired: bool = False,
        plugins: PluginHost | None = None,
        levels: int = 2,
    ) -> None:
        """`row` and `read`: see `Inbox`. `inboxes`: the partitions of `__sluice_inbox`. `keep_expired`: see `Outcomes`.
        `levels`: how many topic levels the counters by prefix keep apart."""
        self.epoch = 0
        self.congested = False
        self.registry = registry
        self.counters = counters
        self.retained = retained
        self.plugins = plugins
        self.fanout = Fanout(self.may_read, lambda *what: self.outcomes.overflow(*what))
        traffic = Traffic(levels=levels)
        self.uplinks = Uplinks(
            ticks, lanes, registry, counters, clock=clock, wrote=wrote, reserve=reserve, traffic=traffic
        )
        self.uplinks.may_retain = retained.room
        self.delivery: Delivery | None = None
        self.inbox = Inbox(
            ticks=ticks,
            counters=counters,
            clock=clock,
            row=row,
            read=read,
            ended=lambda client_id, message, why: self.outcomes.ended(client_id, message, why),
            followed=lambda: keep_expired or registry.keeps_expired or bool(registry.downlinks),
            partitions=inboxes,
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
            behind=lambda: self.moves.arrivals.behind() | self.shares.behind(),
            sweep=lambda: self.commands.keeping.sweep(),
        )
        self.restoring = Restoring(
            gateway=name,
            sessions=self.sessions,
            moves=self.moves,
            inbox=self.inbox,
            shares=self.shares,
            fanout=self.fanout,
            wills=self.wills,
            claims=self.claims,
            book=self.presence,
            clock=clock,
        )

        def write(topic: str, value: bytes | None, key: bytes | None) -> Receipt[Any]:
            return ticks().write(topic, value, key)

        self.commands = Commands(
            self.sessions,
            registry,
            self.fanout,
            counters,
            write,
            clock,
            Keeping(retained, write, self.cluster.cares, clock),
            traffic,
            lambda client_id, message: self.outcomes.expired(client_id, message),
        )
        self._name = name
        self._authenticator = authenticator
        self._ticks = ticks
        self._clock = clock
        self._anonymous = anonymous
        self.listeners: tuple[str, ...] = ()
        self.sent: Callable[[], int] = lambda: 0  # PUBLISH packets, since the start
        self.slowed: Callable[[], Sequence[tuple[str, float, bool]]] = tuple
        self.taps = Taps(
            gateway=name,
            find=self.sessions.live.get,
            write=lambda topic, value, key: ticks().write(topic, value, key),
            clock=clock,
        )
        outcomes = self.outcomes = Outcomes(
            registry=registry,
            sessions=self.sessions,
            commands=self.commands,
            shares=self.shares,
            lease=lease,
            ticks=ticks,
            counters=counters,
            traffic=traffic,
            keep_expired=keep_expired,
        )
        # asked for every message that is delivered
        self.sending, self.received = outcomes.sending, outcomes.received
        self.dropped, self.finished = outcomes.dropped, outcomes.finished
        self.chores = chores = Chores(asyncio.get_running_loop().call_later)
        self.subscribing = Subscribing(
            sessions=self.sessions,
            fanout=self.fanout,
            retained=retained,
            shares=self.shares,
            counters=counters,
            clock=clock,
            delivery=self._delivered,
            chores=chores,
        )
        self.work = self.subscribing.work
        self.fanout.slowly = lambda steps: chores.add("", steps)
        self.enforcing = Enforcing(
            registry=registry,
            sessions=self.sessions,
            fanout=self.fanout,
            taps=self.taps,
            telling=Telling(
                gateway=name,
                live=self.sessions.live,
                mailboxes=self.sessions.mailboxes,
                oldest=self.inbox.oldest,
                write=lambda topic, value, key: ticks().write(topic, value, key),
                clock=clock,
            ),
            clock=clock,
        )

    def _positions(self) -> Mapping[TopicPartition, int]:
        return self.delivery.positions if self.delivery is not None else {}

    def _delivered(self) -> Delivery:
        assert self.delivery is not None
        return self.delivery

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
                receipt.fail(Refused(NOT_AUTHORIZED, "not authorised to publish the will", why=Why.WILL))
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
        begun = {each.message for each in ending.state.outbound if each.qos == 2 and each.message is not None}
        self.shares.closed(session.client_id, begun)

    def _presence(self, session: Session, online: bool, reason: str) -> Presence:
        return presence_of(session, gateway=self._name, online=online, reason=reason, now=self._clock())

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
            return self._publish_later(session, items)
        if session.state.asked is not None:
            return publish_asked(self.uplinks, session, items)
        return self.uplinks.publish(session, items)

    def _publish_later(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        """This process finds out what happened while it stood still. What the device sent may have been sent again to
        the gateway that replaced this one: then the session is closed by the time the lease is held."""
        receipt, epoch = Receipt[Any](), self.epoch

        def go_on() -> None:
            if self.sessions.live.get(session.client_id) is session and self.epoch == epoch:
                follow(self.publish(session, items), receipt)
            else:
                receipt.fail(NotAcknowledged("the gateway stood still, and things have changed since"))

        self.lease.when_held(go_on)
        return receipt

    def release(self, session: Session, packet_id: int) -> Receipt[Any]:
        return self.sessions.release_packet(session, packet_id)

    # --- subscribing

    def subscribe(self, session: Session, subscriptions: Sequence[Subscription]) -> Receipt[list[int]]:
        return self.subscribing.subscribe(session, subscriptions)

    def subscribed(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        self.subscribing.subscribed(session, subscriptions)

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> Receipt[list[int]]:
        return self.subscribing.unsubscribe(session, filters)

    # --- delivering

    def tell(self, messages: Iterable[Message]) -> None:
        """Give messages that were never in the log to whoever subscribed here."""
        for message in messages:
            self.fanout.deliver(message)

    def wants(self, session: Session) -> None:
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.feed()
        if session.state.feed:
            self.subscribing.feed(session)

    def may_read(self, session: Session, topic: str) -> bool:
        if session.state.rights.may_receive(topic):
            return True
        self.counters.denied_deliveries += 1
        return False

    # --- what changes

    def changed(self, change: Change) -> None:
        """The registry changed; connected devices feel it at once."""
        self.epoch += 1
        self.enforcing.changed(change)
        if isinstance(change, RoutesChanged) and self.delivery is not None:
            self.delivery.routes_changed()

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
            counters=self.counters.snapshot() | {"sent": self.sent()},
            listeners=self.listeners,
            anonymous=self._anonymous,
            stopped=self.stopping,
            shares=self.fanout.share_filters(),
            waiting=self._ticks().waiting,
            held_back=self.congested,
            slowed=tuple([network, round(wait, 1), dropped] for network, wait, dropped in self.slowed()),
        )
