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
from broker.client.delaying import DELAY_TOPIC, DELAYS, Refused
from broker.client.errors import ClientError, ClusterError, QueueFull, TimedOut
from broker.client.producing import Place
from broker.client.records import Record
from broker.delay import outgoing
from broker.delay.connections import TRANSACTION_SECONDS, Connections
from broker.delay.entry import (
    POSITION_KEY,
    Entry,
    Position,
    decode,
    decode_position,
    encode,
    encode_position,
)
from broker.delay.intake import Intake, take_in
from broker.delay.store import Due, Store

log = logging.getLogger("broker.delay.worker")

FIRE_ROWS = 1000
FIRE_BYTES = 4 << 20
TAKE_ROWS = 1000
TAKE_BYTES = 2 << 20
IDLE_SECONDS = 0.25
GATHER_SECONDS = 0.002
PACE_SECONDS = 0.025
"""From the beginning of one transaction to the next: each costs the cluster the same, however much it holds."""
TOUCH_MS = 60_000
RECORD_REFUSALS = frozenset({10, 17, 18, 29, 32, 43, 44, 87})
"""Too large, illegal topic, list too large, not authorised, timestamp, format, policy, invalid record."""
PURGED = -152
"""librdkafka's code for what it dropped before sending it."""
TRIES = 5
REMEMBERED_CANCELLATIONS = 10_000
REMEMBERED_ERRORS = 5_000


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


