"""Payloads that inbox entries refer to: read back from the log, one record each.

A reference costs one positioned read, or none when what was read for another is still here: sessions that missed the
same messages share them. References that lie close together in a partition are read in one go (`NEAR`). A record that
the log doesn't have any more, since retention or compaction took it, is told apart from a log that doesn't answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from broker.client import Consumer, TopicPartition
from broker.client.errors import TimedOut
from gateway.sessions.entries import Origin

log = logging.getLogger("gateway.references")

NEAR = 100  # records worth reading over to the next reference
PATIENCE = 20.0  # seconds for one call
SHARED = 16 << 20  # bytes of payload kept for others


class References:
    """`read`, from the loop; the reading is done in a thread, one call after the other."""

    def __init__(self, consumer: Callable[[], Consumer], exists: Callable[[str], bool]) -> None:
        """`exists` says whether there is a topic of this name. The consumer needs `enable.partition.eof`."""
        self._make = consumer
        self._exists = exists
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="references")
        self._shared: OrderedDict[Origin, bytes] = OrderedDict()
        self._size = 0
        self.records_read = 0

    async def read(self, origins: Iterable[Origin]) -> dict[Origin, bytes]:
        """The payloads of those that the log still has. Raises ClientError when it doesn't answer."""
        found: dict[Origin, bytes] = {}
        wanted: dict[TopicPartition, list[int]] = {}
        for origin in set(origins):
            if (payload := self._shared.get(origin)) is not None:
                self._shared.move_to_end(origin)
                found[origin] = payload
            elif self._exists(origin[0]):
                wanted.setdefault(TopicPartition(origin[0], origin[1]), []).append(origin[2])
        if wanted:
            read = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, wanted)
            for origin, payload in read.items():
                self._share(origin, payload)
            found |= read
        return found

    def _share(self, origin: Origin, payload: bytes) -> None:
        if origin not in self._shared:
            self._shared[origin] = payload
            self._size += len(payload)
        while self._size > SHARED:
            self._size -= len(self._shared.popitem(last=False)[1])

    # --- in the thread

    def _read(self, wanted: dict[TopicPartition, list[int]]) -> dict[Origin, bytes]:
        if self._consumer is None:
            self._consumer = self._make()
        found: dict[Origin, bytes] = {}
        deadline = time.monotonic() + PATIENCE
        for partition, offsets in wanted.items():
            offsets.sort()
            while offsets:
                self._run(self._consumer, partition, offsets, found, deadline)
        return found

    def _run(
        self,
        consumer: Consumer,
        partition: TopicPartition,
        offsets: list[int],
        found: dict[Origin, bytes],
        deadline: float,
    ) -> None:
        """Read from the first of these offsets on, as long as the next one is near; take away what is settled."""
        consumer.assign({partition: offsets[0]})
        consumer.ends.clear()
        while offsets:
            if time.monotonic() > deadline:
                raise TimedOut(f"{partition.topic}/{partition.partition} at {offsets[0]} was not read in time")
            for record in consumer.poll(NEAR, 0.1):
                if record.origin != partition:
                    continue
                self.records_read += 1
                while offsets and offsets[0] < record.offset:
                    offsets.pop(0)  # the log goes on behind it: it is gone
                if offsets and offsets[0] == record.offset:
                    found[partition.topic, partition.partition, record.offset] = record.value or b""
                    offsets.pop(0)
                if not offsets or offsets[0] - record.offset > NEAR:
                    return
            if partition in consumer.ends:
                offsets.clear()

    async def stop(self) -> None:
        """Let go, within a second or so."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.get_running_loop().run_in_executor(None, consumer.close)
