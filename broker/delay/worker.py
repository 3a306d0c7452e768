"""One partition of `sluice.delay` in the hands of its owner: take in, fire, repeat.

`Worker.run` is one ownership, from fencing the previous owner to the first doubt. It raises ClientError (or
sqlite3.Error) when anything is not as it should be; the caller starts another, which begins by finding out what is true
(see the package).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from broker.client import Consumer, Failure, Producer, TopicPartition
from broker.client.delaying import DELAY_DEAD_LETTERS, DELAY_TOPIC, DELAYS, Refused
from broker.client.errors import ClientError, ClusterError, QueueFull, TimedOut
from broker.client.records import (
    DELIVER_AT,
    DELIVER_TOPIC,
    ERROR_DETAIL,
    ERROR_REASON,
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_TIMESTAMP,
    ORIGIN_TOPIC,
    Headers,
    Record,
)
from broker.delay.connections import TRANSACTION_SECONDS, Connections
from broker.delay.entry import (
    POSITION_KEY,
    Entry,
    Position,
    decode,
    decode_position,
    encode,
    encode_position,
    offset_of,
)
from broker.delay.intake import take_in
from broker.delay.store import Due, Store

log = logging.getLogger("broker.delay.worker")

FIRE_ROWS = 1000
FIRE_BYTES = 4 << 20
TAKE_ROWS = 1000
TAKE_BYTES = 2 << 20
IDLE_SECONDS = 0.25
GATHER_SECONDS = 0.002
TOUCH_MS = 60_000
RECORD_REFUSALS = frozenset({10, 17, 18, 29, 32, 43, 44, 87})
"""Too large, illegal topic, list too large, not authorised, timestamp, format, policy, invalid record."""
REMEMBERED_CANCELLATIONS = 10_000
REMEMBERED_ERRORS = 5_000

Write = tuple[str, bytes | None, bytes | None, Headers, int]
"""(topic, value, key, headers, partition or -1)."""


@dataclass(slots=True)
class Tally:
    """Counts since the worker's partition was assigned to this process. `errors_ms` are the newest firing errors: when
    the transaction was committed, less the time asked for."""

    taken: int = 0
    fired: int = 0
    cancelled: int = 0
    refused: int = 0
    errors_ms: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ERRORS))
    cancellations: OrderedDict[int, int] = field(default_factory=OrderedDict)
    """The newest cancellations' offsets, and how many deliveries each took back."""


class Rules(Protocol):
    """Where records may go (see `targets`)."""

    def denied(self, target: str) -> Refused | None: ...

    def refusal(self, target: str) -> Refused | None: ...


