"""From the log to subscribers: one path, in offset order.

The gateway tails every topic that may hold messages its subscribers want, and gives each record to the fan-out, on the
loop, in the order of its partition. What this gateway itself wrote comes the same way, but is offered to the tail as
soon as it is durable: subscribers here get it without a fetch (`fresh`).

Barriers. "Nothing falls between": before a SUBACK, everything handed to the producer so far gets its outcome, the end
offsets of all partitions concerned are noted, and the tail is read up to them; only then does the subscription enter
the tree. So a message acknowledged before the SUBSCRIBE isn't delivered as a new one, a message acknowledged after the
SUBACK is, and the retained messages of that very moment are those of the same offsets. Barriers asked for together
share one question to the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from broker.client import Consumer, PlacedAt, Record, TopicPartition
from broker.client.administration.types import At
from broker.client.errors import ClientError
from gateway import contract
from gateway.counters import Counters
from gateway.delivering.joining import Joinings
from gateway.delivering.messages import message_of
from gateway.mqtt.fanout import Fanout
from gateway.ports import Message, NotAcknowledged, PublishProperties, Receipt
from gateway.publishing.target import Target
from gateway.publishing.uplinks import Fresh
from gateway.receipts import wait
from gateway.registry import Registry
from gateway.routes import DEFAULT, Outgoing, could_write, outgoing
from gateway.storage.catalogue import Catalogue
from gateway.storage.tail import Tail
from gateway.storage.ticks import Ticks

log = logging.getLogger("gateway.delivery")


BARRIER_DEADLINE = 60.0
REFRESH = 5.0
NEW_TOPIC = 0.1
CLOCKS_APART = 10.0  # seconds by which broker and gateway may differ


class Delivery:
    """The data tail and the barriers."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        fanout: Fanout,
        ticks: Ticks,
        registry: Registry,
        counters: Counters,
        state: Tail,
        consumer: Callable[[], Consumer],
        clock: Callable[[], float],
        command: Callable[[Outgoing, Record], None],
        checkpoint: Callable[[], Awaitable[None]],
    ) -> None:
        """`state` is the tail of the state topics (retained messages among them). `command` takes what a downlink
        route addresses to one client. `checkpoint` makes positions durable: without those of a partition, a crash
        soon after a SUBACK would forget where to read on."""
        self._catalogue = catalogue
        self._fanout = fanout
        self._ticks = ticks
        self._registry = registry
        self._counters = counters
        self._state = state
        self._clock = clock
        self._command = command
        self._checkpoint = checkpoint
        self._loop = asyncio.get_running_loop()
        self.tail = Tail(
            consumer(), self._arrived, loop=self._loop, name="delivery", moved=self.moved, offered=self._offered
        )
        self._moved = asyncio.Event()
        self._nudge = asyncio.Event()
        self._asked: list[Receipt[Any]] = []
        self._worker: asyncio.Task[None] | None = None
        self.joining = Joinings()
        self._passing: PlacedAt = self._passed  # one object, so that many messages are told of at once
        self._listening = self.fresh, self._passing
        self._known: set[str] = set()
        self._since = 0.0
        self._resumed: dict[TopicPartition, int] = {}
        self.wanted = False  # somebody subscribed, or a session that may be offline has
        self._refresher = self._loop.create_task(self._refresh())

    # --- what to read

    def topics(self) -> list[str]:
        """The broker topics that may hold messages for subscribers."""
        found = []
        table = self._registry.table
        for name in self._catalogue.partitions:
            if name.startswith("__"):
                continue
            if (
                name == DEFAULT.topic
                or name in self._registry.downlinks
                or any(could_write(route, name) for route in table.routes)
            ):
                found.append(name)
        return found

    def resume(self, positions: dict[TopicPartition, int], since: float) -> None:
        """Read on from where an earlier run had delivered (for the sessions that outlived it); partitions that it
        didn't read, from this moment on."""
        self._resumed = positions
        self._since = since
        self.wanted = True

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """Where delivery is; of partitions that are not read again yet, where an earlier run was."""
        return {**self._resumed, **self.tail.positions}

    def routes_changed(self) -> None:
        """Other topics may matter now; those of downlink routes whether anybody subscribed or not."""
        self._nudge.set()
        self.wanted = self.wanted or bool(self._registry.downlinks)
        self._catalogue.version += 1

    async def _extend(self) -> dict[TopicPartition, int]:
        """Take in topics and partitions that are new; the end offsets of all that is read."""
        topics = self.topics()
        partitions = self._catalogue.of(topics)
        found = await self._catalogue.admin.offsets(partitions, At.LATEST, committed_only=True)
        ends = {key: place.offset for key, place in found.items() if not place.error}
        tailed = self.tail.positions
        # a partition not read so far is read from where its subscribers began to wait, or an earlier run ended
        since = self.joining.since()
        if self._since:
            since.append(int((self._since - CLOCKS_APART) * 1000))
        young = dict(ends)
        fresh = [key for key in ends if key not in tailed]
        if since and fresh:
            missed = await self._catalogue.admin.offsets(fresh, min(since))
            young |= {key: place.offset for key, place in missed.items() if not place.error and place.offset >= 0}
        self._since = 0.0
        new = {}
        for key in ends:
            if key in tailed:
                continue
            if key in self._resumed:
                new[key] = self._resumed[key]
            elif self._known and key.topic not in self._known:
                new[key] = 0  # came to be while we were reading the others: nobody has seen its beginning
            else:
                new[key] = young[key]
        self._known.update(self._catalogue.partitions)
        gone = [key for key in tailed if key.topic not in self._catalogue.partitions]
        self.tail.remove(gone)
        self.tail.add(new)
        if new:
            await self._checkpoint()
        return ends

    def wrote(self, topic: str) -> None:
        """A device's message goes to this topic."""
        if topic not in self._catalogue.partitions:
            # the producer has the cluster make it: look a moment later
            self._loop.call_later(NEW_TOPIC, self._nudge.set)

    async def _refresh(self) -> None:
        seen = -1
        while True:
            try:
                async with asyncio.timeout(REFRESH if seen == self._catalogue.version else 0.05):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()
            if not self.wanted:
                continue
            try:
                await self._catalogue.refresh()
                if seen != self._catalogue.version:
                    version = self._catalogue.version
                    await self._extend()
                    seen = version
            except ClientError as error:
                log.debug("topics can't be looked at now: %s", error)
                await asyncio.sleep(0.5)

    # --- barriers

    def barrier(self) -> Receipt[Any]:
        """Settles when everything acknowledged before this call has been delivered."""
        self.wanted = True
        receipt: Receipt[Any] = Receipt()
        self._asked.append(receipt)
        if self._worker is None:
            self._worker = self._loop.create_task(self._serve())
        return receipt

    async def _serve(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            failure: Exception | None = None
            try:
                async with asyncio.timeout(BARRIER_DEADLINE):
                    await self._catch_up()
            except (ClientError, TimeoutError) as error:
                log.warning("subscribing failed: %s", error or "the broker did not answer in time")
                failure = NotAcknowledged(str(error))
            for receipt in asked:
                if failure is None:
                    receipt.settle()
                else:
                    receipt.fail(failure)
        self._worker = None

    async def _catch_up(self) -> None:
        await wait(self._ticks.flushed())
        while True:
            try:
                if not self._known:
                    await self._catalogue.refresh()
                ends = await self._extend()
                found = await self._catalogue.admin.offsets(
                    [TopicPartition(contract.RETAINED, 0)], At.LATEST, committed_only=True
                )
                break
            except ClientError:  # the broker is away: the caller's deadline ends this
                await asyncio.sleep(0.2)
        retained = {key: place.offset for key, place in found.items() if not place.error}
        while not (self.tail.reached(ends) and self._state.reached(retained)):
            self._moved.clear()
            await self._moved.wait()

    def moved(self) -> None:
        """A tail's positions have moved."""
        self._moved.set()

    # --- records

    def _arrived(self, records: list[Record]) -> None:
        deliver, joining = self._fanout.deliver, self.joining
        downlinks = self._registry.downlinks
        for record in records:
            if record.topic in downlinks:
                self._down(record)
                continue
            message = message_of(record)
            if message is not None:
                deliver(message)
                if joining:
                    joining.deliver(message, record.timestamp)

    def listening(self) -> tuple[Fresh, PlacedAt] | None:
        """`fresh`, and what it gives for a message that nobody here waits for; None if nobody subscribed at all."""
        return self._listening if self.wanted else None

    def fresh(
        self, target: Target, payload: bytes, flags: int, properties: PublishProperties | None
    ) -> PlacedAt | None:
        """Who is to be told where this message is when it is durable; None: it will be fetched."""
        if not target.plain or target.topic in self._registry.downlinks:
            return None
        if not self.joining.by_first:
            if target.heard_at != self._fanout.version:
                target.heard_at = self._fanout.version
                target.heard = self._fanout.heard(target.mqtt_topic)
            if not target.heard:
                return self._passing
        return _Fresh(self.tail, target, payload, flags, properties)

    def _passed(self, topic: str, partition: int, offset: int, timestamp: int, count: int) -> None:
        """Messages that nobody here waits for."""
        self.tail.offer(topic, partition, offset, None, count)

    def _offered(self, messages: list[tuple[Message, int]]) -> None:
        deliver, joining = self._fanout.deliver, self.joining
        for message, timestamp in messages:
            deliver(message)
            if joining:
                joining.deliver(message, timestamp)

    def _down(self, record: Record) -> None:
        for route in self._registry.downlinks[record.topic]:
            found = outgoing(
                route, key=record.key, value=record.value or b"", headers=record.headers, partition=record.partition
            )
            if not isinstance(found, Outgoing):
                self._counters.dead_lettered += 1
                log.warning("%s/%d/%d: %s", record.topic, record.partition, record.offset, found.detail)
                continue
            self._command(found, record)

    async def stop(self) -> None:
        self._refresher.cancel()
        if self._worker is not None:
            self._worker.cancel()
        await self.tail.stop()


class _Fresh:
    """A message of this gateway's on its way to the log; what `message_of` would make of its record."""

    __slots__ = ("_flags", "_payload", "_properties", "_tail", "_target")

    def __init__(
        self, tail: Tail, target: Target, payload: bytes, flags: int, properties: PublishProperties | None
    ) -> None:
        self._tail = tail
        self._target = target
        self._payload = payload
        self._flags = flags
        self._properties = properties

    def __call__(self, topic: str, partition: int, offset: int, timestamp: int, count: int) -> None:
        properties, target = self._properties, self._target
        expires = None
        if properties is not None and properties.message_expiry is not None:
            expires = timestamp / 1000.0 + properties.message_expiry
        message = Message(
            target.mqtt_topic,
            self._payload,
            self._flags >> 1 & 3,
            bool(self._flags & 1),
            properties=properties,
            expires_at=expires,
            sender=target.client_id,
            origin=(topic, partition, offset),
        )
        self._tail.offer(topic, partition, offset, (message, timestamp))
