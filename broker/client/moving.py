"""Moves records to the retry and dead-letter topics: the copies and the positions of what they were copied from in one
Kafka transaction, so that a crash at any moment neither loses a record nor leaves it in both places.

The transactional id is the member's own; what fences a member whose partitions were taken meanwhile is the group's
generation, which goes along with the positions (KIP-447). A transaction that a killed member left open is aborted by
the cluster after `TIMEOUT`; until then its partitions' next owner waits for their offsets.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from broker.client.administration.types import Committed
from broker.client.errors import ClientError, TimedOut, UnknownTopic
from broker.client.ladder import Outgoing
from broker.client.producing import Batch, Producer
from broker.client.records import TopicPartition

TIMEOUT = 15.0
PREFIX = "sluice.run."


class Mover:
    """One member's transactions. `make` builds a producer with this transactional id; `create` makes a topic that isn't
    there (a cluster may not create topics by itself). For one thread."""

    def __init__(self, group: str, make: Callable[[str], Producer], create: Callable[[str], None]) -> None:
        self._id = f"{PREFIX}{group}.{uuid.uuid4().hex}"
        self._make = make
        self._create = create
        self._producer: Producer | None = None
        self._known: set[str] = set()

    def open(self) -> None:
        """Make the first transaction quick, and find out now whether transactions are allowed here."""
        self._ready()

    def write(
        self, moves: Sequence[Outgoing], positions: Mapping[TopicPartition, int | Committed], group: object
    ) -> None:
        """All of it, or nothing and a ClientError."""
        for topic in {move.topic for move in moves} - self._known:
            self._create(topic)
            self._known.add(topic)
        producer = self._ready()
        try:
            producer.begin()
            finished: list[Batch] = []
            batch = producer.batch(finished.append)
            for move in moves:
                batch.send(move.topic, move.value, move.key, move.headers, move.partition)
            batch.seal()
            left = producer.flush(TIMEOUT)
            if left or batch.failures:
                raise batch.failures[0].error if batch.failures else TimedOut(f"{left} records without an outcome")
            producer.send_offsets(positions, group)
            self._commit(producer)
        except UnknownTopic:
            self._known.clear()
            self._abort()
            raise
        except ClientError:
            self._abort()
            raise

    def _ready(self) -> Producer:
        if self._producer is not None and self._producer.fatal is not None:
            self._drop()
        if self._producer is None:
            self._producer = self._make(self._id)
            try:
                self._producer.init_transactions()
            except ClientError:
                self._drop()
                raise
        return self._producer

    def _commit(self, producer: Producer) -> None:
        """On a time-out the outcome is not known: ask until it is. `Undecided` where it stays so."""
        deadline = time.monotonic() + 4 * TIMEOUT
        while True:
            try:
                return producer.commit(TIMEOUT)
            except TimedOut as error:
                if time.monotonic() > deadline:
                    raise Undecided(f"a transaction's outcome is not known: {error}") from error

    def _abort(self) -> None:
        """Leave nothing open; a producer that can't do that is built anew, which ends its transaction as well."""
        if self._producer is None:
            return
        try:
            self._producer.abort(TIMEOUT)
        except ClientError:
            self._drop()

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.close(0.0)
            self._producer = None

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None


class Undecided(Exception):
    """Whether records were moved is not known. Start the consumer again: it goes on from what the cluster has."""
