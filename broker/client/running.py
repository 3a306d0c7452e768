"""`run_consumer`: a handler for each record, at least once, with retries and a dead-letter topic.

Theory. Two threads: this one polls (so the group sees a live member whatever the handler does) and commits; a worker
runs the handler. Each assigned partition has a queue of records read and not settled. The worker is given the queue's
head, a run of records of one partition, and stops at the first that isn't settled; that record's partition then rests
until its back-off has passed, while the others go on. Only settled records move a partition's committed offset.

When partitions are revoked, the worker is stopped between two records, what is settled is committed, and the rest is
dropped: the next owner reads it again. When they are lost (the group went on without us), nothing is committed.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from broker.client.administration.admin import Admin
from broker.client.consuming import Consumer
from broker.client.errors import ClientError, Fenced, NotAuthorized, TopicExists
from broker.client.handling import Attempt, DeadLetters, Handler, Handling, Verdict
from broker.client.ledger import Ledger
from broker.client.policy import DeadLetterTopic, Expired, Ladder, Order, Retry, retry_for
from broker.client.producing import Producer
from broker.client.records import Record, TopicPartition
from broker.client.settings import Settings

__all__ = ["Handler", "Progress", "run_consumer"]

log = logging.getLogger(__name__)
RUN = 100
QUEUE = 1000
COMMIT_INTERVAL = 0.2
BUSY_POLL = 0.02
IDLE_POLL = 0.5
GRACE = 30.0


@dataclass(slots=True)
class Progress:
    """Counts of a running consumer, for status pages."""

    handled: int = 0
    retried: int = 0
    dead: int = 0
    repeated: int = 0
    committed: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """One assigned partition. `settled` is the next offset to commit, -1 while there is none."""

    partition: TopicPartition
    queue: deque[Record] = field(default_factory=deque)
    failures: int = 0
    not_before: float = 0.0
    settled: int = -1
    paused: bool = False


class _Runner:
    def __init__(self, consumer: Consumer, handling: Handling, stop: threading.Event, progress: Progress) -> None:
        self._consumer = consumer
        self._handling = handling
        self._stop = stop
        self._progress = progress
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="handler")
        self._halt = threading.Event()
        self._current: tuple[_Lane, Future[list[Attempt]]] | None = None
        self._committed_at = 0.0

    def run(self, topics: Iterable[str]) -> None:
        self._consumer.subscribe(topics, assigned=self._assigned, revoked=self._revoked, lost=self._lost)
        try:
            while not self._stop.is_set():
                self._turn()
        finally:
            self._halt.set()
            self._collect(wait=GRACE)
            self._commit(self._lanes.values())
            self._worker.shutdown(wait=False)

    def _turn(self) -> None:
        busy = self._current is not None or any(lane.queue for lane in self._lanes.values())
        try:
            for record in self._consumer.poll(RUN * 5, BUSY_POLL if busy else IDLE_POLL):
                lane = self._lanes.get(record.origin)
                if lane is not None:
                    lane.queue.append(record)
        except (Fenced, NotAuthorized):
            raise
        except ClientError as error:
            if self._consumer.fatal is not None:
                raise
            log.warning("reading: %s", error)
            self._stop.wait(0.2)
        self._handling.renew()
        self._collect(wait=0)
        self._start()
        self._flow()
        if time.monotonic() - self._committed_at >= COMMIT_INTERVAL:
            self._commit(self._lanes.values())

    # --- the worker

    def _start(self) -> None:
        if self._current is not None:
            return
        now = time.monotonic()
        for lane in self._lanes.values():
            if lane.queue and lane.not_before <= now:
                # to the end of the line, so that every partition has its turn
                self._lanes[lane.partition] = self._lanes.pop(lane.partition)
                batch = [lane.queue[i] for i in range(min(RUN, len(lane.queue)))]
                self._halt.clear()
                self._current = lane, self._worker.submit(self._work, batch, lane.failures)
                return

    def _work(self, batch: list[Record], failures: int) -> list[Attempt]:
        """Runs in the worker's thread; the outcomes of as many records as were tried."""
        outcomes: list[Attempt] = []
        for record in batch:
            if outcomes and self._halt.is_set():
                break
            outcomes.append(self._handling.attempt(record, failures))
            if not outcomes[-1].settled:
                break
            failures = 0
        return outcomes

    def _collect(self, *, wait: float) -> None:
        if self._current is None:
            return
        lane, future = self._current
        if wait:
            deadline = time.monotonic() + wait
            while not future.done() and time.monotonic() < deadline:
                self._handling.renew()
                threading.Event().wait(0.01)
        if not future.done():
            return
        self._current = None
        outcomes = future.result()
        if self._lanes.get(lane.partition) is not lane:
            return  # the partition went to somebody else meanwhile
        for outcome in outcomes:
            self._settle(lane, outcome)

    def _settle(self, lane: _Lane, outcome: Attempt) -> None:
        record = lane.queue[0]
        where = f"{record.topic}-{record.partition}@{record.offset}"
        if outcome.settled:
            lane.queue.popleft()
            lane.settled = record.offset + 1
            lane.failures = 0
            self._progress.handled += outcome.verdict is Verdict.HANDLED
            self._progress.repeated += outcome.verdict is Verdict.REPEATED
            if outcome.verdict is Verdict.DEAD:
                self._progress.dead += 1
                log.warning("%s is a dead letter: %s", where, outcome.error)
            return
        lane.not_before = time.monotonic() + outcome.wait
        if outcome.verdict is Verdict.FAILED:
            lane.failures += 1
            self._progress.retried += 1
            log.info("%s failed, again in %.1f s: %r", where, outcome.wait, outcome.error)
        elif outcome.verdict is Verdict.UNWRITTEN:
            log.error("the dead letter of %s can't be written, again in %.1f s: %s", where, outcome.wait, outcome.error)

    # --- flow and commits

    def _flow(self) -> None:
        """Stop reading a partition whose queue is long, and go on when it is short."""
        full = [lane for lane in self._lanes.values() if not lane.paused and len(lane.queue) >= QUEUE]
        free = [lane for lane in self._lanes.values() if lane.paused and len(lane.queue) <= QUEUE // 4]
        if full:
            self._consumer.pause([lane.partition for lane in full])
        if free:
            self._consumer.resume([lane.partition for lane in free])
        for lane in (*full, *free):
            lane.paused = not lane.paused

    def _commit(self, lanes: Iterable[_Lane]) -> None:
        self._committed_at = time.monotonic()
        settled = {lane.partition: lane.settled for lane in lanes if lane.settled >= 0}
        if not settled:
            return
        try:
            self._consumer.commit(settled)
        except ClientError as error:
            # kept, and committed the next time, or read again by the next owner
            log.warning("committing: %s", error)
            return
        self._progress.committed += len(settled)
        for lane in self._lanes.values():
            if settled.get(lane.partition) == lane.settled:
                lane.settled = -1

    # --- the group

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._lanes[partition] = _Lane(partition)

    def _revoked(self, partitions: list[TopicPartition]) -> None:
        if self._current is not None and self._current[0].partition in partitions:
            self._halt.set()
            self._collect(wait=GRACE)
        gone = [self._lanes[partition] for partition in partitions if partition in self._lanes]
        self._commit(gone)
        self._lost(partitions)

    def _lost(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._lanes.pop(partition, None)


def run_consumer(
    topics: Iterable[str],
    group: str,
    handler: Handler,
    *,
    retry: Retry | Ladder | None = None,
    order: Order = Order.PARTITION,
    dead_letter: DeadLetterTopic | None = None,
    ledger: Ledger | None = None,
    workers: int = 1,
    window: int = 1000,
    expired: Expired = Expired.BURY,
    lease: float = 30.0,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    protocol: str = "classic",
    session_timeout: float = 10.0,
) -> Progress:
    """Handle each record of `topics` as a member of `group` until `stop` is set; blocks.

    An offset is committed after its record was handled, or is durable in the dead-letter topic; never before.
    `dead_letter` None means `dlq.<topic>`. With a ledger, a record is handled to done once however often it is read;
    `lease` is how long a crashed consumer's claim holds others off, `session_timeout` how long its partitions wait for
    somebody else.
    """
    if order is not Order.PARTITION or isinstance(retry, Ladder) or workers != 1 or expired is not Expired.BURY:
        raise NotImplementedError("one worker, in the partition's order, with retries in place")
    chosen = settings or Settings.from_env()
    counts = progress if progress is not None else Progress()
    admin = Admin(chosen)
    producer = Producer(chosen)
    consumer = Consumer(chosen, group, protocol=protocol, session_timeout=session_timeout)

    def create(topic: str) -> None:
        if not admin.topics([topic]):
            try:
                admin.create_topic(topic)
            except TopicExists:
                return

    try:
        letters = DeadLetters(producer, dead_letter or DeadLetterTopic(), create)
        handling = Handling(group, handler, retry or retry_for(order), letters, ledger, lease=lease)
        _Runner(consumer, handling, stop or threading.Event(), counts).run(topics)
    finally:
        consumer.close()
        producer.close()
        admin.close()
    return counts
