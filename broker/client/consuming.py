"""The consumer: batches of records out, positions in.

Without a group it reads the partitions it is told to (`assign`); with one, the group's coordinator decides
(`subscribe`) and offsets are committed only when asked (`commit`): auto-commit is off, always.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as RawTopicPartition

from broker.client.administration.types import Committed
from broker.client.errors import ClientError, translate
from broker.client.records import Record, TopicPartition
from broker.client.settings import Settings
from broker.client.troubles import hearing

BEGINNING = -2
END = -1
Moved = Callable[[list[TopicPartition]], None]


class Consumer:
    """One member of a group, or a plain reader. For one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        group: str | None = None,
        *,
        protocol: str = "classic",
        isolation: str = "read_committed",
        reset: str = "earliest",
        instance: str | None = None,
        session_timeout: float = 45.0,
        poll_timeout: float = 300.0,
        fetch_wait: float = 0.5,
        queue_kbytes: int = 16_384,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """`reset` is where to start without a committed offset: earliest, latest or error.
        `protocol` is "classic" or "consumer" (KIP-848)."""
        config = settings.librdkafka() | {
            # librdkafka wants a name even where no group is joined
            "group.id": group or f"{settings.client_id}-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": reset,
            "isolation.level": isolation,
            "enable.partition.eof": False,
            # the default of 1000 stops fetching for a second whenever the queue was full once
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": int(fetch_wait * 1000),
            "fetch.error.backoff.ms": 100,
            "queued.max.messages.kbytes": queue_kbytes,
            "max.poll.interval.ms": int(poll_timeout * 1000),
            "topic.metadata.refresh.interval.ms": 30_000,
            "error_cb": hearing(self._on_error),
        }
        if protocol == "consumer":
            config["group.protocol"] = "consumer"
        else:
            config["session.timeout.ms"] = int(session_timeout * 1000)
            config["heartbeat.interval.ms"] = int(min(session_timeout / 3, 1.0) * 1000)
            config["partition.assignment.strategy"] = "cooperative-sticky"
        if instance is not None:
            config["group.instance.id"] = instance
        config |= dict(overrides or {})
        self._raw = RawConsumer(config)
        self._thread: ThreadPoolExecutor | None = None
        self._inside = 0
        """The thread that runs one of our callbacks, or 0: confluent-kafka aborts the process if another call that
        serves callbacks is made from there and a second callback follows."""
        self.group = group
        self.fatal: ClientError | None = None
        self.last_error: ClientError | None = None
        self.ends: dict[TopicPartition, int] = {}
        """With the override `enable.partition.eof`: where each partition was last read to its end. Its offset may lie
        behind the last record's, since markers and compacted records take offsets too."""

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = translate(error)
        if error.fatal():
            self.fatal = self.last_error

    # --- what to read

    def subscribe(
        self,
        topics: Iterable[str],
        *,
        assigned: Moved | None = None,
        revoked: Moved | None = None,
        lost: Moved | None = None,
    ) -> None:
        """Join the group. Names that begin with ^ are regular expressions. The callbacks run inside `poll`;
        `revoked` is the last moment to commit, `lost` means that somebody else has the partitions already."""

        def wrap(callback: Moved) -> Callable[[RawConsumer, list[RawTopicPartition]], None]:
            def moved(_: RawConsumer, partitions: list[RawTopicPartition]) -> None:
                self._inside = threading.get_ident()
                try:
                    callback([TopicPartition(p.topic, p.partition) for p in partitions])
                finally:
                    self._inside = 0

            return moved

        callbacks = {"on_assign": assigned, "on_revoke": revoked, "on_lost": lost}
        given = {name: wrap(callback) for name, callback in callbacks.items() if callback is not None}
        self._call(self._raw.subscribe, list(topics), **given)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions from these offsets (or BEGINNING, END)."""
        self._call(self._raw.assign, _positions(positions))

    def add(self, positions: Mapping[TopicPartition, int], *, known: bool = False) -> None:
        """Read these partitions too. `known`: they were read before."""
        if not known and self._inside != threading.get_ident():  # topics that the group gives us are known
            for topic in {key.topic for key in positions}:
                # fills the metadata cache: librdkafka looks for unknown topics only once a second
                self._call(self._raw.list_topics, topic, 10.0)
        self._call(self._raw.incremental_assign, _positions(positions))

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions."""
        self._call(self._raw.incremental_unassign, _partitions(partitions))

    def assignment(self) -> list[TopicPartition]:
        found: list[RawTopicPartition] = self._call(self._raw.assignment)
        return [TopicPartition(p.topic, p.partition) for p in found]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._call(self._raw.seek, RawTopicPartition(partition.topic, partition.partition, offset))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._call(self._raw.pause, _partitions(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._call(self._raw.resume, _partitions(partitions))

    # --- reading

    def poll(
        self, max_records: int = 500, timeout: float = 1.0, known: Mapping[TopicPartition, int] | None = None
    ) -> list[Record]:
        """Up to `max_records` records; an empty list when `timeout` seconds brought none. Raises ClientError
        for what a partition or the group reports (the consumer can be used on, unless `fatal` is set).

        Records before the offsets of `known` are left out: cheaper here than once they are made."""
        if self._inside == threading.get_ident():
            raise RuntimeError("a consumer can't be polled from within its own callbacks")
        messages = self._call(self._raw.consume, max_records, timeout)
        records: list[Record] = []
        for message in messages:
            if message.error() is not None:
                if message.error().code() == KafkaError._PARTITION_EOF:
                    self.ends[TopicPartition(message.topic() or "", message.partition() or 0)] = message.offset() or 0
                else:
                    if message.error().fatal() or message.error().code() == KafkaError._FATAL:
                        self.fatal = translate(message.error())  # not every fatal error comes by the callback
                    if records:
                        # what was read before the error is delivered; the error comes again or has passed
                        self.last_error = translate(message.error())
                        continue
                    raise translate(message.error())
                continue
            if known is not None:
                # a plain tuple is equal, and made sooner
                known_to = known.get((message.topic(), message.partition()))  # type: ignore[call-overload]
                if known_to is not None and (message.offset() or 0) < known_to:
                    continue
            records.append(record_of(message))
        if not records and self.fatal is not None:
            raise self.fatal
        return records

    async def records(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:
        """`poll` for an event loop: it waits in a thread of this consumer's own."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="consumer")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.poll, max_records, timeout)

    # --- positions

    def commit(self, offsets: Mapping[TopicPartition, int | Committed]) -> None:
        """Commit the next offsets to read, and wait for the coordinator's answer."""
        positions = commits(offsets)
        if not positions:
            return
        for outcome in self._call(self._raw.commit, offsets=positions, asynchronous=False) or []:
            if outcome.error is not None:
                raise translate(outcome.error)

    def committed(self, partitions: Iterable[TopicPartition], timeout: float = 10.0) -> dict[TopicPartition, int]:
        """The next offsets to read that the group has committed; partitions without one are left out.

        Their metadata is the admin's to tell (`group_offsets`): what librdkafka gives of it can have a tail of stray
        bytes (2.16, seen against Apache Kafka 4.4).
        """
        found = self._call(self._raw.committed, _partitions(partitions), timeout)
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def commits(self, partitions: Iterable[TopicPartition], timeout: float = 10.0) -> dict[TopicPartition, Committed]:
        """`committed`, with the metadata; that may end in stray bytes (see `committed`)."""
        found = self._call(self._raw.committed, _partitions(partitions), timeout)
        for each in found:
            if each.error is not None:
                raise translate(each.error)
        return {
            TopicPartition(p.topic, p.partition): Committed(p.offset, p.metadata or "") for p in found if p.offset >= 0
        }

    def position(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The next offset that `poll` returns; partitions not read from yet are left out."""
        found = self._call(self._raw.position, _partitions(partitions))
        return {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def group_metadata(self) -> object:
        """What `Producer.send_offsets` wants."""
        return self._raw.consumer_group_metadata()

    def member_id(self) -> str:
        return str(self._raw.memberid() or "")

    def close(self) -> None:
        """Leave the group and let go."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
        self._call(self._raw.close)

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except KafkaException as error:
            raise translate(error) from error


def commits(offsets: Mapping[TopicPartition, int | Committed]) -> list[RawTopicPartition]:
    """Offsets to commit as librdkafka wants them."""
    positions = []
    for (topic, partition), place in offsets.items():
        if isinstance(place, Committed):
            positions.append(RawTopicPartition(topic, partition, place.offset, place.metadata))
        else:
            positions.append(RawTopicPartition(topic, partition, place))
    return positions


def record_of(message: Message) -> Record:
    """The record in a message that carries no error."""
    # read messages carry a list of pairs, always
    headers: Any = message.headers()
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(headers) if headers else (),
    )


def _positions(positions: Mapping[TopicPartition, int]) -> list[RawTopicPartition]:
    return [RawTopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]


def _partitions(partitions: Iterable[TopicPartition]) -> list[RawTopicPartition]:
    return [RawTopicPartition(topic, partition) for topic, partition in partitions]
