"""Reading topics as they grow, from a thread of its own, handed to the event loop in batches.

The thread waits for the loop to have dealt with what it was given (two batches may be under way), so that a slow loop
slows the reading and memory stays bounded. Positions move on the loop only, when a batch has been dealt with: whoever
asks for `position` gets what really was delivered.

What this process wrote itself needn't come back to be known: `offer` takes it at its offset. If that is the next one of
its partition it is dealt with at once, and passed over when it is fetched; else it waits until the fetch has brought
what is before it (another writer's records, a transaction's marker). So there is one order, that of offsets, and a
record that was never offered, or couldn't wait, is fetched like any other. A partition to which this process alone
writes isn't fetched for as long as it does so (`echoes`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from broker.client import Consumer, Record, TopicPartition
from broker.client.errors import ClientError
from gateway.storage.echoes import LOOK, Echo, Echoes

log = logging.getLogger("gateway.tail")

BATCH = 2000
ORDER_WAIT = 0.05  # seconds until a changed assignment is looked at
SOON = 0.005  # likewise, while a partition isn't fetched that may have to be at any moment
WAITING = 10_000  # offered records that may wait for what is before them; more are left to the fetch


class Tail:
    """Plain partitions of plain topics; no group."""

    def __init__(
        self,
        consumer: Consumer,
        handle: Callable[[list[Record]], None],
        *,
        loop: asyncio.AbstractEventLoop,
        name: str,
        moved: Callable[[], None] = lambda: None,
        offered: Callable[[list[Any]], None] = lambda _: None,
    ) -> None:
        """`handle`, `offered` (which gets what `offer` was given) and `moved` (positions have) are called on the
        loop."""
        self._consumer = consumer
        self._handle = handle
        self._moved = moved
        self._loop = loop
        self._offered = offered
        self._offers: list[tuple[tuple[str, int], int, int, Any]] = []
        self._waiting: dict[tuple[str, int], dict[int, tuple[int, Any]]] = {}
        self._waiting_count = 0
        self._echoes = Echoes()
        self._looking = False
        self._stopped = 0  # partitions that aren't fetched
        self._room = threading.Semaphore(2)
        self._stopping = False
        self._may: Callable[[], bool] | None = None
        self._when: Callable[[Callable[[], None]], None] | None = None
        self._held: list[tuple[list[Record], dict[TopicPartition, int]]] = []
        self._positions: dict[TopicPartition, int] = {}
        # assigning from another thread while this one polls locks both up (librdkafka wants the interpreter lock)
        self._orders: deque[Callable[[], None]] = deque()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset of each partition to be dealt with."""
        return self._positions

    def add(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too, from these offsets."""
        new = {key: offset for key, offset in positions.items() if key not in self._positions}
        if new:
            self._positions.update(new)
            self._orders.append(lambda: self._consumer.add(new))

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these."""
        gone = [key for key in partitions if self._positions.pop(key, None) is not None]
        fetched = [key for key in gone if not self._echoes.stopped(key)]
        for key in gone:
            self._waiting_count -= len(self._waiting.pop(key, ()))
            self._stopped -= self._echoes.again(key)
            self._echoes.forget(key)
        if fetched:
            self._orders.append(lambda: self._consumer.remove(fetched))

    def reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before these offsets has been dealt with, in the partitions that are read."""
        positions = self._positions
        return all(positions.get(key, offset) >= offset for key, offset in ends.items())

    # --- what this process wrote

    def offer(self, topic: str, partition: int, offset: int, what: Any, count: int = 1) -> None:
        """This is durable at this place; `what` goes to `offered` in its turn. None: so many records that nobody waits
        for, from there on."""
        key = (topic, partition)
        if key not in self._positions:
            return
        if not self._offers:
            self._loop.call_soon(self._take_offers)
        self._offers.append((key, offset, count, what))

    def _take_offers(self) -> None:
        offers, self._offers = self._offers, []
        # while nothing may be handed on, it will be read
        refused = bool(self._held) or (self._may is not None and not self._may())
        positions: dict[Any, int] = self._positions
        ready: list[Any] = []
        reached: dict[Any, int] = {}
        last, echo = None, Echo(0)
        for key, offset, count, what in offers:
            if key != last:
                if key not in positions:
                    continue
                last, echo = key, self._echoes.of(key, offset)
            after = offset + count
            if offset != echo.end:
                echo.between()
                self._fetch(key)
            echo.end = after
            echo.count += count
            if refused:
                self._fetch(key)
                continue
            position = reached.get(key)
            if position is None:
                position = positions[key]
            if offset == position or (what is None and offset < position < after):
                reached[key] = after
                if what is not None:
                    ready.append(what)
            elif offset > position:
                self._fetch(key)
                if self._waiting_count < WAITING:
                    waiting = self._waiting.setdefault(key, {})
                    self._waiting_count += offset not in waiting
                    waiting[offset] = (count, what)
        self._look_later()
        self._go_on(ready, reached)

    def _go_on(self, ready: list[Any], reached: dict[Any, int]) -> None:
        """Deal with these, and with what waited for them."""
        for key in [key for key in self._waiting if key in reached]:
            waiting, position = self._waiting[key], reached[key]
            for offset in sorted(waiting):
                if offset > position:
                    break
                count, what = waiting.pop(offset)
                self._waiting_count -= 1
                if what is None:
                    position = max(position, offset + count)
                elif offset == position:
                    position += 1
                    ready.append(what)
            reached[key] = position
            if not waiting:
                del self._waiting[key]
        if ready:
            self._offered(ready)
        if reached:
            # in place: others hold the mapping
            self._positions.update({TopicPartition(*key): position for key, position in reached.items()})
            self._moved()

    # --- what needn't be fetched

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._stopping:
            return
        positions: dict[Any, int] = self._positions
        stop, again, lively = self._echoes.look(positions)
        if stop:
            self._stopped += len(stop)
            self._orders.append(lambda: self._consumer.remove(TopicPartition(*key) for key in stop))
        for key in again:
            self._fetch_again(key)
        if lively:
            self._look_later()

    def _fetch(self, key: tuple[str, int]) -> None:
        """What comes next there has to be fetched."""
        if self._stopped and self._echoes.again(key):
            self._fetch_again(key)

    def _fetch_again(self, key: tuple[str, int]) -> None:
        self._stopped -= 1
        self._orders.append(lambda: self._add_again(TopicPartition(*key)))

    def _add_again(self, key: TopicPartition) -> None:
        position = self._positions.get(key)
        if position is not None:
            self._consumer.add({key: position}, known=True)

    # --- the thread

    def _run(self) -> None:
        consumer = self._consumer
        complained = False
        while not self._stopping:
            try:
                while self._orders:
                    self._orders.popleft()()
                # the positions are the loop's; a look at one of them at any moment is safe, and never too far
                records = consumer.poll(1, SOON if self._stopped else ORDER_WAIT, self._positions)
                if records:
                    records += consumer.poll(BATCH - 1, 0, self._positions)
                complained = False
            except ClientError as error:
                if not complained:
                    log.warning("reading is interrupted: %s", error)
                    complained = True
                threading.Event().wait(0.2)
                continue
            ends = dict(consumer.ends)
            consumer.ends.clear()
            if not records and not ends:
                continue
            while not self._room.acquire(timeout=0.5):
                if self._ending():
                    return
            try:
                self._loop.call_soon_threadsafe(self._arrived, records, ends)
            except RuntimeError:  # the loop is closed
                return

    def _ending(self) -> bool:
        return self._stopping

    def hold_back(self, may: Callable[[], bool], when: Callable[[Callable[[], None]], None]) -> None:
        """Hand on records only while `may` says so; `when` calls back when it does again."""
        self._may, self._when = may, when

    def _arrived(self, records: list[Record], ends: dict[TopicPartition, int]) -> None:
        if self._held or (self._may is not None and not self._may()):
            # at most two batches: the thread waits for room
            self._held.append((records, ends))
            if len(self._held) == 1 and self._when is not None:
                self._when(self._hand_on)
            return
        self._take(records, ends)

    def _hand_on(self) -> None:
        held, self._held = self._held, []
        for records, ends in held:
            self._take(records, ends)

    def _take(self, records: list[Record], ends: dict[TopicPartition, int]) -> None:
        try:
            if self._stopping:
                return
            positions: dict[Any, int] = self._positions
            fresh: list[Record] = []
            reached: dict[tuple[str, int], int] = {}
            for record in records:
                key = (record.topic, record.partition)  # a plain tuple is equal, and made sooner
                if record.offset >= positions.get(key, 0):
                    fresh.append(record)
                    reached[key] = record.offset + 1
            if fresh:
                self._handle(fresh)
                positions.update({key: offset for key, offset in reached.items() if key in positions})
            for end, offset in ends.items():
                if positions.get(end, offset) < offset:
                    positions[end] = offset
            if self._waiting:
                self._go_on([], {key: positions[TopicPartition(*key)] for key in self._waiting})
            self._moved()
        finally:
            self._room.release()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 5.0)
        self._consumer.close()
