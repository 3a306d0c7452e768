"""The bridge process: who owns the bridges, what they are, and how they are doing.

One owner. All bridge processes of a cluster are members of one consumer group over `__sluice_bridges`, which has one
partition: who is assigned it runs every bridge, the others stand by. A process that loses it stops its bridges first.
Should two run for a moment (one was frozen), the upstream lets only one connection with a client id live, and offsets
only ever move over what was acknowledged: messages may be sent twice, none is lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from broker.client import AsyncAdmin, Consumer, Failure, Record, TopicPartition, Writer
from broker.client import Settings as ClusterSettings
from broker.client.errors import ClientError
from gateway import contract
from gateway.bridge.outbound import Outbound
from gateway.bridge.running import Running
from gateway.bridges import Bridge
from gateway.config import Settings
from gateway.contract import BRIDGE_KEY, BRIDGES, ROUTES, TRAFFIC, BridgeStatus, MalformedRecord
from gateway.counters import Counters
from gateway.ports import Receipt, Will
from gateway.publishing.uplinks import Uplinks
from gateway.registry import Registry
from gateway.sealing import load_key
from gateway.starting import find_cluster, retried
from gateway.storage.catalogue import Catalogue
from gateway.storage.exactly import Lanes
from gateway.storage.tail import Tail
from gateway.storage.ticks import Tick, Ticks, Write

log = logging.getLogger("gateway.bridge")

GROUP = "__sluice_bridges"
SESSION_TIMEOUT = 10.0
DELIVERY_TIMEOUT = 60.0  # seconds until a message's outcome counts as unknown, and its connection is given up
STATUS_SECONDS = 2.0
REPEAT_SECONDS = 10.0  # a status that doesn't change is told again


class Bridges:
    """`start`, then `stop`."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._key = load_key(settings.data, settings.environ)
        self._registry = Registry()
        self._running: dict[str, Running] = {}
        self._wanted: dict[str, Bridge] = {}
        self._told: dict[str, BridgeStatus] = {}
        self._changed = asyncio.Event()
        self._owner = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = threading.Event()
        self._cluster: ClusterSettings | None = None
        self._admin: AsyncAdmin | None = None
        self._ticks: Ticks | None = None
        self._tail: Tail | None = None
        self._member: threading.Thread | None = None

    async def start(self) -> None:
        """Wait for the broker, learn the routes, stand for ownership."""
        loop = asyncio.get_running_loop()
        cluster = self._cluster = await find_cluster(self._settings.environ, "sluice-bridge")
        self._admin = AsyncAdmin(cluster)
        catalogue = Catalogue(self._admin)
        await retried(catalogue.ensure, "the topics can't be made yet")
        self._ticks = Ticks(
            lambda: Writer(cluster, delivery_timeout=DELIVERY_TIMEOUT, queue_messages=100_000),
            self._refused,
            loop=loop,
            congestion=lambda congested: None,
        )
        self._uplinks = Uplinks(
            self._current_ticks,
            self._no_lanes,
            self._registry,
            Counters(),
            clock=self._clock,
            wrote=lambda topic: None,
        )
        arrived = asyncio.Event()
        self._tail = Tail(
            Consumer(cluster, fetch_wait=0.2, overrides={"enable.partition.eof": True}),
            self._routes,
            loop=loop,
            name="routes",
            moved=arrived.set,
        )
        place = TopicPartition(ROUTES, 0)
        end = (await retried(lambda: catalogue.admin.offsets([place]), "the routes can't be read yet"))[place].offset
        self._tail.add({place: 0})
        while not self._tail.reached({place: end}):
            arrived.clear()
            await arrived.wait()
        self._member = threading.Thread(target=self._belong, args=(loop,), name="ownership", daemon=True)
        self._member.start()
        self._tasks = [loop.create_task(self._keep()), loop.create_task(self._tell())]

    def _current_ticks(self) -> Ticks:
        assert self._ticks is not None
        return self._ticks

    @staticmethod
    def _no_lanes() -> Lanes:
        raise RuntimeError("a bridge takes no QoS 2")

    def _refused(self, tick: Tick, failure: Failure) -> Write | None:
        return self._uplinks.refused(tick, failure)

    def _routes(self, records: list[Record]) -> None:
        for record in records:
            if record.key is not None:
                self._registry.apply(record.topic, record.key, record.value)

    # --- ownership and definitions, from a thread of their own

    def _belong(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._cluster is not None
        while not self._stopping.is_set():
            member = Consumer(
                self._cluster,
                GROUP,
                session_timeout=SESSION_TIMEOUT,
                instance=f"{self._settings.name}-bridge",
                fetch_wait=0.2,
                overrides={"enable.partition.eof": True},
            )
            try:
                member.subscribe(
                    [BRIDGES],
                    assigned=lambda partitions: self._say(loop, self._assigned, bool(partitions)),
                    revoked=lambda _: self._lose(loop),
                    lost=lambda _: self._lose(loop),
                )
                while not self._stopping.is_set():
                    records = member.poll(500, 0.5)
                    read = bool(member.ends)
                    member.ends.clear()
                    if records or read:
                        self._say(loop, self._definitions, records, read)
            except ClientError as error:
                log.warning("ownership of the bridges is uncertain: %s", error)
                self._lose(loop)
                self._stopping.wait(1.0)
            finally:
                self._close(member)

    @staticmethod
    def _close(member: Consumer) -> None:
        try:
            member.close()
        except ClientError as error:
            log.debug("leaving: %s", error)

    @staticmethod
    def _say(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call, *arguments)

    def _lose(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop every bridge before the partition is another's."""
        if loop.is_closed() or self._stopping.is_set():
            return
        stopped = threading.Event()
        loop.call_soon_threadsafe(self._revoked, stopped)
        stopped.wait(5.0)

    def _assigned(self, mine: bool) -> None:
        if mine:
            log.info("these bridges are run here", extra={"event": "bridges.owned"})
            self._wanted = {}
            self._owner = False  # until the definitions are read

    def _revoked(self, stopped: threading.Event) -> None:
        self._owner = False
        task = asyncio.get_running_loop().create_task(self._stop_all())
        task.add_done_callback(lambda _: stopped.set())

    def _definitions(self, records: list[Record], read: bool) -> None:
        for record in records:
            name = (record.key or b"").decode("utf-8", "replace")
            if record.value is None:
                self._wanted.pop(name, None)
                continue
            try:
                bridge = contract.decode(Bridge, record.value)
            except MalformedRecord as error:
                log.error("the bridge %r is unreadable and left out: %s", name, error)
                self._wanted.pop(name, None)
                continue
            self._wanted[name] = bridge
        self._owner = self._owner or read
        if self._owner:
            self._changed.set()

    # --- running them

    async def _keep(self) -> None:
        """Let what runs be what is wanted."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name, running in list(self._running.items()):
                if self._wanted.get(name) != running.bridge:
                    await running.stop()
                    del self._running[name]
                    if name not in self._wanted:
                        self._told.pop(name, None)
                        now = self._clock()
                        gone = BridgeStatus(name=name, state="gone", since=now, owner=self._settings.name, at=now)
                        self._write(gone)
            for name, bridge in self._wanted.items():
                if name not in self._running and self._owner:
                    self._running[name] = self._make(bridge)
                    self._running[name].start()

    def _make(self, bridge: Bridge) -> Running:
        cluster, admin = self._cluster, self._admin
        assert cluster is not None and admin is not None
        outbound = None
        if bridge.outbound:
            outbound = Outbound(
                bridge, self._registry, admin, lambda: Consumer(cluster, fetch_wait=0.1), clock=self._clock
            )
        return Running(
            bridge,
            owner=self._settings.name,
            key=self._key,
            publish=self._publish,
            outbound=outbound,
            clock=self._clock,
        )

    def _publish(self, message: Will, client_id: str) -> Receipt[Any]:
        return self._uplinks.publish_will(message, client_id, "")

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            for name, running in self._running.items():
                status, before = running.status(), self._told.get(name)
                if before is None or _differs(status, before) or status.at - before.at > REPEAT_SECONDS:
                    self._told[name] = status
                    self._write(status)

    def _write(self, status: BridgeStatus) -> None:
        self._current_ticks().write(TRAFFIC, contract.encode(status), (BRIDGE_KEY + status.name).encode())

    async def _stop_all(self) -> None:
        running, self._running = self._running, {}
        await asyncio.gather(*(each.stop() for each in running.values()))

    async def stop(self) -> None:
        """Stop every bridge, leave the group."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await self._stop_all()
        if self._member is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._member.join, 5.0)
        if self._tail is not None:
            await self._tail.stop()
        if self._ticks is not None:
            await self._ticks.close(1.0)
        if self._admin is not None:
            await self._admin.close()


def _differs(one: BridgeStatus, other: BridgeStatus) -> bool:
    def said(status: BridgeStatus) -> tuple[object, ...]:
        return status.state, status.error, status.received, status.sent, status.dropped, status.lag

    return said(one) != said(other)
