"""`run_consumer`: a handler for each record, at least once, with retries, a dead-letter topic and a choice of order.

Theory. One thread polls, commits and moves records elsewhere, so the group sees a live member whatever the handlers do.
Workers ask the scheduler whose turn it is, run the handler, and say what came of it; all three under one lock, which
nobody holds while a handler runs. Only settled records are committed: the contiguous ones as the offset, those beyond
as its metadata (see `positions`). What goes to a retry or dead-letter topic is settled when the transaction that holds
its copy and the position is committed (see `moving`).

When partitions are revoked, nothing more of them is given out, what is out is waited for (`GRACE`), what is settled is
committed, and the rest is dropped: the next owner reads it again. When they are lost (the group went on without us),
nothing is committed. The end is a revocation of everything.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.client import positions
from broker.client.administration.admin import Admin
from broker.client.administration.types import Committed
from broker.client.consuming import Consumer
from broker.client.coroutines import AsyncHandler, HandlerLoop
from broker.client.errors import ClientError, Fenced, NotAuthorized, TopicExists
from broker.client.handling import Attempt, Handler, Handling, Verdict
from broker.client.ladder import RecordExpired, RetryTopic
from broker.client.ledger import Ledger
from broker.client.moving import TIMEOUT, Mover, Undecided
from broker.client.policy import DeadLetterTopic, Expired, Ladder, Order, Retry, retry_for
from broker.client.positions import Position
from broker.client.producing import Producer
from broker.client.progress import Progress
from broker.client.records import TopicPartition
from broker.client.scheduling import Scheduler, Task
from broker.client.settings import Settings

__all__ = ["AsyncHandler", "Handler", "Progress", "run_consumer"]

log = logging.getLogger(__name__)
READ = 500
COMMIT_INTERVAL = 0.2
BUSY_POLL = 0.02
IDLE_POLL = 0.5
GRACE = 30.0
WRITE_WAIT = 1.0
LOAD_TIME = 60.0
LONGEST_WINDOW = 10_000


@dataclass(slots=True, eq=False)
class _Move:
    """A record whose copy is to be written elsewhere."""

    task: Task
    attempt: Attempt
    not_before: float = 0.0


class _Runner:
    def __init__(
        self,
        consumer: Consumer,
        handling: Handling,
        mover: Mover,
        scheduler: Scheduler,
        retry_topic: str | None,
        stop: threading.Event,
        progress: Progress,
    ) -> None:
        self._consumer = consumer
        self._handling = handling
        self._mover = mover
        self._scheduler = scheduler
        self._retry_topic = retry_topic
        self._stop = stop
        self._progress = progress
        self._changed = threading.Condition(threading.RLock())
        self._ended = False
        self._crash: BaseException | None = None
        self._moves: list[_Move] = []
        self._committed_at = 0.0

    def run(self, topics: Iterable[str], workers: int) -> None:
        everything = [*topics, *([self._retry_topic] if self._retry_topic else [])]
        self._consumer.subscribe(everything, assigned=self._assigned, revoked=self._revoked, lost=self._lost)
        for number in range(workers):
            threading.Thread(target=self._work, name=f"handler-{number}", daemon=True).start()
        try:
            while not self._stop.is_set() and self._crash is None:
                self._turn()
        except Undecided:
            with self._changed:
                self._lost(self._scheduler.assigned())
            raise
        finally:
            self._drain(None)
            with self._changed:
                self._ended = True
                self._changed.notify_all()
        if self._crash is not None:
            raise self._crash

    def _turn(self) -> None:
        try:
            found = self._consumer.poll(READ, self._patience())
        except (Fenced, NotAuthorized):
            raise
        except ClientError as error:
            if self._consumer.fatal is not None:
                raise
            log.warning("reading: %s", error)
            self._stop.wait(0.2)
            found = []
        with self._changed:
            for record in found:
                for name in self._handling.odd(record):
                    self._odd(name, record.origin, record.offset)
                due = self._handling.due(record)
                self._scheduler.read(record, time.monotonic() + due - time.time() if due else 0.0)
            if found:
                self._changed.notify_all()
            full, free = self._scheduler.flow()
        if full:
            self._consumer.pause(full)
        if free:
            self._consumer.resume(free)
        self._handling.renew()
        self._write()
        if time.monotonic() - self._committed_at >= COMMIT_INTERVAL:
            self._commit(None)

    def _patience(self) -> float:
        """Seconds to wait for records: not long while handlers finish what is to be committed or moved."""
        with self._changed:
            working = self._scheduler.out() or self._scheduler.next_due() == 0
        return BUSY_POLL if working else IDLE_POLL

    def _odd(self, name: str, partition: TopicPartition, offset: int) -> None:
        self._progress.odd[name] += 1
        if self._progress.odd[name] == 1:
            where = f"{partition.topic}-{partition.partition}@{offset}"
            log.warning(
                "%s: header %s says nothing that can be used and is passed over; further ones are counted", where, name
            )

    # --- workers

    def _work(self) -> None:
        try:
            while True:
                task = self._next()
                if task is None:
                    return
                outcome = self._handling.attempt(task.record, task.failures)
                with self._changed:
                    self._settle(task, outcome)
        except BaseException as error:
            # a ledger that fails, or a handler that ends the process: the consumer ends with it
            self._crash = error
            self._stop.set()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._ended:
                now = time.monotonic()
                task = self._scheduler.take(now)
                if task is not None:
                    return task
                due = self._scheduler.next_due()
                self._changed.wait(1.0 if due is None else max(0.001, min(due - now, 1.0)))
        return None

    def _settle(self, task: Task, outcome: Attempt) -> None:
        record, progress = task.record, self._progress
        where = f"{record.topic}-{record.partition}@{record.offset}"
        if outcome.settled:
            if self._scheduler.finish(task):
                progress.handled += outcome.verdict is Verdict.HANDLED
                progress.repeated += outcome.verdict is Verdict.REPEATED
                progress.expired += outcome.verdict is Verdict.DISCARDED
        elif outcome.outgoing is not None:
            self._moves.append(_Move(task, outcome))
        else:
            if outcome.verdict is Verdict.FAILED:
                task.failures += 1
                progress.retried += 1
                log.info("%s failed, again in %.1f s: %r", where, outcome.wait, outcome.error)
            task.not_before = time.monotonic() + outcome.wait
            self._scheduler.again(task)

    # --- moves

    def _write(self, *, all_of_them: bool = False) -> None:
        """Write what is to be written elsewhere: together, and where that fails one by one."""
        now = time.monotonic()
        with self._changed:
            due = [move for move in self._moves if all_of_them or move.not_before <= now]
        if not due:
            return
        if self._written(due) is None:
            return
        for move in due if len(due) > 1 else ():
            self._written([move])

    def _written(self, moves: Sequence[_Move]) -> ClientError | None:
        """Try to write these; what could not be written waits."""
        with self._changed:
            moves = [move for move in moves if self._alive(move)]
            found = self._scheduler.positions(also=[move.task for move in moves])
        if not moves:
            return None
        outgoing = [move.attempt.outgoing for move in moves if move.attempt.outgoing is not None]
        error: ClientError | None = None
        if all(map(_fits, found.values())):
            try:
                self._mover.write(outgoing, _commits(found), self._consumer.group_metadata())
            except ClientError as problem:
                error = problem
        else:
            error = ClientError("more is finished out of order than a commit can say; waiting for the oldest")
        with self._changed:
            for move in moves:
                if error is None:
                    self._moves.remove(move)
                    self._settled(move)
                else:
                    move.not_before = time.monotonic() + WRITE_WAIT
        if error is not None and len(moves) == 1:
            self._progress.unwritten += 1
            target = outgoing[0].topic
            record = moves[0].task.record
            log.error("%s-%d@%d can't be moved to %s: %s", record.topic, record.partition, record.offset, target, error)
        for move in moves if error is None else ():
            self._handling.close(move.attempt, written=True)
        return error

    def _alive(self, move: _Move) -> bool:
        if move.task.lane.live:
            return True
        if move in self._moves:
            self._moves.remove(move)
            self._handling.close(move.attempt, written=False)
        return False

    def _settled(self, move: _Move) -> None:
        record, progress = move.task.record, self._progress
        self._scheduler.finish(move.task)
        if move.attempt.verdict is Verdict.MOVED:
            progress.moved += 1
            return
        progress.dead += 1
        progress.expired += isinstance(move.attempt.error, RecordExpired)
        log.warning("%s-%d@%d is a dead letter: %s", record.topic, record.partition, record.offset, move.attempt.error)

    # --- commits

    def _commit(self, partitions: Iterable[TopicPartition] | None) -> None:
        self._committed_at = time.monotonic()
        with self._changed:
            found = self._scheduler.positions(partitions)
            late = [partition for partition, position in found.items() if not _fits(position)]
            self._scheduler.uncommitted(late)
        ready = {partition: position for partition, position in found.items() if partition not in late}
        if not ready:
            return
        try:
            self._consumer.commit(_commits(ready))
        except ClientError as error:
            # told again the next time, or read again by the next owner
            log.warning("committing: %s", error)
            with self._changed:
                self._scheduler.uncommitted(ready)
            return
        self._progress.committed += len(ready)

    # --- the group

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        known = self._load(partitions)
        with self._changed:
            for partition in partitions:
                order = Order.NONE if partition.topic == self._retry_topic else None
                self._scheduler.assign(partition, known.get(partition), order)

    def _load(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Position]:
        """Where the partitions' last owner stopped. Without it what was moved already would be moved again, so there is
        no going on without."""
        deadline = time.monotonic() + LOAD_TIME
        while True:
            try:
                found = self._consumer.commits(partitions)
                return {each: positions.read(place.offset, place.metadata) for each, place in found.items()}
            except ClientError as error:
                if time.monotonic() > deadline or self._consumer.fatal is not None:
                    raise
                log.warning("asking for the group's positions: %s", error)
                time.sleep(0.2)

    def _revoked(self, partitions: list[TopicPartition]) -> None:
        self._drain(partitions)

    def _drain(self, partitions: list[TopicPartition] | None) -> None:
        """Bring what is out of these (None: everything) to an end, commit it, and drop them."""
        with self._changed:
            self._scheduler.halt(partitions)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and self._crash is None:
            self._write()
            with self._changed:
                waiting = [move for move in self._moves if move.not_before > 0]
                if self._scheduler.out(partitions) <= sum(self._concerns(move, partitions) for move in waiting):
                    break
                self._changed.wait(0.01)
            self._handling.renew()
        self._commit(partitions)
        with self._changed:
            gone = self._scheduler.assigned() if partitions is None else partitions
        self._lost(list(gone))

    @staticmethod
    def _concerns(move: _Move, partitions: list[TopicPartition] | None) -> bool:
        return partitions is None or move.task.record.origin in partitions

    def _lost(self, partitions: list[TopicPartition]) -> None:
        with self._changed:
            self._scheduler.drop(partitions)
            for move in list(self._moves):
                self._alive(move)


def _fits(position: Position) -> bool:
    return len(position.metadata()) <= positions.LIMIT


def _commits(found: dict[TopicPartition, Position]) -> dict[TopicPartition, Committed | int]:
    return {partition: Committed(each.next, each.metadata()) for partition, each in found.items()}


def run_consumer(
    topics: Iterable[str],
    group: str,
    handler: Handler | AsyncHandler,
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

    An offset is committed after its record was handled, or is durable in the retry or dead-letter topic; never before.
    `retry` None means retries in place, by the order's pace; a `Ladder` moves failed records to the group's retry topic
    and so can't keep an order. `dead_letter` None means `dlq.<topic>`. With a ledger, a record is handled to done once
    however often it is read. `workers` records are in handlers' hands at most, and `window` records of one partition
    (1 to 10,000) are read beyond the oldest that isn't finished; then the partition is paused. A coroutine function as
    the handler runs on an event loop of its own, `workers` at a time. `lease` is how many seconds a crashed consumer's
    claim holds others off, `session_timeout` how many its partitions wait for somebody else.
    """
    if isinstance(retry, Ladder) and order is Order.KEY:
        raise ValueError("a ladder lets later records overtake a failed one: order by key needs Retry")
    if workers < 1 or not 1 <= window <= LONGEST_WINDOW:
        raise ValueError(f"workers is at least 1, and window from 1 to {LONGEST_WINDOW:,}")
    retries = RetryTopic(retry, group) if isinstance(retry, Ladder) else None
    in_place = retry if isinstance(retry, Retry) else retry_for(order)
    chosen = settings or Settings.from_env()
    counts = progress if progress is not None else Progress()
    halt = stop or threading.Event()
    with Admin(chosen) as admin, HandlerLoop(handler) as handle:

        def create(topic: str) -> None:
            if not admin.topics([topic]):
                try:
                    admin.create_topic(topic)
                except TopicExists:
                    return

        if retries is not None:
            _make_retry_topic(admin, retries)
        consumer = Consumer(chosen, group, protocol=protocol, session_timeout=session_timeout)
        mover = Mover(group, lambda name: _transactional(chosen, name), create)
        try:
            if retries is not None:
                mover.open()
            handling = Handling(group, handle, in_place, retries, dead_letter, ledger, expired=expired, lease=lease)
            scheduler = Scheduler(order, window)
            name = retries.name if retries is not None else None
            _Runner(consumer, handling, mover, scheduler, name, halt, counts).run(topics, workers)
        finally:
            consumer.close()
            mover.close()
    return counts


def _transactional(settings: Settings, name: str) -> Producer:
    return Producer(settings, transactional_id=name, transaction_timeout=TIMEOUT, delivery_timeout=TIMEOUT)


def _make_retry_topic(admin: Admin, retries: RetryTopic) -> None:
    """One partition per delay, and kept for longer than the longest delay."""
    keep = max(7 * 86_400, 2 * sum(retries.delays))
    there = admin.topics([retries.name])
    if not there:
        try:
            admin.create_topic(retries.name, len(retries.delays), configs={"retention.ms": str(round(keep * 1000))})
        except TopicExists:
            return
    elif len(there[retries.name].partitions) < len(retries.delays):
        admin.add_partitions(retries.name, len(retries.delays))
