"""The shell around the store: one journal write and one fdatasync per group of appends, in one thread.

Usage on the event loop's thread::

    appended = partition.append(batches, now)      # the store tells Commit by itself; nothing to schedule
    await commit.durable(appended.position)        # raises StorageFull, StorageUnwritable, StorageFatal, StoreClosed

`on_durable(partitions)` is called on the loop once per group, after the high watermarks moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from broker.log.partition import Partition
from broker.log.store import Store


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
        raise NotImplementedError

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread and the background work."""
        raise NotImplementedError

    @property
    def position(self) -> int:
        """Everything up to here is durable."""
        raise NotImplementedError

    def durable(self, position: int) -> asyncio.Future[None]:
        """A future of its own per call, done once everything up to `position` is durable (maybe already)."""
        raise NotImplementedError

    def when_durable(self, position: int, call: Callable[[BaseException | None], None]) -> None:
        """The cheap form: `call(None)` or `call(error)` on the loop, in order of position."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Finish what is staged, checkpoint, close the store."""
        raise NotImplementedError
