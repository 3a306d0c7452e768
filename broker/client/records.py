"""Records as they cross the seam, and the headers that the product gives them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic. Also what librdkafka, the consumer and the admin are keyed by."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read. `timestamp` is epoch milliseconds, -1 where there is none; keys and values
    are None where the log holds a null."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def origin(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    def header(self, name: str) -> bytes | None:
        """The last header of this name (the last one wins, as in Kafka's own `lastHeader`)."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None

    def text(self, name: str) -> str | None:
        """The header as text; None where it is missing. Bytes that are no UTF-8 become `\\xff` and the like: two ids
        that differ in them stay two."""
        value = self.header(name)
        return None if value is None else value.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where the log put a record that was acknowledged."""

    topic: str
    partition: int
    offset: int


MESSAGE_ID = "sluice.message.id"
DELIVER_TOPIC = "sluice.deliver.topic"
DELIVER_AT = "sluice.deliver.at"
DELIVER_AFTER = "sluice.deliver.after"
DELIVER_CANCEL = "sluice.deliver.cancel"
DELIVER_CANCEL_ROW = "sluice.deliver.cancel.row"
EXPIRES_AT = "sluice.expires.at"
ERROR_REASON = "sluice.error.reason"
ERROR_DETAIL = "sluice.error.detail"
ATTEMPTS = "sluice.attempts"
ORIGIN_TOPIC = "sluice.origin.topic"
ORIGIN_PARTITION = "sluice.origin.partition"
ORIGIN_OFFSET = "sluice.origin.offset"
ORIGIN_TIMESTAMP = "sluice.origin.timestamp"
ORIGIN_GROUP = "sluice.origin.group"
REDRIVE_JOB = "sluice.redrive.job"
REDRIVE_COUNT = "sluice.redrive.count"
TRACE = "sluice.trace"


def without(headers: Iterable[tuple[str, bytes | None]], names: Iterable[str]) -> Headers:
    """The headers less those of these names."""
    dropped = frozenset(names)
    return tuple((key, value) for key, value in headers if key not in dropped)