class RecordsRefused(Exception):
    """The cluster refused a record of a transaction for good; nothing of the transaction stands."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(str(error))
        self.error = error


class Worker:
    """See the module. `position` and `ready` are read by other threads."""

    def __init__(
        self,
        connections: Connections,
        partition: int,
        *,
        path: Path,
        topics: dict[str, str],
        targets: Rules,
        tally: Tally,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`topics` maps DELAY_TOPIC and DELAYS to their ids. `path` is the local copy's file."""
        self._connections = connections
        self.partition = partition
        self._path = path
        self._topics = topics
        self._targets = targets
        self._tally = tally
        self._stop = stop
        self._clock = clock
        self.ready = False
        self.served = False
        """Whether it has ever been ready."""
        self.next = 0
        """Everything before this offset of `sluice.delay` has been taken in."""

    def run(self) -> None:
        """Own the partition until told to stop; raises at the first doubt."""
        producer = self._connections.producer(f"__sluice_delay-{self.partition}")
        try:
            producer.init_transactions(TRANSACTION_SECONDS)  # the previous owner is fenced from here on
            store = Store(self._path, self._topics[DELAYS], now=self._now())
            try:
                self._own(producer, store)
            finally:
                self.ready = False
                store.close()
        finally:
            producer.close(0.5)

    def _own(self, producer: Producer, store: Store) -> None:
        if not self._catch_up(store):
            return
        if store.position.topic != self._topics[DELAY_TOPIC]:
            generation = store.position.generation + 1 if store.position.topic else 0
            fresh = Position(topic=self._topics[DELAY_TOPIC], generation=generation)
            self._commit(producer, store, [], position=fresh)
        log.info("partition %d: ready at offset %d", self.partition, store.position.next)
        reader = self._connections.reader()
        try:
            source = TopicPartition(DELAY_TOPIC, self.partition)
            self.next = self._start(source, store.position.next)
            reader.assign({source: self.next})
            self.ready = self.served = True
            self._turn(producer, store, reader)
        finally:
            reader.close()

    def _start(self, source: TopicPartition, wanted: int) -> int:
        """Where to read on: after `wanted`, if retention took records away before they were taken in."""
        first = self._connections.first(source)
        if first > wanted:
            lost = "partition %d: records %d to %d were removed by the topic's retention before they were taken in"
            log.error(lost, self.partition, wanted, first - 1)
        return max(wanted, first)

    def _turn(self, producer: Producer, store: Store, reader: Consumer) -> None:
        touched = self._now()
        average = 1024
        while not self._stop.is_set():
            now = self._now()
            due = store.due(now, rows=FIRE_ROWS, size=FIRE_BYTES)
            if due:
                self._fire(producer, store, due)
            elif now - touched > TOUCH_MS:
                store.touch(now)
                touched = now
            wait = 0.0 if due else self._patience(store)
            records = reader.poll(1, wait)
            if records:
                records += reader.poll(max(1, min(TAKE_ROWS, TAKE_BYTES // average)), GATHER_SECONDS)
                average = max(64, sum(len(record.value or b"") for record in records) // len(records))
                self._take(producer, store, records)

    def _patience(self, store: Store) -> float:
        """How long to wait for records before the next delivery is due, in seconds."""
        if store.next_due is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(0.0, (store.next_due - self._now()) / 1000))

    # --- the two transactions

    def _take(self, producer: Producer, store: Store, records: Sequence[Record]) -> None:
        """Taking in."""
        intake = take_in(
            records, store.position, matching=store.matching, holds=store.holds, refusal=self._targets.denied
        )
        put = {row: (entry, encode(entry)) for row, entry in intake.put.items()}
        writes = [self._row(row, value) for row, (_, value) in put.items()]
        writes += [self._row(row, None) for row in intake.removed]
        writes += [_letter(record, refused) for record, refused in intake.letters]
        self._commit(producer, store, writes, put=put, removed=intake.removed, position=intake.position)
        tally = self._tally
        tally.taken += len(put)
        tally.refused += len(intake.letters)
        tally.cancelled += sum(intake.cancelled.values())
        tally.cancellations.update(intake.cancelled)
        while len(tally.cancellations) > REMEMBERED_CANCELLATIONS:
            tally.cancellations.popitem(last=False)
        self.next = intake.position.next

    def _fire(self, producer: Producer, store: Store, due: Sequence[Due]) -> None:
        """Firing. A record that its topic refuses is found by halving, so that it holds back no other."""
        writes: list[Write] = []
        fired = []
        for each in due:
            refused = self._targets.refusal(each.entry.target)
            if refused is None:
                fired.append(each.entry)
                writes.append(self._shot(each))
            else:
                writes.append(self._late_letter(each, refused))
        try:
            self._remove(producer, store, due, writes)
        except RecordsRefused as refusal:
            if len(due) > 1:
                middle = len(due) // 2
                self._fire(producer, store, due[:middle])
                self._fire(producer, store, due[middle:])
                return
            log.warning("%s refused a delivery: %s", due[0].entry.target, refusal)
            reason = "size" if type(refusal.error).__name__ == "RecordTooLarge" else "rejected"
            letter = self._late_letter(due[0], Refused(reason=reason, detail=str(refusal)))
            self._remove(producer, store, due, [letter])
            fired = []
        now = self._now()
        self._tally.fired += len(fired)
        self._tally.refused += len(due) - len(fired)
        self._tally.errors_ms.extend(now - entry.due for entry in fired)

    def _remove(self, producer: Producer, store: Store, due: Sequence[Due], writes: list[Write]) -> None:
        rows = [each.row for each in due]
        self._commit(producer, store, writes + [self._row(row, None) for row in rows], removed=rows)

    def _commit(
        self,
        producer: Producer,
        store: Store,
        writes: Sequence[Write],
        *,
        put: dict[int, tuple[Entry, bytes]] | None = None,
        removed: Sequence[int] = (),
        position: Position | None = None,
    ) -> None:
        """One transaction, then the same in the local copy. The position is written with every one of them: its place
        in the topic tells how far the copy is true."""
        found = position or store.position
        failures: list[Failure] = []
        producer.begin()
        batch = producer.batch(lambda done: failures.extend(done.failures))
        try:
            for topic, value, key, headers, partition in writes:
                while True:
                    try:
                        batch.send(topic, value, key, list(headers), partition)
                        break
                    except QueueFull:
                        producer.poll(0.05)
            place = producer.post(DELAYS, encode_position(found), POSITION_KEY, None, self.partition)
        except ClusterError as error:
            producer.abort(TRANSACTION_SECONDS)
            raise RecordsRefused(error) from error
        batch.seal()
        producer.flush(TRANSACTION_SECONDS)
        for failure in failures:
            if _for_good(failure.error):
                producer.abort(TRANSACTION_SECONDS)
                raise RecordsRefused(failure.error)
        if failures:
            raise failures[0].error
        if place.delivered is None:
            raise place.error or TimedOut("a transaction's records have no outcome")
        producer.commit(TRANSACTION_SECONDS)
        log_next = place.delivered.offset + 1
        store.apply(put=put or {}, removed=removed, log_next=log_next, now=self._now(), position=found)

    # --- what is true

    def _catch_up(self, store: Store) -> bool:
        """Apply what `__sluice_delays` holds and the local copy doesn't; False when told to stop before the end. Nobody
        else writes there any more."""
        reader = self._connections.reader(to_the_end=True)
        try:
            mine = TopicPartition(DELAYS, self.partition)
            reader.assign({mine: store.log_next})
            began, applied = time.monotonic(), 0
            while mine not in reader.ends:
                if self._stop.is_set():
                    return False
                records = reader.poll(TAKE_ROWS, 0.05)
                if records:
                    applied += len(records)
                    self._copy(store, records)
            if applied > TAKE_ROWS:
                taken = time.monotonic() - began
                log.info("partition %d: read %d records in %.1f s", self.partition, applied, taken)
            end = reader.ends[mine]
            store.apply(put={}, removed=(), log_next=max(end, store.log_next), now=self._now())
            return True
        finally:
            reader.close()

    def _copy(self, store: Store, records: Sequence[Record]) -> None:
        put: dict[int, tuple[Entry, bytes]] = {}
        removed: set[int] = set()
        position: Position | None = None
        for record in records:
            if record.key == POSITION_KEY:
                position = decode_position(record.value or b"")
                continue
            row = int(record.key or b"")
            put.pop(row, None)
            if record.value is None:
                removed.add(row)
            else:
                put[row] = decode(record.value), record.value
        store.apply(put=put, removed=removed, log_next=records[-1].offset + 1, now=self._now(), position=position)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    # --- records

    def _row(self, row: int, value: bytes | None) -> Write:
        return DELAYS, value, b"%d" % row, (), self.partition

    def _shot(self, due: Due) -> Write:
        entry = due.entry
        origin = _origin(self.partition, offset_of(due.row), entry.timestamp)
        return entry.target, entry.value, entry.key, entry.headers + origin, -1

    def _late_letter(self, due: Due, refused: Refused) -> Write:
        """The record as it was asked for, so that it can be sent again."""
        entry = due.entry
        wanted: Headers = ((DELIVER_TOPIC, entry.target.encode()), (DELIVER_AT, b"%d" % entry.due))
        origin = _origin(self.partition, offset_of(due.row), entry.timestamp)
        headers = entry.headers + wanted + _error(refused) + origin
        return DELAY_DEAD_LETTERS, entry.value, entry.key, headers, -1


def _letter(record: Record, refused: Refused) -> Write:
    origin = _origin(record.partition, record.offset, record.timestamp)
    return DELAY_DEAD_LETTERS, record.value, record.key, record.headers + _error(refused) + origin, -1


def _origin(partition: int, offset: int, timestamp: int) -> Headers:
    return (
        (ORIGIN_TOPIC, DELAY_TOPIC.encode()),
        (ORIGIN_PARTITION, b"%d" % partition),
        (ORIGIN_OFFSET, b"%d" % offset),
        (ORIGIN_TIMESTAMP, b"%d" % timestamp),
    )


def _error(refused: Refused) -> Headers:
    return (ERROR_REASON, refused.reason.encode()), (ERROR_DETAIL, refused.detail.encode("utf-8", "replace"))


def _for_good(error: ClientError) -> bool:
    """Whether it is this record that its topic refuses, and would refuse again. (What is dropped with another record's
    failure has a code of the client's own; errors of transactions say nothing about a record.)"""
    return isinstance(error, ClusterError) and error.code in RECORD_REFUSALS
