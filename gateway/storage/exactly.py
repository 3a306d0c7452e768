"""QoS 2: a message and the mark of its packet id, in one transaction.

Theory. A persistent session's QoS 2 message must become one record, though its PUBLISH may come again after a crash of
either side. So the record and a mark (`__sluice_sessions`, key client id NUL packet id) are committed together; who
finds the mark after a restart knows that the record is there. PUBREL deletes the mark, durably, before PUBCOMP.

A `Lane` is one transactional producer and the thread that waits for it. Everything handed over while a transaction
commits goes into the next one: a commit costs the same for one message or a thousand. A session always uses the same
lane (`Lanes.of`), so its messages keep their order.

Outcomes. A commit that timed out is asked for again until its outcome is known. If the producer is finished (fenced, or
an error it can't abort), what was under way is in doubt: its receipt fails, and that of what was gathered behind it,
since a session's messages keep their order. The connections close unacknowledged, and a new producer of the same
transactional id finishes or aborts what was left before it does anything else. What is true then stands in the log:
sessions in doubt take their marks from there (`epoch` counts such rebuilds).

Fenced. Another gateway took this one for dead, and sessions of it over: what they had sent may be sent again to the
other one, and be there already. So nothing more is committed, and what waits for a transaction fails, until it is known
which sessions are still here (`fenced`, `go_on`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import zlib
from collections.abc import Callable
from typing import Any

from broker.client import Producer
from broker.client.errors import ClientError, ClusterError, Fenced, TimedOut
from broker.client.records import ERROR_DETAIL, ERROR_REASON, ORIGIN_TOPIC
from gateway.contract import GATEWAY_DEAD_LETTERS
from gateway.ports import NotAcknowledged, Receipt
from gateway.storage.ticks import Headers, Write

log = logging.getLogger("gateway.exactly")

COMMIT_TIMEOUT = 5.0
TRANSACTION_TIMEOUT = 20.0  # seconds: while one is open nobody reads what is committed behind it
LANES = 2
NEVER = frozenset((10, 17, 18, 29, 32, 43, 44, 87))
"""Kafka's codes for a record that no attempt will store: too large, its topic's name, no right, its timestamp, format,
policy or content. Any other failure is the transaction's: an abort purges what was on its way (librdkafka's own codes,
below 0), and a restarting broker refuses what it takes a moment later."""


class Work:
    """What goes into one transaction."""

    __slots__ = ("receipt", "writes")

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.receipt: Receipt[Any] = Receipt()


class Gathering:
    """Collects one run's writes; `send` as `Ticks.send`. `ids`: (topic, message id, window) of those that have one;
    `repeats`: receipts of earlier messages that some of the run repeat."""

    __slots__ = ("ids", "repeats", "writes")

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.ids: list[tuple[str, str, float]] = []
        self.repeats: list[Receipt[Any]] = []

    def send(self, _: object, topic: str, value: bytes | None, key: bytes | None, headers: Headers | None) -> None:
        self.writes.append((topic, value, key, headers))


class Lane:
    """See the module. `current` and receipts belong to the event loop, the producer to the thread."""

    def __init__(
        self,
        make: Callable[[], Producer],
        *,
        loop: asyncio.AbstractEventLoop,
        name: str,
        fenced: Callable[[Lane], None],
    ) -> None:
        """`fenced` is called on the loop, once nothing more is committed; `go_on` ends that."""
        self._make = make
        self._loop = loop
        self._fenced = fenced
        self._may = threading.Event()
        self._may.set()
        self._producer: Producer | None = None
        self._work: Work | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self.ready = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, writes: list[Write]) -> Receipt[Any]:
        """Put these into the next transaction, together."""
        with self._wake:
            if self._work is None:
                self._work = Work()
            work = self._work
            work.writes += writes
            self._wake.notify()
        return work.receipt

    def go_on(self) -> None:
        """Commit again, but nothing that was handed over before this call."""
        self._go_on(NotAcknowledged("another gateway took this one for dead"))

    def _go_on(self, failure: NotAcknowledged) -> None:
        with self._wake:
            work, self._work = self._work, None
        self._may.set()
        if work is not None:
            work.receipt.fail(failure)

    def _failed(self, work: Work, failure: NotAcknowledged) -> None:
        """Nor is what was handed over behind it stored: it would be there before what precedes it, sent again."""
        work.receipt.fail(failure)
        self._go_on(failure)

    # --- the thread

    def _run(self) -> None:
        while not self._stopping:
            if self._producer is None and not self._rebuild():
                continue
            with self._wake:
                while self._work is None and not self._stopping:
                    self._wake.wait(1.0)
                work, self._work = self._work, None
            if work is not None:
                self._commit(work)

    def _rebuild(self) -> bool:
        if not self._may.wait(1.0):
            return False
        try:
            producer = self._make()
            producer.init_transactions(30.0)
        except ClientError as error:
            log.warning("transactions are not possible now: %s", error)
            threading.Event().wait(1.0)
            return False
        self._producer = producer
        self._tell(self.ready.set)
        return True

    def _commit(self, work: Work) -> None:
        failure: ClientError | None = None
        for _ in range(5):
            assert self._producer is not None
            try:
                failure = self._attempt(work)
                if failure is None:
                    self._tell(lambda: work.receipt.settle())
                    return
            except ClientError as error:
                failure = error
                break
            if self._producer.fatal is not None:
                break
        log.error("a transaction of %d records failed: %s", len(work.writes), failure)
        self._tell(self.ready.clear)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(0.0)
        answer = NotAcknowledged(str(failure))
        self._may.clear()
        if isinstance(failure, Fenced):
            self._tell(lambda: self._fenced(self))
            self._tell(lambda: work.receipt.fail(answer))
        else:
            self._tell(lambda: self._failed(work, answer))

    def _attempt(self, work: Work) -> ClientError | None:
        """None: committed. An error: certainly not, another attempt may succeed. Raises when it isn't certain."""
        producer = self._producer
        assert producer is not None
        producer.begin()
        batch = producer.batch(_nothing)
        try:
            for topic, value, key, headers in work.writes:
                batch.send(topic, value, key, headers)
            batch.seal()
            while True:
                try:
                    producer.commit(COMMIT_TIMEOUT)
                    return None
                except TimedOut:
                    if self._stopping:
                        raise
        except Fenced:
            raise
        except ClientError as error:
            if producer.fatal is not None:
                raise
            producer.abort(30.0)  # after this it is certain that nothing was committed
            for failed in batch.failures:
                refused = isinstance(failed.error, ClusterError) and failed.error.code in NEVER
                if refused and not failed.topic.startswith("__"):
                    _bury(work, failed.topic, failed.value, failed.error)
            return error

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed
            self._stopping = True

    async def stop(self, patience: float) -> None:
        """Let a transaction under way end, for so many seconds; what is not committed then was not acknowledged."""
        self._stopping = True
        with self._wake:
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, patience)
        if self._producer is not None and not self._thread.is_alive():
            self._producer.close(0.1)  # nothing is under way


