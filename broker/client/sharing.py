"""The share consumer (KIP-932): a queue over a topic. Every record is acknowledged one by one: accepted
(done), released (again, for somebody) or rejected (never again)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import ShareConsumer as RawShareConsumer

from broker.client.consuming import record_of
from broker.client.errors import ClientError, translate
from broker.client.records import Record, TopicPartition
from broker.client.settings import Settings


class Verdict(IntEnum):
    """Kafka's acknowledge types."""

    ACCEPT = 1
    RELEASE = 2
    REJECT = 3


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """A record that is locked for this member; `attempt` counts from 1."""

    record: Record
    attempt: int


class ShareConsumer:
    """One member of a share group, acknowledging explicitly. For one thread."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        *,
        max_records: int = 500,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        config = settings.librdkafka() | {
            "group.id": group,
            "share.acknowledgement.mode": "explicit",
            "max.poll.records": max_records,
        }
        self._raw = RawShareConsumer(config | dict(overrides or {}))

    def subscribe(self, topics: Iterable[str]) -> None:
        self._call(self._raw.subscribe, list(topics))

    def poll(self, timeout: float = 1.0) -> list[SharedRecord]:
        """Records to work on. All of the last poll's must have had their verdict."""
        found = []
        for message in self._call(self._raw.poll, timeout):
            if message.error() is not None:
                raise translate(message.error())
            found.append(SharedRecord(record_of(message), int(message.delivery_count() or 1)))
        return found

    def acknowledge(self, shared: SharedRecord, verdict: Verdict) -> None:
        """Give one record its verdict; it travels with the next `poll` or `commit`."""
        record = shared.record
        self._call(self._raw.acknowledge_offset, record.topic, record.partition, record.offset, int(verdict))

    def commit(self, timeout: float = 10.0) -> dict[TopicPartition, ClientError | None]:
        """Send the verdicts and wait; per partition what went wrong, or None."""
        outcome = self._call(self._raw.commit_sync, float(timeout))
        return {
            TopicPartition(p.topic, p.partition): None if error is None else translate(error)
            for p, error in outcome.items()
        }

    def close(self) -> None:
        """Send what is left, leave the group."""
        self._call(self._raw.close)

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except KafkaException as error:
            raise translate(error) from error
