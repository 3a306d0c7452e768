"""Writing to the log: everything that is gathered until the next batch leaves shares that batch and one receipt.

Theory. A message costs one entry in a list that is handed to the producer as a whole: no call, no closure, no future.
The batch counts outcomes, which come on the loop, from within the read of the broker's answer; the tick's receipt
settles when it has them all, and every session that published into it waits on that same receipt. Who a *failed*
message belonged to is looked up afterwards, in the runs that the tick keeps for as long as it is under way: failures
are rare and may cost.

When a batch leaves, `departing` says; whether it may is looked at at the end of the loop's turn.

Outcomes. The log holds the message (durable: the broker answers a produce with acks=all after its fsync), refused it
(certain: `Refusals` decide what becomes of it), or may hold it (unknown: the sessions concerned are put in doubt and
close unacknowledged). An outcome is only unknown after the delivery timeout, which is long: while the broker is away,
messages wait here, bounded by count and bytes, and `congested` stops the sessions' reading. A producer with a fatal
error is replaced; what it held is in doubt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from broker.client import Failure, PlacedAt, Writer
from broker.client.errors import ClusterError
from broker.client.ticking import timer
from broker.client.writing.batches import Batch
from gateway.ports import NotAcknowledged, Receipt
from gateway.storage.departing import ENOUGH, Departures

log = logging.getLogger("gateway.ticks")

Headers = list[tuple[str, bytes | str | None]]
Write = tuple[str, bytes | None, bytes | None, Headers | None]
"""(topic, value, key, headers)."""
Sending = tuple[str, bytes | None, bytes | None, Headers | None, PlacedAt | None, int]
"""A write, who wants to know its place in the log, and its partition (-1: the key's)."""

BUSY = 20_000  # messages without an outcome at which sessions stop reading
CALM = 8_000  # and go on again
BUSY_BYTES = 32 << 20  # likewise in bytes of payload, so that large messages don't fill the memory
CALM_BYTES = 16 << 20
STALLED = 1.0  # seconds without an outcome after which the broker counts as away


class Tick:
    """One batch, gathered or under way."""

    __slots__ = ("batch", "began", "count", "gathered", "held", "hurrying", "left", "receipt", "runs", "sealed", "size")

    def __init__(self, began: float) -> None:
        self.batch: Batch | None = None  # once it has left
        self.began = began
        self.left = 0.0  # when it has
        self.hurrying = 0  # devices in it that wait for its outcome before they go on
        self.size = 0  # bytes of payload
        self.count = 0  # messages, once it has left
        self.gathered: list[Sending] = []  # until it leaves
        self.receipt: Receipt[Any] = Receipt()
        # (waiter, writes): for finding whose a failed message was
        self.runs: list[tuple[Any, Sequence[Any]]] = []
        self.held = 0  # messages of this tick that the producer had no room for yet
        self.sealed = False


class _Dependence:
    """Holds a tick until a receipt settled."""

    __slots__ = ("_tick",)

    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        tick = self._tick
        if receipt.failure is not None or receipt.doubtful:
            tick.receipt.failure = NotAcknowledged("the message it repeats may not be stored")
        tick.held -= 1
        _seal(tick)


def _seal(tick: Tick) -> None:
    """Nothing more is coming, if so."""
    if tick.sealed and not tick.held and tick.batch is not None:
        tick.batch.seal()


class Ticks:
    """The producer, the batch that gathers, those under way, and what waits for room in the producer."""

    def __init__(
        self,
        make: Callable[[], Writer],
        refused: Callable[[Tick, Failure], Write | None],
        *,
        loop: asyncio.AbstractEventLoop,
        congestion: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds, finer than the loop's. `refused` is asked for every message that the log certainly
        doesn't hold: what to write instead, or None when nobody waits for it. It calls `tick.receipt.doubt` itself
        where that is called for."""
        self._make = make
        self._refused = refused
        self._loop = loop
        self._clock = clock
        self._congestion = congestion
        self._producer = make()
        self._producer.attach(loop)
        self._tick: Tick | None = None
        self._open: set[Tick] = set()
        self._overflow: deque[tuple[Tick, Sending]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._departures = Departures()
        self._looking = False  # whether to leave, at the end of this turn
        self._alarm = timer(loop, self._ring)
        self._alarm_at = 0.0  # what it is set to; 0: it isn't
        self._flushes: list[tuple[set[Tick], Receipt[Any]]] = []
        self._under_way = 0  # messages that left and have no outcome
        self._size = 0  # their bytes of payload
        self.congested = False

    @property
    def waiting(self) -> int:
        """Messages without an outcome."""
        return self._under_way + (len(self._tick.gathered) if self._tick is not None else 0)

    @property
    def waiting_bytes(self) -> int:
        """Their bytes of payload."""
        return self._size

    @property
    def away(self) -> bool:
        """Whether the queue is full or sessions are held back: QoS 0 messages aren't worth keeping now."""
        return self.congested or bool(self._overflow)

    @property
    def stalled(self) -> bool:
        """Whether the broker has not answered for a while."""
        return any(self._clock() - tick.began > STALLED for tick in self._open)

    def now(self) -> float:
        """The clock's seconds."""
        return self._clock()

    async def reserve(self, topic: str) -> None:
        """Have the cluster make the topic, if it makes topics by their use. Raises ClientError."""
        await self._producer.partitions(topic)

    def current(self, *, last: float = -inf) -> Tick:
        """The tick that gathers. `last`: when whoever writes now did so before, if it is a device: one that is soon
        back waits for each acknowledgement."""
        tick = self._tick
        if tick is None:
            tick = self._tick = Tick(self._clock())
            self._open.add(tick)
            self._look_soon()
            tick.hurrying = int(self._departures.hurries(tick.began, last))
            return tick
        if not self.congested:
            # one turn may read a good deal from every connection: don't wait for its end
            self._look(tick)
        if last < tick.began and self._departures.hurries(self._clock(), last):
            tick.hurrying += 1
            self._look_soon()
        elif len(tick.gathered) >= ENOUGH:
            self._look_soon()
        return tick

    def _look(self, tick: Tick) -> None:
        if self._under_way + len(tick.gathered) > BUSY or self._size + tick.size > BUSY_BYTES:
            self._congest()

    def send(
        self,
        tick: Tick,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        placed: PlacedAt | None = None,
        partition: int = -1,
    ) -> None:
        """One message, in order; never fails. `placed` may be called with its place in the log, see `Batch.send`."""
        if value is not None:
            tick.size += len(value)
        tick.gathered.append((topic, value, key, headers, placed, partition))

    def write(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None = None,
        *,
        partition: int = -1,
    ) -> Receipt[Any]:
        """One record of our own; its receipt (shared with the turn's others) fails if its outcome is unknown.
        `partition` where the key's is not wanted: what is written to one partition becomes durable in that order."""
        tick = self.current()
        tick.runs.append((None, ((topic, value, key, headers),)))
        self.send(tick, topic, value, key, headers, partition=partition)
        return tick.receipt

    def flushed(self) -> Receipt[Any]:
        """Settles when everything handed over so far has its outcome."""
        receipt: Receipt[Any] = Receipt()
        if not self._open:
            receipt.settle()
        else:
            self._flushes.append((set(self._open), receipt))
        return receipt

    def after(self, tick: Tick, earlier: Receipt[Any]) -> None:
        """Let the tick settle only once an earlier receipt has, and fail with it."""
        if not earlier.settled:
            tick.held += 1
            earlier.waiters.append(_Dependence(tick))
        elif earlier.failure is not None:
            tick.receipt.failure = earlier.failure

    # --- leaving

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._turn_over)

    def _turn_over(self) -> None:
        """A turn that gathered something is over: let it leave now, or say when."""
        self._looking = False
        tick = self._tick
        if tick is None:
            return
        now = self._clock()
        due = self._departures.due(len(tick.gathered), tick.hurrying, len(self._open) - 1)
        if due <= now:
            self._leave()
        elif due != self._alarm_at:
            self._alarm_at = due
            self._alarm.start(due - now)

    def _ring(self) -> None:
        self._alarm_at = 0.0
        if self._tick is not None:
            self._look_soon()

    def _leave(self) -> None:
        tick, self._tick = self._tick, None
        if tick is None:
            return
        self._look(tick)
        tick.count = len(tick.gathered)
        tick.left = self._clock()
        self._departures.left(tick.left, tick.count)
        self._size += tick.size
        self._under_way += tick.count
        if self._producer.fatal is not None:
            self._rebuild()
        tick.batch = self._producer.batch(self._done)
        self._hand_over(tick)

    def _hand_over(self, tick: Tick) -> None:
        """Everything gathered to the producer; what it has no room for waits, and all that comes after it."""
        gathered, tick.gathered = tick.gathered, []
        assert tick.batch is not None
        taken = 0 if self._overflow else tick.batch.send_all(gathered)
        if taken < len(gathered):
            self._hold(tick, gathered[taken:])
        tick.sealed = True
        _seal(tick)

    def _congest(self) -> None:
        if not self.congested:
            self.congested = True
            self._congestion(True)

    def _hold(self, tick: Tick, writes: list[Sending]) -> None:
        self._congest()
        tick.held += len(writes)
        self._overflow.extend((tick, write) for write in writes)
        if self._retry is None:
            self._retry = self._loop.call_later(0.02, self._drain)

    def _drain(self) -> None:
        self._retry = None
        overflow = self._overflow
        while overflow:
            tick, write = overflow[0]
            assert tick.batch is not None
            if not tick.batch.send_all((write,)):
                break
            overflow.popleft()
            tick.held -= 1
            _seal(tick)
        if overflow:
            self._retry = self._loop.call_later(0.02, self._drain)
        else:
            self._calm()

    # --- outcomes

    def _done(self, batch: Batch) -> None:
        # ticks are few and settle nearly in order: the newest is never the one looked for
        tick = next(each for each in self._open if each.batch is batch)
        if batch.failures:
            again = self._after_failures(tick, batch.failures)
            if again:
                self._again(tick, again)
                return
        self._open.discard(tick)
        self._settled(tick)
        self._size -= tick.size
        self._under_way -= tick.count
        tick.runs.clear()
        tick.receipt.settle()
        if self._flushes:
            self._flush(tick)
        self._calm()

    def _settled(self, tick: Tick) -> None:
        gathering = self._tick
        hurrying = 0 if gathering is None else gathering.hurrying
        self._departures.settled(self._clock(), tick.began, tick.left, tick.hurrying, hurrying)
        if gathering is not None:
            self._look_soon()

    def _after_failures(self, tick: Tick, failures: list[Failure]) -> list[Write]:
        instead = []
        for failure in failures:
            error = failure.error
            if not (isinstance(error, ClusterError) and error.code > 0) or self._producer.fatal is not None:
                self._doubt(tick, failure)
                continue
            write = self._refused(tick, failure)
            if write is not None:
                instead.append(write)
        log.warning("%d messages were not stored: %s", len(failures), failures[0].error)
        return instead

    def _doubt(self, tick: Tick, failure: Failure) -> None:
        """Put in doubt whoever may have sent it. Nobody found: everybody."""
        known = False
        for waiter, run in tick.runs:
            for item in run:
                if waiter is None:
                    if item[0] == failure.topic and item[2] == failure.key:
                        tick.receipt.failure = NotAcknowledged(str(failure.error))
                        known = True
                elif item[1] == failure.value:
                    tick.receipt.doubt(waiter)
                    known = True
                    break
        if not known:
            tick.receipt.failure = NotAcknowledged(str(failure.error))

    def _again(self, tick: Tick, writes: list[Write]) -> None:
        if self._producer.fatal is not None:
            self._rebuild()
        tick.batch = self._producer.batch(self._done)
        tick.sealed = False
        before = tick.size
        for topic, value, key, headers in writes:
            self.send(tick, topic, value, key, headers)
        self._size += tick.size - before
        # never from within the callback that brought us here
        self._loop.call_soon(self._hand_over, tick)

    def _flush(self, tick: Tick) -> None:
        still = []
        for ticks, receipt in self._flushes:
            ticks.discard(tick)
            if ticks:
                still.append((ticks, receipt))
            else:
                receipt.settle()
        self._flushes = still

    def _calm(self) -> None:
        if (
            self.congested
            and not self._overflow
            and self._under_way < CALM
            and (self._size < CALM_BYTES or not self._open)
        ):
            self.congested = False
            self._congestion(False)

    def _rebuild(self) -> None:
        log.error("the producer can't go on (%s); it is built anew", self._producer.fatal)
        old, self._producer = self._producer, self._make()
        self._producer.attach(self._loop)
        # in a turn of its own: this one may be within an outcome that the old one reports
        self._loop.call_soon(old.drop)

    async def close(self, timeout: float) -> int:
        """Wait for outcomes; how many are left without one."""
        if self._retry is not None:
            self._retry.cancel()
        self._alarm.close()
        self._leave()
        return await self._producer.close(timeout)
