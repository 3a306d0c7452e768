"""librdkafka's producer: records in, acknowledgements out, without an object per message. For threads, transactions
and those who write now and then; what an event loop writes much with is `writing`.

Theory. librdkafka reports every message's outcome through a callback that runs inside `poll()`. A closure
per message costs more than the send itself, and polling in another thread costs a hand-over of the
interpreter lock per message. So:

- a `Batch` is one callback for any number of messages. It counts outcomes and calls `done(batch)` once, when
it is
  sealed and every message has one. Outcomes that are not success stand in `batch.failures`;
- `attach(loop)` polls from the event loop's own thread while messages are outstanding, and not at all
otherwise.

Every message has a deadline (`message.timeout.ms`). A failure is either certain (the log refused it or it
was never sent) or `unknown` (the deadline passed; the log may or may not hold it); what is not certain must
not be acknowledged. An idempotent producer that meets an error it can't recover from is finished: `fatal`
says so, and it is built anew.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as RawProducer

from broker.client.administration.types import Committed
from broker.client.closed import Closed
from broker.client.consuming import commits
from broker.client.errors import ClientError, Fenced, QueueFull, TimedOut, translate
from broker.client.outgoing import Failure, OutgoingHeaders
from broker.client.records import Delivered, TopicPartition
from broker.client.settings import Settings
from broker.client.troubles import hearing

POLL_INTERVAL = 0.001
IDLE_INTERVAL = 1.0


class Batch:
    """Messages whose outcomes are counted together. `send` any number, `seal` once."""

    __slots__ = ("_done", "_produce", "_sealed", "failures", "pending", "sent")

    def __init__(self, produce: Callable[..., None], done: Callable[["Batch"], None]) -> None:
        self._produce = produce
        self._done = done
        self._sealed = False
        self.pending = 0
        self.sent = 0
        self.failures: list[Failure] = []

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: OutgoingHeaders | None = None,
        partition: int = -1,
        timestamp: int = 0,
    ) -> None:
        """Queue one message; raises QueueFull (poll and try again) or another ClientError, and then it isn't
        part of the batch. `timestamp` is epoch milliseconds, 0 = now."""
        try:
            self._produce(topic, value, key, partition, self._report, None, timestamp, headers or [])
        except BufferError:
            raise QueueFull("the producer's queue is full") from None
        except KafkaException as error:
            raise translate(error) from error
        self.pending += 1
        self.sent += 1

    def seal(self) -> None:
        """No more messages follow. `done` is called from here if everything already has its outcome."""
        if not self._sealed:
            self._sealed = True
            if not self.pending:
                self._done(self)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(_failure(error, message))
        self.pending -= 1
        if self._sealed and not self.pending:
            self._done(self)


def _failure(error: KafkaError, message: Message) -> Failure:
    # a purge drops what is queued (certain) and what is in flight (unknown)
    purged = error.code() == KafkaError._PURGE_INFLIGHT
    cause = TimedOut("dropped while on its way") if purged else translate(error)
    partition = message.partition()
    return Failure(message.topic() or "", -1 if partition is None else partition, message.key(), message.value(), cause)


class Place:
    """The outcome of a single message: both are None until it is known."""

    __slots__ = ("delivered", "error", "settle")

    def __init__(self, settle: Callable[["Place"], None] | None = None) -> None:
        self.delivered: Delivered | None = None
        self.error: ClientError | None = None
        self.settle = settle

    def report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            offset, partition = message.offset(), message.partition()
            self.delivered = Delivered(
                message.topic() or "",
                -1 if partition is None else partition,
                -1 if offset is None else offset,
            )
        else:
            self.error = _failure(error, message).error
        if self.settle is not None:
            self.settle(self)


class Producer:
    """One connection set for writing. Not for use from several threads at once, save `close`."""

    def __init__(
        self,
        settings: Settings,
        *,
        linger_ms: float = 1,
        compression: str = "none",
        delivery_timeout: float = 30.0,
        transactional_id: str | None = None,
        transaction_timeout: float = 60.0,
        queue_messages: int = 500_000,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        config = settings.librdkafka() | {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "compression.type": compression,
            "message.timeout.ms": int(delivery_timeout * 1000),
            "request.timeout.ms": int(min(delivery_timeout, 30.0) * 1000),
            "queue.buffering.max.messages": queue_messages,
            "queue.buffering.max.kbytes": 1 << 20,
            # the topic's own limit is enforced by the cluster; this only keeps the client from having a
            # smaller one
            "message.max.bytes": 64 << 20,
            # Java's partitioner, so that every client puts a key into the same partition
            "partitioner": "murmur2_random",
            "error_cb": hearing(self._on_error),
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 500,
        }
        if transactional_id is not None:
            config["transactional.id"] = transactional_id
            config["transaction.timeout.ms"] = int(transaction_timeout * 1000)
            config["message.timeout.ms"] = int(min(delivery_timeout, transaction_timeout) * 1000)
        config |= dict(overrides or {})
        self._raw: RawProducer | Closed = RawProducer(config)
        self._produce: Callable[..., None] = self._raw.produce
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._serving = 0
        """The thread that serves outcomes, or 0: confluent-kafka aborts the process if they are served again from
        within one of them and another follows."""
        self.fatal: ClientError | None = None
        """Set once the producer can do nothing any more; build another."""
        self.last_error: ClientError | None = None
        """The newest passing trouble (a broker that is down, ...), for status pages."""

    def __len__(self) -> int:
        """Messages without an outcome."""
        return len(self._raw)

    # --- sending

    def batch(self, done: Callable[[Batch], None]) -> Batch:
        """A batch whose `done` is called from within `poll` (with `attach`: on the loop's thread)."""
        if self._loop is not None and not self._busy:
            self._schedule(POLL_INTERVAL, busy=True)
        return Batch(self._produce, done)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: OutgoingHeaders | None = None,
        partition: int = -1,
        timestamp: int = 0,
        *,
        timeout: float = 30.0,
    ) -> Delivered:
        """Write one record and wait until the log has acknowledged it. Blocks; for an event loop see
        `deliver`."""
        place = Place()
        self._enqueue(place, topic, value, key, headers, partition, timestamp)
        deadline = time.monotonic() + timeout
        while place.delivered is None and place.error is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"no acknowledgement from {topic} within {timeout:g} s")
            self.poll(min(left, 0.1))
            if self.fatal is not None and place.error is None:
                raise self.fatal
        if place.delivered is None:
            raise place.error or TimedOut("no outcome")
        return place.delivered

    def post(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: OutgoingHeaders | None = None,
        partition: int = -1,
    ) -> Place:
        """Queue one message and return; its outcome stands in the answer once `poll` or `flush` has seen it."""
        place = Place()
        self._enqueue(place, topic, value, key, headers, partition, 0)
        return place

    async def deliver(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: OutgoingHeaders | None = None,
        partition: int = -1,
        timestamp: int = 0,
        *,
        timeout: float = 30.0,
    ) -> Delivered:
        """`send` for the event loop that the producer is attached to."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.attach(loop)
        future: asyncio.Future[Delivered] = loop.create_future()

        def settle(place: Place) -> None:
            if future.done():
                return
            if place.delivered is not None:
                future.set_result(place.delivered)
            else:
                future.set_exception(place.error or TimedOut("no outcome"))

        self._enqueue(Place(settle), topic, value, key, headers, partition, timestamp)
        if not self._busy:
            self._schedule(POLL_INTERVAL, busy=True)
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise TimedOut(f"no acknowledgement from {topic} within {timeout:g} s") from None

    def send_many(
        self,
        records: Iterable[tuple[str, bytes | None, bytes | None, OutgoingHeaders | None]],
        *,
        timeout: float = 60.0,
    ) -> list[Failure]:
        """Write (topic, value, key, headers) records, polling as the queue fills; returns those that
        failed."""
        finished: list[Batch] = []
        batch = self.batch(finished.append)
        deadline = time.monotonic() + timeout
        for topic, value, key, headers in records:
            while True:
                try:
                    batch.send(topic, value, key, headers)
                    break
                except QueueFull:
                    self.poll(0.05)
                    if time.monotonic() > deadline:
                        raise TimedOut(f"the producer's queue stayed full for {timeout:g} s") from None
        batch.seal()
        while not finished:
            if time.monotonic() > deadline:
                raise TimedOut(f"{batch.pending} of {batch.sent} records without an outcome after {timeout:g} s")
            self.poll(0.05)
        return batch.failures

    def _enqueue(
        self,
        place: Place,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: OutgoingHeaders | None,
        partition: int,
        timestamp: int,
    ) -> None:
        if self.fatal is not None:
            raise self.fatal
        try:
            self._produce(topic, value, key, partition, place.report, None, timestamp, headers or [])
        except BufferError:
            raise QueueFull("the producer's queue is full") from None
        except KafkaException as error:
            raise translate(error) from error

    def partitions(self, topic: str, timeout: float = 5.0) -> int:
        """How many partitions the topic has. Asked by a producer, a cluster that makes topics by their use makes it."""
        if self._nested:
            raise RuntimeError("a producer can't ask from within an outcome")
        try:
            found = self._raw.list_topics(topic, timeout).topics[topic]
        except KafkaException as error:
            raise translate(error) from error
        if found.error is not None and not found.partitions:
            raise translate(found.error)
        return len(found.partitions)

    # --- outcomes

    def poll(self, timeout: float = 0.0) -> int:
        """Serve outcomes; returns how many callbacks ran."""
        if self._nested:
            return 0  # the one under way goes on
        try:
            return int(self._serves(self._raw.poll, timeout))
        except KafkaException as error:
            # a fatal error is raised from here as well as reported
            cause = error.args[0]
            if isinstance(cause, KafkaError):
                self._on_error(cause)
            return 0

    @property
    def _nested(self) -> bool:
        """Whether this is called from within an outcome of ours."""
        return self._serving == threading.get_ident()

    def _serves(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call that serves outcomes."""
        if self._nested:
            raise RuntimeError("a producer's outcomes can't be waited for from within one of them")
        self._serving = threading.get_ident()
        try:
            return call(*arguments)
        finally:
            self._serving = 0

    def flush(self, timeout: float) -> int:
        """Wait until everything sent has its outcome; returns how many are left when the time is up. Within an outcome
        it doesn't wait."""
        if self._nested:
            return len(self._raw)
        try:
            return int(self._serves(self._raw.flush, timeout))
        except KafkaException:
            # a transactional producer that was fenced reports it from here as well; `fatal` has it
            return len(self._raw)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve outcomes on this loop's thread from now on."""
        self._loop = loop
        self._schedule(IDLE_INTERVAL, busy=False)

    def _schedule(self, delay: float, *, busy: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = busy
        if self._loop is None:
            return
        self._timer = self._loop.call_later(delay, self._serve)

    def _serve(self) -> None:
        self.poll()
        busy = len(self._raw) > 0
        self._schedule(POLL_INTERVAL if busy else IDLE_INTERVAL, busy=busy)

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = translate(error)
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.fatal = self.last_error

    # --- transactions

    def init_transactions(self, timeout: float = 30.0) -> None:
        """Register the transactional id, fencing any earlier owner and finishing what it left behind."""
        self._transactional(self._raw.init_transactions, timeout)

    def begin(self) -> None:
        self._transactional(self._raw.begin_transaction)

    def commit(self, timeout: float = 30.0) -> None:
        """Commit; on TimedOut call it again: it resumes. On any other error, `abort` or build anew (see
        `fatal`)."""
        self._transactional(self._raw.commit_transaction, timeout)

    def abort(self, timeout: float = 30.0) -> None:
        self._transactional(self._raw.abort_transaction, timeout)

    def send_offsets(
        self, offsets: Mapping[TopicPartition, int | Committed], group: object, timeout: float = 30.0
    ) -> None:
        """Make the next offsets to read of a consumer (`Consumer.group_metadata()`) part of the
        transaction."""
        self._transactional(self._raw.send_offsets_to_transaction, commits(offsets), group, timeout)

    def _transactional(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._serves(call, *arguments)
        except KafkaException as error:
            named = translate(error)
            cause = error.args[0]
            if isinstance(cause, KafkaError) and (cause.fatal() or isinstance(named, Fenced)):
                self.fatal = named
            raise named from error

    def close(self, timeout: float = 5.0) -> int:
        """Flush and let go; returns how many messages were dropped without an outcome. The connections end with the
        last call that another thread is making."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        left = self.flush(timeout)
        if left:
            self._raw.purge()
            self.poll()
        # not by librdkafka's own close: that waits for outcomes without a deadline, and must not meet another call
        self._raw = Closed()
        self._produce = self._raw.produce
        return left