def _bury(work: Work, topic: str, value: bytes | None, error: ClientError) -> None:
    """The log will never take this record: it goes to the dead letters in the next attempt."""
    reason = "size" if type(error).__name__ == "RecordTooLarge" else "rejected"
    for number, (to, content, key, headers) in enumerate(work.writes):
        if to == topic and content == value and to != GATEWAY_DEAD_LETTERS:
            why: Headers = [(ERROR_REASON, reason), (ERROR_DETAIL, str(error)), (ORIGIN_TOPIC, topic)]
            work.writes[number] = (GATEWAY_DEAD_LETTERS, content, key, (headers or []) + why)


def _nothing(_: object) -> None:
    pass


def lane_ids(gateway: str) -> list[str]:
    """The transactional ids of a gateway: who initialises them anew fences it."""
    return [f"sluice-gateway-{gateway}-{number}" for number in range(LANES)]


class Lanes:
    """The lanes of one gateway."""

    def __init__(
        self,
        make: Callable[[str], Producer],
        *,
        loop: asyncio.AbstractEventLoop,
        gateway: str,
        fenced: Callable[[Lane], None],
    ) -> None:
        """`make` builds a transactional producer of a transactional id. `fenced`: see `Lane`."""

        def maker(name: str) -> Callable[[], Producer]:
            return lambda: make(name)

        self._lanes = [
            Lane(maker(each), loop=loop, name=f"lane-{number}", fenced=fenced)
            for number, each in enumerate(lane_ids(gateway))
        ]

    def of(self, client_id: str) -> Lane:
        return self._lanes[zlib.crc32(client_id.encode()) % LANES]

    async def ready(self) -> None:
        """Whatever an earlier run left open is finished or aborted, and new transactions can begin."""
        for lane in self._lanes:
            await lane.ready.wait()

    async def stop(self, patience: float) -> None:
        await asyncio.gather(*(lane.stop(patience) for lane in self._lanes))


class Both:
    """One receipt for a run of messages of which some wait for a tick and some for a transaction."""

    __slots__ = ("_left", "_waiter", "receipt")

    def __init__(self, waiter: Any, parts: list[Receipt[Any]]) -> None:
        self.receipt: Receipt[Any] = Receipt()
        self._waiter = waiter
        self._left = len(parts)
        for part in parts:
            part.waiters.append(self)

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        self._left -= 1
        if self.receipt.failure is None and receipt.failed_for(self._waiter):
            self.receipt.failure = receipt.failure or NotAcknowledged("the outcome is unknown")
        if not self._left:
            self.receipt.settle()
