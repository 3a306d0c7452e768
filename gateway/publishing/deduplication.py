"""De-duplication: which message ids are stored already, or on their way, by broker topic.

A message's id is `sluice.message.id`: what its route's template makes, or else the MQTT 5 user property of that name.
Within the route's window a second message of the same id for the same broker topic is acknowledged and not stored; it
is acknowledged only once the first is durable.

Persistent without a store of its own: the ids stand in the records' headers. `Recall` reads them back, at the start as
far as the windows reach, and from then on what other gateways store, which reaches this one within moments (two copies
sent to two gateways at the same instant are both stored; a consumer's ledger is there for those).
Bounded: at most `REMEMBERED` ids are known, long ones as digests, and the oldest go first; those that go within their
window are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from broker.client import Consumer, Record, TopicPartition
from broker.client.administration.types import At
from broker.client.errors import ClientError
from broker.client.records import MESSAGE_ID
from gateway import routes
from gateway.counters import Counters
from gateway.ports import Receipt, settled
from gateway.registry import Registry
from gateway.storage.catalogue import Catalogue

log = logging.getLogger("gateway.deduplication")

REMEMBERED = 100_000
LONG = 80  # characters of an id
LOOK_SECONDS = 2.0  # how often routes and topics are looked at
START_SECONDS = 30.0  # how long a start waits for the windows to be read
READ = 2_000

_DURABLE: Receipt[Any] = settled()


class Seen:
    """The ids that are known; `now` is in epoch seconds."""

    def __init__(self, counters: Counters, *, clock: Callable[[], float], most: int = REMEMBERED) -> None:
        self._counters = counters
        self._clock = clock
        self._most = most
        self._ids: OrderedDict[tuple[str, str], tuple[float, float, Receipt[Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def earlier(self, topic: str, message_id: str, window: float) -> Receipt[Any] | None:
        """The receipt of the message that had this id within `window` seconds; None: it is new, or its predecessor
        is not known to be stored."""
        found = self._ids.get(_key(topic, message_id))
        if found is None or self._clock() - found[0] >= window:
            return None
        receipt = found[2]
        return None if receipt.failure is not None or receipt.doubtful else receipt

    def note(self, topic: str, message_id: str, window: float, receipt: Receipt[Any]) -> None:
        """A new message is on its way; its receipt settles when it is durable."""
        self._put(_key(topic, message_id), (self._clock(), window, receipt))

    def recall(self, topic: str, message_id: str, at: float, window: float) -> None:
        """A record of `at` (epoch seconds) stands in the log."""
        key = _key(topic, message_id)
        found = self._ids.get(key)
        if found is None or found[2].failure is not None or found[2].doubtful:
            self._put(key, (at, window, _DURABLE))

    def _put(self, key: tuple[str, str], entry: tuple[float, float, Receipt[Any]]) -> None:
        self._ids[key] = entry
        self._ids.move_to_end(key)
        while len(self._ids) > self._most:
            _, (at, window, _) = self._ids.popitem(last=False)
            if self._clock() - at < window:
                self._counters.forgotten_ids += 1


def _key(topic: str, message_id: str) -> tuple[str, str]:
    """A long id is kept as its digest: what is remembered is bounded in bytes too."""
    if len(message_id) > LONG:
        message_id = "sha256:" + hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()
    return topic, message_id


class Recall:
    """Keeps `seen` up to date with the log, for the topics that routes with de-duplication write."""

    def __init__(
        self,
        seen: Seen,
        registry: Registry,
        catalogue: Catalogue,
        *,
        consumer: Callable[[], Consumer],
        clock: Callable[[], float],
    ) -> None:
        self._seen = seen
        self._registry = registry
        self._catalogue = catalogue
        self._make = consumer
        self._clock = clock
        self._consumer: Consumer | None = None
        self._windows: dict[str, float] = {}  # topic → seconds
        self._followed: set[TopicPartition] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once everything has been read that was there, or after START_SECONDS."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        ends: dict[TopicPartition, int] = {}
        try:
            ends = await self._look()
            while ends and asyncio.get_running_loop().time() < deadline:
                await self._read(0.2)
                assert self._consumer is not None
                for place, end in self._consumer.ends.items():
                    if end >= ends.get(place, 0):
                        ends.pop(place, None)
        except ClientError as error:
            log.warning("message ids can't be read back: %s", error)
        if ends:
            log.warning("message ids were not read back in time: some repetitions may be stored again")
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = 0.0
        while True:
            try:
                if loop.time() >= look_at:
                    look_at = loop.time() + LOOK_SECONDS
                    await self._look()
                if self._followed:
                    await self._read(0.5)
                else:
                    await asyncio.sleep(LOOK_SECONDS)
            except ClientError as error:
                log.info("message ids can't be read: %s", error)
                await asyncio.sleep(LOOK_SECONDS)

    def _wanted(self) -> dict[str, float]:
        """The topics that routes with de-duplication may write, each with its longest window."""
        found: dict[str, float] = {}
        for route in self._registry.table.routes:
            if route.deduplicate:
                for topic in self._catalogue.partitions:
                    if routes.could_write(route, topic):
                        found[topic] = max(found.get(topic, 0.0), route.deduplicate)
        return found

    async def _look(self) -> dict[TopicPartition, int]:
        """Follow what is to be followed; the ends of what is new."""
        if any(route.deduplicate for route in self._registry.table.routes):
            await self._catalogue.refresh()
        self._windows = self._wanted()
        wanted = set(self._catalogue.of(list(self._windows)))
        gone, new = self._followed - wanted, wanted - self._followed
        if self._consumer is None:
            if not new:
                return {}
            self._consumer = self._make()
        if gone:
            self._consumer.remove(gone)
            self._followed -= gone
        if not new:
            return {}
        ends = await self._catalogue.admin.offsets(new, At.LATEST)
        starts: dict[TopicPartition, int] = {}
        for window in set(self._windows.values()):
            places = [place for place in new if self._windows[place.topic] == window]
            since = int((self._clock() - window) * 1000)
            for place, found in (await self._catalogue.admin.offsets(places, since)).items():
                end = ends[place].offset
                starts[place] = max(end - REMEMBERED, found.offset if found.offset >= 0 and not found.error else end, 0)
        self._consumer.add(starts)
        self._followed |= new
        return {place: ends[place].offset for place, start in starts.items() if ends[place].offset > start}

    async def _read(self, timeout: float) -> None:
        assert self._consumer is not None
        self._take(await self._consumer.records(READ, timeout))

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            window = self._windows.get(record.topic)
            message_id = record.text(MESSAGE_ID) if window is not None else None
            if message_id is not None and window is not None:
                self._seen.recall(record.topic, message_id, record.timestamp / 1000, window)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._consumer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._consumer.close)
