"""The shell around a coordinator: its topic, its clock, its timer, and answers held until they are durable.

A step of a coordinator runs to its end before any answer leaves: an answer may make its connection send the
next request at once, which must not find a machine half-way through a step. An answer leaves once everything the
coordinator has written so far is durable (the journal's fdatasync), since what it tells may rest on any of it.

When the disk takes back what was staged (full, a failed write), the coordinator's memory is ahead of the log. It
is then thrown away, whatever waits in it is answered with COORDINATOR_NOT_AVAILABLE, and a new one is replayed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from broker.api.registry import Broker, Later
from broker.groups.ports import Reply, StateRecord, StateUnwritable
from broker.log.failures import StorageFailure
from broker.wire import batch
from broker.wire.errors import ErrorCode

if TYPE_CHECKING:
    from broker.log.partition import Partition

T = TypeVar("T")

logger = logging.getLogger(__name__)

_READ_BYTES = 4 << 20


class Coordinator(Protocol):
    """What a shell asks of the machine inside it."""

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take one state record back in."""

    def resume(self, now: int) -> None:
        """Replay is over."""

    def next_deadline(self) -> int | None:
        """When `tick` has something to do."""

    def tick(self, now: int) -> None:
        """Do what has become due."""

    def abandon(self) -> None:
        """Answer whatever is parked: this machine is given up."""


C = TypeVar("C", bound=Coordinator)


def _ignore(error: BaseException) -> None:
    """Nobody listens yet."""


class StateTopic:
    """A `StateLog` in partition 0 of an internal topic."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.position = 0
        """Journal position of the newest append."""
        self.on_lost: Callable[[BaseException], None] = _ignore
        """Told when what was staged is taken back."""
        self._watching = False

    def _partition(self) -> Partition:
        partition = self._broker.partition(self._topic, 0)
        if partition is None:
            raise LookupError(f"{self._topic} is missing: it is made before the coordinators start")
        return partition

    def append(self, records: Sequence[StateRecord], now: int) -> None:
        """Stage the records as one batch."""
        if not records:
            return
        try:
            appended = self._partition().append(batch.split(batch.keyed(records, now)), now)
        except StorageFailure as failure:
            raise StateUnwritable(str(failure)) from failure
        self.position = appended.position
        self._watch()

    def _watch(self) -> None:
        """Learn of it when the newest append is lost, also if no answer waits for it."""
        if not self._watching:
            self._watching = True
            position = self.position
            self._broker.commit.when_durable(position, lambda error: self._settled(position, error))

    def _settled(self, position: int, error: BaseException | None) -> None:
        self._watching = False
        if error is not None:
            self.position = self._broker.commit.position
            self.on_lost(error)
        elif position < self.position:
            self._watch()

    def replay(self, take: Callable[[bytes, bytes | None], None]) -> int:
        """Hand every record to `take`, in log order; returns how many there were."""
        partition = self._partition()
        offset, count = partition.log_start_offset, 0
        while offset < partition.high_watermark:
            found = partition.read(offset, _READ_BYTES)
            batches = batch.split(b"".join(found.buffers))
            if not batches:
                break
            for one in batches:
                offset = one.last_offset + 1
                if not one.control:
                    for record in batch.records(one):
                        if record.key is not None:
                            take(bytes(record.key), None if record.value is None else bytes(record.value))
                            count += 1
        return count


class Timer:
    """One timer of the event loop, kept at a machine's next deadline."""

    def __init__(
        self, next_deadline: Callable[[], int | None], tick: Callable[[], None], now: Callable[[], int]
    ) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._armed: int | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to fire on that loop."""
        self._loop = loop
        self.arm()

    def stop(self) -> None:
        """Fire no more."""
        self._loop = None
        if self._handle is not None:
            self._handle.cancel()

    def arm(self) -> None:
        """Look at the next deadline again."""
        if self._loop is None:
            return
        at = self._next_deadline()
        if at is None or (self._armed is not None and self._armed <= at):
            return  # an early firing finds nothing due and arms anew
        if self._handle is not None:
            self._handle.cancel()
        self._armed = at
        self._handle = self._loop.call_later(max(at - self._now(), 0) / 1000 + 0.001, self._fire)

    def _fire(self) -> None:
        self._armed = self._handle = None
        try:
            self._tick()
        finally:
            self.arm()


class Shell(Generic[C]):
    """Asks a coordinator and gives its answers when they are durable."""

    def __init__(self, broker: Broker, name: str, log: StateTopic, make: Callable[[], C]) -> None:
        self._broker = broker
        self._name = name
        self.log = log
        log.on_lost = self._start_over
        self._make = make
        self._finished: deque[Callable[[], None]] = deque()
        self._stepping = False
        self.coordinator = make()
        self._timer = Timer(lambda: self.coordinator.next_deadline(), self._tick, broker.clock.now)

    # -- life -----------------------------------------------------------------------------------------------------

    def replay(self) -> None:
        """Read the state back; call once the topic exists and before the listeners open."""
        count = self.log.replay(self.coordinator.replay)
        self.coordinator.resume(self._broker.clock.now())
        logger.info("%s: %d state records read", self._name, count)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to keep time."""
        self._timer.start(loop)

    async def stop(self) -> None:
        """Stop keeping time; what is parked goes with its connections."""
        self._timer.stop()

    # -- steps ----------------------------------------------------------------------------------------------------

    def step(self, call: Callable[[C, int], T]) -> T:
        """One step of the coordinator, then whatever answers it completed."""
        outer, self._stepping = self._stepping, True
        try:
            return call(self.coordinator, self._broker.clock.now())
        finally:
            self._stepping = outer
            self._flush()

    def ask(
        self,
        call: Callable[[C, int], Reply[T] | T],
        shape: Callable[[T], Any],
        refused: Callable[[ErrorCode], Any],
    ) -> Any:
        """The response for a step's answer, durable: at once, or a `Later`.

        `shape` makes the response from the answer, `refused` one from an error code.
        """
        try:
            answer = self.step(call)
        except StateUnwritable:
            return refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if not isinstance(answer, Reply):
            return self.durable(shape(answer), refused)
        if answer.done:
            return self.durable(shape(answer.value), refused)
        later = Later()

        def finish(value: T) -> None:
            self._finished.append(lambda: self._deliver(later, shape(value), refused))

        answer.then(finish)
        return later

    def durable(self, response: Any, refused: Callable[[ErrorCode], Any]) -> Any:
        """The response once all that is written is durable: itself, or a `Later`."""
        if self.log.position <= self._broker.commit.position:
            return response
        later = Later()
        self._deliver(later, response, refused)
        return later

    def _deliver(self, later: Later, response: Any, refused: Callable[[ErrorCode], Any]) -> None:
        def settle(error: BaseException | None) -> None:
            later.complete(response if error is None else refused(ErrorCode.COORDINATOR_NOT_AVAILABLE))

        if self.log.position <= self._broker.commit.position:
            later.complete(response)
        else:
            self._broker.commit.when_durable(self.log.position, settle)

    def _flush(self) -> None:
        if self._stepping:
            return
        while self._finished:
            self._finished.popleft()()
        self._timer.arm()

    def _tick(self) -> None:
        try:
            self.step(lambda coordinator, now: coordinator.tick(now))
        except StateUnwritable:
            logger.warning("%s: a deadline passed that could not be written down", self._name)

    def _start_over(self, error: BaseException) -> None:
        """What was written is gone: begin again from what the log has."""
        logger.error("%s: state was not written (%s); reading it back", self._name, error)
        old, self.coordinator = self.coordinator, self._make()
        old.abandon()
        self.replay()
        self._flush()