class ForeignCopy(Exception):
    """The local copy is of another log, a restored or a purged one: throw it away and read the topic."""


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
            self._commit(producer, store, [], put={}, removed=(), position=fresh)
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
        first, end = self._connections.bounds(source)
        if first > wanted:
            lost = "partition %d: records %d to %d were removed by the topic's retention before they were taken in"
            log.error(lost, self.partition, wanted, first - 1)
        if end < wanted:
            cut = (
                "partition %d: the topic ends at %d, and it was read to %d: what replaced the lost records is not read"
            )
            log.error(cut, self.partition, end, wanted)
        return min(max(wanted, first), end)

    def _turn(self, producer: Producer, store: Store, reader: Consumer) -> None:
        touched = self._now()
        average = 1024
        began = 0.0
        while not self._stop.is_set():
            records = reader.poll(1, self._patience(store))
            if records or self._is_due(store):
                # what comes during the pace goes into the same transaction
                pace = max(GATHER_SECONDS, began + PACE_SECONDS - time.monotonic())
                records += reader.poll(max(1, min(TAKE_ROWS, TAKE_BYTES // average)), pace)
                began = time.monotonic()
                due = store.due(self._now(), rows=FIRE_ROWS, size=FIRE_BYTES)
                self._round(producer, store, records, due)
            elif self._now() - touched > TOUCH_MS:
                touched = self._now()
                store.touch(touched)
            if records:
                average = max(64, sum(len(record.value or b"") for record in records) // len(records))

    def _is_due(self, store: Store) -> bool:
        return store.next_due is not None and store.next_due <= self._now()

    def _patience(self, store: Store) -> float:
        """How long to wait for records before the next delivery is due, in seconds."""
        if store.next_due is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(0.0, (store.next_due - self._now()) / 1000))

    # --- a transaction: taking in and firing

    def _round(self, producer: Producer, store: Store, records: Sequence[Record], due: Sequence[Due]) -> None:
        """Take these records in and fire those rows, in one transaction. A record that its topic refuses is found by
        halving, so that it holds back no other."""
        intake = take_in(
            records, store.position, matching=store.matching, holds=store.holds, refusal=self._targets.denied
        )
        gone = set(intake.removed)
        shots = [each for each in due if each.row not in gone]
        try:
            self._attempt(producer, store, intake, shots)
        except RecordsRefused as refusal:
            if not shots:
                raise
            if records:
                self._round(producer, store, records, ())
                self._round(producer, store, (), [each for each in shots if store.holds(each.row)])
            elif len(shots) > 1:
                middle = len(shots) // 2
                self._round(producer, store, (), shots[:middle])
                self._round(producer, store, (), shots[middle:])
            else:
                log.warning("%s refused a delivery: %s", shots[0].entry.target, refusal)
                reason = "size" if type(refusal.error).__name__ == "RecordTooLarge" else "rejected"
                nothing = Intake(store.position)
                self._attempt(producer, store, nothing, shots, Refused(reason=reason, detail=str(refusal)))

    def _attempt(
        self, producer: Producer, store: Store, intake: Intake, shots: Sequence[Due], refused: Refused | None = None
    ) -> None:
        """The transaction; `refused` says why the rows go to the dead letters instead, if it is known already."""
        put = {row: (entry, encode(entry)) for row, entry in intake.put.items()}
        removed = [*intake.removed, *(each.row for each in shots)]
        writes = [outgoing.row(self.partition, row, value) for row, (_, value) in put.items()]
        writes += [outgoing.row(self.partition, row, None) for row in removed]
        writes += [outgoing.letter(record, why) for record, why in intake.letters]
        fired = []
        for each in shots:
            why = refused or self._targets.refusal(each.entry.target)
            if why is None:
                fired.append(each.entry.due)
                writes.append(outgoing.shot(self.partition, each))
            else:
                writes.append(outgoing.late_letter(self.partition, each, why))
        self._commit(producer, store, writes, put=put, removed=removed, position=intake.position)
        self._count(intake, fired, len(shots))
        self.next = intake.position.next

    def _count(self, intake: Intake, fired: list[int], shots: int) -> None:
        tally, now = self._tally, self._now()
        tally.taken += len(intake.put)
        tally.fired += len(fired)
        tally.refused += len(intake.letters) + shots - len(fired)
        tally.errors_ms.extend(now - due for due in fired)
        tally.cancelled += sum(intake.cancelled.values())
        tally.cancellations.update(intake.cancelled)
        while len(tally.cancellations) > REMEMBERED_CANCELLATIONS:
            tally.cancellations.popitem(last=False)

    def _commit(
        self,
        producer: Producer,
        store: Store,
        writes: Sequence[outgoing.Write],
        *,
        put: dict[int, tuple[Entry, bytes]],
        removed: Sequence[int],
        position: Position,
    ) -> None:
        """One transaction, then the same in the local copy. The position is written with every one of them: its place
        in the topic tells how far the copy is true."""
        place = None
        for _ in range(TRIES):
            place = self._send(producer, writes, position)
            if place is not None:
                break
        if place is None or place.delivered is None:
            raise TimedOut("a transaction's records were dropped on their way, again and again")
        producer.commit(TRANSACTION_SECONDS)
        log_next = place.delivered.offset + 1
        store.apply(put=put, removed=removed, log_next=log_next, now=self._now(), position=position)

    def _send(self, producer: Producer, writes: Sequence[outgoing.Write], position: Position) -> Place | None:
        """Begin a transaction and send everything; None, with the transaction aborted, when the client dropped records
        that it had not sent yet, as it does after an error of the transaction before."""
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
            place = producer.post(DELAYS, encode_position(position), POSITION_KEY, None, self.partition)
        except ClusterError as refusal:
            producer.abort(TRANSACTION_SECONDS)
            if _for_good(refusal):
                raise RecordsRefused(refusal) from refusal
            raise
        batch.seal()
        producer.flush(TRANSACTION_SECONDS)
        errors = [failure.error for failure in failures] + ([place.error] if place.error is not None else [])
        for error in errors:
            if _for_good(error):
                producer.abort(TRANSACTION_SECONDS)
                raise RecordsRefused(error)
        if errors and all(isinstance(error, ClusterError) and error.code == PURGED for error in errors):
            producer.abort(TRANSACTION_SECONDS)
            return None
        if errors:
            raise errors[0]
        if place.delivered is None:
            raise TimedOut("a transaction's records have no outcome")
        return place

    # --- what is true

    def _catch_up(self, store: Store) -> bool:
        """Apply what `__sluice_delays` holds and the local copy doesn't; False when told to stop before the end. Nobody
        else writes there any more."""
        reader = self._connections.reader(to_the_end=True)
        try:
            mine = TopicPartition(DELAYS, self.partition)
            first, end = self._connections.bounds(mine)
            if store.log_next > end or 0 < store.log_next < first:
                raise ForeignCopy(f"it is true up to {store.log_next} of a topic that has {first} to {end}")
            reader.assign({mine: max(first, store.log_next)})
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


def _for_good(error: ClientError) -> bool:
    """Whether it is this record that its topic refuses, and would refuse again. (What is dropped with another record's
    failure has a code of the client's own; errors of transactions say nothing about a record.)"""
    return isinstance(error, ClusterError) and error.code in RECORD_REFUSALS
