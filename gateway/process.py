"""One gateway process put together: what depends on what, in which order it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from broker.client import AsyncAdmin, Consumer, Failure, Producer, Writer
from broker.client import Settings as ClusterSettings
from broker.client.errors import ClientError
from gateway.applying import Applying
from gateway.config import Settings
from gateway.contract import INBOX, SESSIONS
from gateway.counters import Counters
from gateway.delivering.delivery import Delivery
from gateway.delivering.retained import RetainedMessages
from gateway.engine import GatewayEngine
from gateway.identity.authentication import Authenticator, Verifier
from gateway.identity.jwt import TokenSettings, TokenVerifier
from gateway.identity.plugins import PluginHost
from gateway.moving.cluster import GatewayCluster
from gateway.moving.missed import Missed
from gateway.mqtt.surroundings import Settings as SessionSettings
from gateway.operations.operations import Operations
from gateway.peers.claims import Claims
from gateway.peers.lease import Lease
from gateway.peers.membership import GROUP, SESSION_TIMEOUT, Gateways, Membership
from gateway.peers.presence import PresenceBook
from gateway.publishing.deduplication import Recall
from gateway.receipts import wait
from gateway.registry import Registry
from gateway.routes import DEAD_LETTER
from gateway.server.certificates import TlsFiles
from gateway.server.server import Server, ServerSettings
from gateway.sessions.references import References
from gateway.sessions.sessions import Sessions
from gateway.starting import find_cluster, retried
from gateway.storage.catalogue import Catalogue
from gateway.storage.exactly import TRANSACTION_TIMEOUT, Lane, Lanes
from gateway.storage.local import LocalCopy, file_name
from gateway.storage.reserving import Reserving
from gateway.storage.state import StateTopics
from gateway.storage.ticks import Tick, Ticks, Write
from gateway.visiting.visitors import Visitors

log = logging.getLogger("gateway")

STOPPING = 2.5  # seconds for the broker to answer what is under way when the gateway stops
CLOSING = 1.0  # seconds for devices to take their last words then
DELIVERY_TIMEOUT = 600.0  # seconds a message waits for the broker before its outcome counts as unknown


class Gateway:
    """`start`, then `stop`."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.counters = Counters()
        self.registry = Registry()
        self.retained = RetainedMessages(settings.retained, settings.retained_bytes)
        self.server: Server | None = None
        self.engine: GatewayEngine | None = None
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="passwords")
        self._local = ThreadPoolExecutor(1, thread_name_prefix="local")
        self._ticks: Ticks | None = None
        self._lanes: Lanes | None = None
        self._plugins: PluginHost | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._delivery: Delivery | None = None
        self._state: StateTopics | None = None
        self._reserving = Reserving(self._current_ticks)
        self._admin: AsyncAdmin | None = None
        self._copy: LocalCopy | None = None
        self._recall: Recall | None = None
        self._references: References | None = None
        self._gateways: Gateways | None = None
        self._membership: Membership | None = None
        self._missed: Missed | None = None
        self._operations: Operations | None = None

    # --- starting

    async def start(self) -> None:
        """Wait for the broker, read the state topics, listen. Raises OSError when an address is taken."""
        cluster = await find_cluster(self.settings.environ, "sluice-gateway")
        catalogue = Catalogue(self._admin_for(cluster))
        identity = await retried(self._admin_for(cluster).cluster, "the broker does not answer yet")
        await retried(catalogue.ensure, "the topics can't be made yet")
        file = self.settings.data / file_name(self.settings.name)
        self._copy = await self._in_thread(lambda: LocalCopy(file, identity.id))
        loop = asyncio.get_running_loop()
        self._ticks = Ticks(
            lambda: Writer(cluster, delivery_timeout=DELIVERY_TIMEOUT),
            self._refused,
            loop=loop,
            congestion=lambda _: self._pace(),
        )

        def lane(name: str) -> Producer:
            return Producer(cluster, linger_ms=0, transactional_id=name, transaction_timeout=TRANSACTION_TIMEOUT)

        lease = Lease(time.monotonic, self._renew, changed=self._pace)

        def fenced(lane: Lane) -> None:
            lease.lose("another gateway took this one for dead")
            lease.when_held(lane.go_on)

        self._lanes = Lanes(lane, loop=loop, gateway=self.settings.name, fenced=fenced)
        verifiers: list[Verifier] = []
        if self.settings.jwt:
            verifiers.append(TokenVerifier(TokenSettings.read(Path(self.settings.jwt))))
        if self.settings.plugins:
            self._plugins = PluginHost.read(Path(self.settings.plugins))
            await self._plugins.start()
            verifiers.append(self._plugins)
        authenticator = Authenticator(
            self.settings,
            self.registry,
            self.counters,
            clock=self.clock,
            executor=self._hashing,
            verifiers=verifiers,
            short_lived=self._plugins is not None and self._plugins.filters_topics,
        )
        references = self._references = References(
            lambda: Consumer(
                cluster,
                fetch_wait=0.1,
                overrides={"enable.partition.eof": True, "fetch.message.max.bytes": 64 << 10, "queued.min.messages": 1},
            ),
            lambda topic: topic in catalogue.partitions,
        )
        copy, admin, name = self._copy, self._admin_for(cluster), self.settings.name
        gateways = self._gateways = Gateways(name, catalogue.partitions[SESSIONS], time.monotonic())

        def among(claims: Claims, book: PresenceBook) -> GatewayCluster:
            return GatewayCluster(
                gateway=name,
                gateways=gateways,
                claims=claims,
                book=book,
                copy=copy,
                executor=self._local,
                producer=lane,
                checkpoint=self._checkpoint,
                clock=self.clock,
                held=lease.held,
            )

        engine = self.engine = GatewayEngine(
            name=self.settings.name,
            registry=self.registry,
            authenticator=authenticator,
            ticks=self._current_ticks,
            lanes=self._current_lanes,
            retained=self.retained,
            counters=self.counters,
            clock=self.clock,
            wrote=self._wrote,
            row=self._inbox_row,
            read=references.read,
            inboxes=catalogue.partitions[INBOX],  # it never gets more
            keep_expired=self.settings.expired == DEAD_LETTER,
            reserve=self._reserving.reserve,
            cluster=among,
            lease=lease,
            plugins=self._plugins,
            anonymous=any(self.settings.anonymous_on(str(each)) for each in self.settings.listeners),
            levels=self.settings.traffic_levels,
        )
        applying = Applying(engine, gateways)
        self._state = StateTopics(
            catalogue=catalogue,
            copy=self._copy,
            consumer=Consumer(
                cluster, fetch_wait=0.2, isolation="read_committed", overrides={"enable.partition.eof": True}
            ),
            apply=applying.apply,
            control=applying.control,
            moved=self._state_moved,
            executor=self._local,
            read_back=lambda keys: engine.inbox.read_back(keys, engine.sessions.mailboxes),
        )
        # an open transaction of an earlier run would hide what is committed
        await self._lanes.ready()
        await retried(self._state.start, "the state topics can't be read yet")
        self._delivery = engine.delivery = Delivery(
            catalogue=catalogue,
            fanout=engine.fanout,
            ticks=self._ticks,
            registry=self.registry,
            counters=self.counters,
            state=self._state.tail,
            consumer=lambda: Consumer(cluster, fetch_wait=0.1, overrides={"enable.partition.eof": True}),
            clock=self.clock,
            command=engine.commands.arrived,
            checkpoint=engine.checkpoints.checkpoint,
        )
        self._delivery.tail.hold_back(engine.lease.held, engine.lease.when_held)
        engine.uplinks.listening = self._delivery.listening
        engine.cluster.state = self._state
        self._missed = engine.cluster.missed = Missed(
            fanout=engine.fanout,
            consumer=lambda: Consumer(cluster, fetch_wait=0.1, overrides={"enable.partition.eof": True}),
            positions=lambda: delivery.tail.positions,
            may_read=engine.may_read,
            down=engine.commands.missed,
            entering=engine.shares.entering,
            barrier=self._barrier,
        )
        delivery = self._delivery
        await self._restore(engine, delivery, applying.taken())
        self._membership = Membership(
            gateways,
            name=name,
            consumer=lambda: Consumer(
                cluster, GROUP, reset="latest", instance=name, session_timeout=SESSION_TIMEOUT, fetch_wait=1.0
            ),
            admin=admin,
            changed=engine.others_changed,
        )
        self._membership.start()
        engine.presence.start()
        engine.inbox.start(engine.presence.amend)
        engine.lease.start()
        engine.moves.start()
        engine.shares.start()
        engine.checkpoints.start()
        engine.cluster.start(engine.moves.arrivals)
        self._recall = Recall(
            engine.uplinks.seen,
            self.registry,
            catalogue,
            consumer=lambda: Consumer(cluster, fetch_wait=0.5, overrides={"enable.partition.eof": True}),
            clock=self.clock,
        )
        await self._recall.start()
        await self._listen(engine)
        self._recovery = loop.create_task(self._recover(engine.sessions, self._lanes, self._state))

    async def _recover(self, sessions: Sessions, lanes: Lanes, state: StateTopics) -> None:
        """Look after sessions whose transactions failed."""

        async def caught_up() -> None:
            await wait(self._current_ticks().flushed())
            await state.caught_up(decided=True)

        while True:
            await asyncio.sleep(0.5)
            try:
                await sessions.recover(lanes.ready, caught_up)
            except ClientError as error:
                log.debug("sessions in doubt can't be recovered yet: %s", error)

    async def _restore(self, engine: GatewayEngine, delivery: Delivery, restoring: dict[bytes, bytes]) -> None:
        assert self._copy is not None
        positions, since = engine.restoring.restore(restoring, self._copy.rows(INBOX))
        engine.claims.started()
        if engine.sessions.mailboxes or self.registry.downlinks:
            log.info("%d persistent sessions", len(engine.sessions.mailboxes))
            delivery.resume(positions, since)
            engine.checkpoints.written = positions
            await wait(delivery.barrier())
            engine.restoring.replayed()

    async def _listen(self, engine: GatewayEngine) -> None:
        settings = self.settings
        tls = None
        if settings.tls_certificate:
            tls = TlsFiles(
                certificate=Path(settings.tls_certificate),
                key=Path(settings.tls_key),
                client_ca=Path(settings.tls_client_ca) if settings.tls_client_ca else None,
            )
        self.server = Server(
            engine,
            ServerSettings(
                mqtt=SessionSettings(
                    server_reference=settings.server_reference, response_information=settings.response_information
                ),
                tls=tls,
                pace=settings.connects_per_address,
                trusted_proxies=settings.trusted_proxies,
                reuse_port=bool(settings.worker),
            ),
            door=Visitors(engine, ticks=self._current_ticks, held=engine.lease.held, clock=self.clock),
        )
        self._operations = Operations(settings, engine, self.server, ticks=self._current_ticks, clock=self.clock)
        await self._operations.start()
        bound = await self.server.start(settings.listeners)
        engine.slowed, engine.sent = self.server.slowed, self.server.sent
        engine.chores.charged = self.server.worked
        engine.listeners = tuple(str(each) for each in bound)
        for each in bound:
            log.info("listening on %s%s", each, "" if settings.anonymous_on(str(each)) else ", credentials demanded")

    def _admin_for(self, cluster: ClusterSettings) -> AsyncAdmin:
        if self._admin is None:
            self._admin = AsyncAdmin(cluster)
        return self._admin

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._local, call)

    @property
    def metrics_port(self) -> int | None:
        """Where this process answers `/metrics`; None: nowhere."""
        return None if self._operations is None else self._operations.metrics_port

    # --- what the parts call

    async def _inbox_row(self, key: bytes) -> bytes | None:
        copy = self._copy
        assert copy is not None
        found: bytes | None = await self._in_thread(lambda: copy.get(INBOX, key))
        return found

    def _current_ticks(self) -> Ticks:
        assert self._ticks is not None
        return self._ticks

    def _current_lanes(self) -> Lanes:
        assert self._lanes is not None
        return self._lanes

    def _refused(self, tick: Tick, failure: Failure) -> Write | None:
        assert self.engine is not None
        return self.engine.uplinks.refused(tick, failure)

    def _pace(self) -> None:
        """Commits fall behind, or nobody knows whose the sessions are: devices are not read from meanwhile."""
        if self.engine is None:
            return
        self.engine.congested = self._current_ticks().congested or not self.engine.lease.held()
        if self.server is not None and not self.engine.congested:
            self.server.resume()

    def _wrote(self, topic: str) -> None:
        if self._delivery is not None:
            self._delivery.wrote(topic)

    def _state_moved(self) -> None:
        if self._delivery is not None:
            self._delivery.moved()

    async def _barrier(self) -> None:
        assert self._delivery is not None
        await wait(self._delivery.barrier())

    async def _checkpoint(self) -> None:
        assert self.engine is not None
        await self.engine.checkpoints.checkpoint()

    async def _renew(self) -> None:
        assert self._state is not None and self._gateways is not None
        self._gateways.awake(time.monotonic())
        await self._state.caught_up()

    # --- stopping

    async def stop(self) -> None:
        """Close every connection in the protocol's terms, write what is to be written, let go. A broker that is away
        makes it no longer than some three seconds: what has no outcome by then was not acknowledged."""
        stalled = self._ticks is not None and self._ticks.stalled
        until = time.monotonic() + (STOPPING / 5 if stalled else STOPPING)
        if self.server is not None:
            await self.server.stop(closing=CLOSING)
        if self._operations is not None:
            await self._operations.stop()
        if self._recall is not None:
            await self._recall.stop()
        if self.engine is not None and self._delivery is not None:
            engine = self.engine
            engine.lease.stop()
            engine.cluster.stop()
            engine.moves.stop()
            engine.shares.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(engine.checkpoints.stop(), max(0.2, until - time.monotonic()))
            await engine.inbox.stop()
            engine.stopping = True
            engine.presence.stop()
            await self._delivery.stop()
        if self._membership is not None:
            await self._membership.stop()
        if self._missed is not None:
            self._missed.close()
        if self._references is not None:
            await self._references.stop()
        if self._plugins is not None:
            await self._plugins.close()
        if self._recovery is not None:
            self._recovery.cancel()
        self._reserving.stop()
        if self._lanes is not None:
            await self._lanes.stop(max(0.2, until - time.monotonic()))
        if self._ticks is not None:
            left = await self._ticks.close(max(0.2, until - time.monotonic()))
            if left:
                log.warning("%d messages had no outcome; none of them was acknowledged", left)
        if self._state is not None:
            await self._state.stop()
        if self._admin is not None:
            await self._admin.close()
        if self._copy is not None:
            await self._in_thread(self._copy.close)
        self._hashing.shutdown(wait=False)
        self._local.shutdown(wait=True)
