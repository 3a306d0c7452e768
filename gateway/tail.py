"""Reading topics as they grow, from a thread of its own, handed to the event loop in batches.

The thread waits for the loop to have dealt with what it was given (two batches may be under way), so that a slow loop
slows the reading and memory stays bounded. Positions move on the loop only, when a batch has been dealt with: whoever
asks for `position` gets what really was delivered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from broker.client import Consumer, Record, TopicPartition
from broker.client.errors import ClientError

log = logging.getLogger("gateway.tail")

BATCH = 2000
ORDER_WAIT = 0.05  # seconds until a changed assignment is looked at


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
    ) -> None:
        """`handle` and `moved` (positions have) are called on the loop."""
        self._consumer = consumer
        self._handle = handle
        self._moved = moved
        self._loop = loop
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
        if gone:
            self._orders.append(lambda: self._consumer.remove(gone))

    def reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before these offsets has been dealt with, in the partitions that are read."""
        positions = self._positions
        return all(positions.get(key, offset) >= offset for key, offset in ends.items())

    # --- the thread

    def _run(self) -> None:
        consumer = self._consumer
        complained = False
        while not self._stopping:
            try:
                while self._orders:
                    self._orders.popleft()()
                records = consumer.poll(1, ORDER_WAIT)
                if records:
                    records += consumer.poll(BATCH - 1, 0)
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
                self._when(self._go_on)
            return
        self._take(records, ends)

    def _go_on(self) -> None:
        held, self._held = self._held, []
        for records, ends in held:
            self._take(records, ends)

    def _take(self, records: list[Record], ends: dict[TopicPartition, int]) -> None:
        try:
            if self._stopping:
                return
            positions = self._positions
            if records:
                self._handle(records)
                for record in records:
                    key = TopicPartition(record.topic, record.partition)
                    if key in positions:
                        positions[key] = record.offset + 1
            for key, offset in ends.items():
                if positions.get(key, offset) < offset:
                    positions[key] = offset
            self._moved()
        finally:
            self._room.release()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 5.0)
        self._consumer.close()
