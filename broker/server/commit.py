"""The shell around the store: one journal write and one fdatasync per group of appends, in one thread.

Usage on the event loop's thread::

    appended = partition.append(batches, now)      # the store tells Commit by itself; nothing to schedule
    await commit.durable(appended.position)        # raises StorageFull, StorageUnwritable, StorageFatal, StoreClosed

What is appended in one turn of the loop, and while a group is being synced, goes as one group: the hand-off to the
thread and back is paid per group, never per request. Segments are written in a second thread and checkpoints synced in
a third, so that a slow segment never holds up the journal or the loop; only when too much waits for it, the next group
does. `on_durable(partitions)` is called on the loop once per group, after the high watermarks moved and before any
waiter is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from queue import Empty, SimpleQueue
from typing import Final

from broker.log.checkpoint import Checkpoint
from broker.log.failures import StorageFailure, StoreClosed
from broker.log.flush import Flush
from broker.log.partition import Partition
from broker.log.store import Group, Store

_log = logging.getLogger(__name__)
_TICK: Final = 1.0  # seconds between looks at space, waiting writes, checkpoints
_UPKEEP: Final = 15.0  # seconds between runs of retention and compaction
_CAPTURES: Final = 32  # partitions captured per turn of the loop
_QUIET: Final = 0.02  # seconds without a group before the journal notes that all of it is durable
_STEP: Final = 0.002  # seconds between steps of the upkeep


class Commit:
    """Group commit, checkpoints, retention and compaction of one store, on one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], int],
        on_durable: Callable[[Iterable[Partition]], None] | None = None,
    ) -> None:
        """`clock` gives ms since the epoch."""
        self._store = store
        self._clock = clock
        self._on_durable = on_durable
        self._waiting: deque[tuple[int, Callable[[BaseException | None], None]]] = deque()
        self._work: SimpleQueue[Group | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._flushes: SimpleQueue[Flush | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._checkpointing = False
        self._needed = asyncio.Event()  # the upkeep is not to wait for its turn
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._stopping = False
        self._idle = asyncio.Event()

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start the thread and the background work."""
        self._loop = loop or asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._thread.start()
        self._writer = threading.Thread(target=self._write, name="segments", daemon=True)
        self._writer.start()
        self._store.on_staged = self._schedule
        self._tick()
        self._spawn(self._upkeep(), "upkeep")
        if self._store.pending:
            self._schedule()

    @property
    def position(self) -> int:
        """Everything up to here is durable."""
        return self._store.durable

    def durable(self, position: int) -> asyncio.Future[None]:
        """A future of its own per call, done once everything up to `position` is durable (maybe already)."""
        future: asyncio.Future[None] = self._loop.create_future()

        def settle(error: BaseException | None) -> None:
            if future.done():  # the one who waited has gone
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # a waiter that left must not make asyncio complain

        self.when_durable(position, settle)
        return future

    def when_durable(self, position: int, call: Callable[[BaseException | None], None]) -> None:
        """The cheap form: `call(None)` or `call(error)` on the loop, in order of position; at once when it is known."""
        store = self._store
        if (failure := store.failure_of(position)) is not None:
            call(failure)
        elif position <= store.durable:
            call(None)
        elif self._stopping and self._thread is None:
            call(StoreClosed())
        elif not self._waiting or self._waiting[-1][0] <= position:
            self._waiting.append((position, call))
        else:
            slot = len(self._waiting)
            while slot and self._waiting[slot - 1][0] > position:
                slot -= 1
            self._waiting.insert(slot, (position, call))

    # -- groups

    def _schedule(self) -> None:
        """The first append of a turn: the group closes when the turn is over."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._store.behind:
            return  # `_segments_written` comes back here
        group = self._store.take_group()
        if group is not None:
            self._work.put(group)

    def _sync(self) -> None:
        """The thread: write, sync, tell."""
        group = self._work.get()
        while group is not None:
            group.write()
            try:
                self._loop.call_soon_threadsafe(self._written, group)
            except RuntimeError:  # the loop was closed under us: nobody is left to be told
                return
            group = self._next(group)

    def _next(self, done: Group | None) -> Group | None:
        """The next group. After a little quiet the journal notes that everything before it is durable."""
        try:
            return self._work.get(timeout=_QUIET)
        except Empty:
            if done is not None and done.error is None:
                done.vouch()
        return self._work.get()

    def _written(self, group: Group) -> None:
        store = self._store
        moved = store.complete(group, write=False)
        if store.pending:
            self._hand_over()
        if moved and self._on_durable is not None:
            self._on_durable(moved)
        if group.error is not None:
            self._fail(group)
        waiting, durable = self._waiting, store.durable
        while waiting and waiting[0][0] <= durable:
            waiting.popleft()[1](None)
        self._begin_flush()
        if not store.pending:
            self._idle.set()

    # -- segments

    def _begin_flush(self, *, everything: bool = False) -> None:
        flush = None if self._stopping else self._store.begin_flush(everything=everything)
        if flush is not None:
            self._flushed.clear()
            self._flushes.put(flush)

    def _write(self) -> None:
        """The second thread: tails to their segments."""
        while (flush := self._flushes.get()) is not None:
            flush.write()
            try:
                self._loop.call_soon_threadsafe(self._segments_written, flush)
            except RuntimeError:  # the loop was closed under us
                return
            del flush  # and with it the files it holds open

    def _segments_written(self, flush: Flush) -> None:
        self._store.finish_flush(flush)
        self._flushed.set()
        if self._store.pending:
            self._hand_over()
        if flush.error is None:  # else at the next look
            self._begin_flush()

    def _fail(self, group: Group) -> None:
        _log.error("journal: %s", self._store.health().reason)
        waiting, self._waiting = self._waiting, deque()
        for position, call in waiting:
            failure = self._store.failure_of(position)
            if failure is None:
                self._waiting.append((position, call))
            else:
                call(failure)

    # -- checkpoints and upkeep

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        if self._stopping:
            return
        now = self._clock()
        self._store.tick(now)
        health = self._store.health()
        short = not health.writable and not health.fatal
        if short:  # what retention, a deletion or a checkpoint can set free is needed now
            self._needed.set()
        if not self._checkpointing and (short or self._store.checkpoint_due(now)):
            self._checkpointing = True
            self._spawn(self._checkpoint_soon(), "checkpoint")
        self._timers = [self._loop.call_later(_TICK, self._tick)]

    async def _checkpoint_soon(self) -> None:
        """Have tails written first, so that the captures have little left to write on the loop."""
        try:
            await self._flushed.wait()
            self._begin_flush(everything=True)
            await self._flushed.wait()
            await self._checkpoint(self._store.begin_checkpoint(self._clock()))
        finally:
            self._checkpointing = False

    async def _checkpoint(self, checkpoint: Checkpoint) -> None:
        store = self._store
        try:
            while not checkpoint.capture(_CAPTURES):  # noqa: ASYNC110  (no wait: the loop gets its turn)
                await asyncio.sleep(0)
        except OSError as error:
            checkpoint.error = error
        else:
            records = store.checkpoint_records(checkpoint)
            await asyncio.shield(asyncio.to_thread(checkpoint.write, records))
        store.finish_checkpoint(checkpoint, self._clock())
        if checkpoint.error is not None:
            _log.error("checkpoint: %s", store.health().reason)

    async def _upkeep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._needed.wait(), _UPKEEP)
            self._needed.clear()
            try:
                for _ in self._store.maintain(self._clock()):
                    await asyncio.sleep(_STEP)
                    if self._stopping:
                        return
            except (OSError, StorageFailure) as error:
                _log.warning("retention and compaction: %s", error)

    async def stop(self) -> None:
        """Finish what is staged, checkpoint, close the store. Raises StorageFailure when that can't be."""
        if self._stopping:
            return
        self._stopping = True
        for timer in self._timers:
            timer.cancel()
        while self._store.pending or self._store.writing:
            self._idle.clear()
            await self._idle.wait()
        await self._flushed.wait()
        self._work.put(None)
        self._flushes.put(None)
        for thread in (self._thread, self._writer):
            if thread is not None:
                await asyncio.to_thread(thread.join)
        self._thread = self._writer = None
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                if task.get_name() == "upkeep":
                    task.cancel()
                await task
        try:
            await asyncio.to_thread(self._store.close, self._clock())
        finally:
            while self._waiting:
                self._waiting.popleft()[1](StoreClosed())
