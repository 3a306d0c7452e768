"""The state topics: read to their end before the first connection, followed from then on, kept in the local copy.

`start` returns once everything the topics held has been applied; only then may the gateway listen, since a policy or a
revocation it doesn't know yet can't hold. Changes are written to the local copy in a thread, some twice a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from broker.client import Consumer, Record, TopicPartition
from broker.client.administration.types import At
from gateway import contract
from gateway.contract import CONTROL, INBOX, PRESENCE, RETAINED, SESSIONS
from gateway.registry import TOPICS as REGISTRY
from gateway.storage.catalogue import Catalogue
from gateway.storage.local import Change, LocalCopy
from gateway.storage.tail import Tail

log = logging.getLogger("gateway.state")

FOLLOWED = (*REGISTRY, RETAINED, PRESENCE, SESSIONS, INBOX)
WRITE_INTERVAL = 0.5
PATIENCE = 5.0  # seconds without the end of the topics until it is told why

RecordHeaders = Sequence[tuple[str, bytes | None]]
Apply = Callable[[str, bytes, bytes | None, RecordHeaders, int], bytes | None]
"""(topic, key, value, headers, offset) → the value to be kept in the local copy, whose rows come without headers, with
offset -1; raises Passed."""


class Passed(Exception):
    """A record changes nothing: what the local copy has of its key stays."""


class StateTopics:
    """Compacted topics → `apply`, control orders → `control`, all → the local copy."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        copy: LocalCopy,
        consumer: Consumer,
        apply: Apply,
        control: Callable[[bytes], None],
        moved: Callable[[], None],
        executor: Executor,
        read_back: Callable[[list[bytes]], None],
    ) -> None:
        """`executor` must have one thread: the local copy's. Records of `__sluice_inbox` go into the copy only;
        `read_back` is told their keys when they are there."""
        self._catalogue = catalogue
        self._copy = copy
        self._apply = apply
        self._control = control
        self._outer_moved = moved
        self._executor = executor
        self._read_back = read_back
        self._loop = asyncio.get_running_loop()
        self.tail = Tail(consumer, self._arrived, loop=self._loop, name="state", moved=self._moved)
        self._event = asyncio.Event()
        self._changes: list[Change] = []
        self._written: dict[TopicPartition, int] = {}
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Apply everything there is; raises ClientError."""
        admin = self._catalogue.admin
        partitions = self._catalogue.of(list(FOLLOWED))
        ends = await self.ends(decided=True)
        earliest = await admin.offsets(partitions, At.EARLIEST)
        starts = {key: found.offset for key, found in earliest.items()}
        positions: dict[TopicPartition, int] = {}
        for topic in FOLLOWED:
            mine = [key for key in partitions if key.topic == topic]
            held = {key: self._copy.position(topic, key.partition, self._catalogue.ids[topic]) for key in mine}
            good = all(at is not None and starts[key] <= at <= ends.get(key, -1) for key, at in held.items())
            if not good:
                self._copy.forget(topic)
            elif topic != INBOX:
                for row, value in self._copy.rows(topic):
                    self._apply(topic, row, value, (), -1)
            for key in mine:
                at = held[key]
                positions[key] = at if good and at is not None else starts[key]
        self._written = dict(positions)
        control = await admin.offsets(self._catalogue.of([CONTROL]), At.LATEST)
        self.tail.add(positions | {key: found.offset for key, found in control.items()})
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.reached(ends)
                    break
            except TimeoutError:
                log.info("waiting for the end of the state topics: another gateway's transaction may be open there")
        await self.write()
        self._writer = self._loop.create_task(self._write_regularly())

    async def ends(self, *, decided: bool = False) -> dict[TopicPartition, int]:
        """Where what is committed by now ends. `decided`: where what is written by now does; that is reached when each
        transaction that is open has ended, whosever it is. Nobody reads what is committed behind the first that is
        open, and a gateway may leave one open and stand still. Raises ClientError."""
        partitions = self._catalogue.of(list(FOLLOWED))
        found = await self._catalogue.admin.offsets(partitions, At.LATEST, committed_only=not decided)
        return {key: place.offset for key, place in found.items() if not place.error}

    async def reached(self, ends: dict[TopicPartition, int]) -> None:
        """Wait until everything before these has been applied."""
        while not self.tail.reached(ends):
            self._event.clear()
            await self._event.wait()

    async def caught_up(self, *, decided: bool = False) -> None:
        """Wait until everything up to `ends` has been applied; raises ClientError."""
        await self.reached(await self.ends(decided=decided))

    def _moved(self) -> None:
        self._event.set()
        self._outer_moved()

    def _arrived(self, records: list[Record]) -> None:
        for record in records:
            if record.topic == CONTROL:
                if record.value is not None:
                    self._control(record.value)
                continue
            if record.key is None:
                continue
            value = record.value
            try:
                if record.topic != INBOX:
                    value = self._apply(record.topic, record.key, value, record.headers, record.offset)
            except Passed:
                continue
            except contract.MalformedRecord as error:
                log.error("%s, offset %d: %s", record.topic, record.offset, error)
            self._changes.append((record.topic, record.key, value))

    async def _write_regularly(self) -> None:
        while True:
            await asyncio.sleep(WRITE_INTERVAL)
            await self.write()

    async def write(self) -> None:
        """Bring the local copy to where the tail is."""
        changes, self._changes = self._changes, []
        now = {key: at for key, at in self.tail.positions.items() if key.topic != CONTROL}
        if now == self._written:
            return
        places = [(key.topic, key.partition, at, self._catalogue.ids[key.topic]) for key, at in now.items()]
        await self._loop.run_in_executor(self._executor, self._copy.write, changes, places)
        self._written = now
        keys = [key for topic, key, value in changes if topic == INBOX and value is not None]
        if keys:
            self._read_back(keys)

    async def stop(self) -> None:
        await self.tail.stop()
        if self._writer is not None:
            self._writer.cancel()
        await self.write()
