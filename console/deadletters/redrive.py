"""Pure: what a dead letter looks like when it is sent again.

The key, the value and the sender's own headers go back as they were. What the dead-letter writer added goes away: a
message that fails again is described by its new failure, not by a mix of both. Two headers say that it is a redrive:
which job, and how often so far.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from console.kafka import Record, deadletter, records

Headers = tuple[tuple[str, bytes | None], ...]

_ADDED_NAMES = frozenset(
    {
        records.ERROR_REASON,
        records.ERROR_DETAIL,
        records.ATTEMPTS,
        records.ORIGIN_TOPIC,
        records.ORIGIN_PARTITION,
        records.ORIGIN_OFFSET,
        records.ORIGIN_TIMESTAMP,
        records.ORIGIN_GROUP,
        records.REDRIVE_JOB,
        records.REDRIVE_COUNT,
        "DLQ_ORIGIN_TOPIC",
        "DLQ_ORIGIN_MESSAGE_ID",
        "RECONSUME_TIME",
        "REAL_TOPIC",
        "ORIGIN_MESSAGE_ID",
        "RECONSUMETIMES",
        "x-death",
        "_AMQ_ORIG_ADDRESS",
        "_AMQ_ORIG_QUEUE",
    }
)
_ADDED_PREFIXES = (
    "__dlq.errors.",
    "__connect.errors.",
    "kafka_dlt-",
    "retry_topic-",
    "x-first-death-",
    "x-last-death-",
)
GATEWAY = "dlq.gateway"
PREFIX = "dlq."


class NoTarget(Exception):
    """The letter doesn't say where it came from; somebody has to say where it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record to write."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def own_headers(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """The headers that the message had before it died."""
    return tuple(
        (name, value) for name, value in headers if name not in _ADDED_NAMES and not name.startswith(_ADDED_PREFIXES)
    )


def target_of(topic: str, origin: str | None) -> str | None:
    """Where a letter of this dead-letter topic came from: what it says itself, else what the topic's name says."""
    if origin:
        return origin
    if topic.startswith(PREFIX) and topic != GATEWAY:
        return topic.removeprefix(PREFIX)
    if topic.endswith("-dlt"):
        return topic.removesuffix("-dlt")
    return None


def again(record: Record, *, job: str, target: str | None = None) -> Outgoing:
    """The record to write for a dead letter; `target` overrides where it goes. Raises NoTarget."""
    letter = deadletter.describe(record)
    topic = target or target_of(record.topic, letter.topic)
    if not topic:
        raise NoTarget(f"{record.topic}/{record.partition}/{record.offset} does not say where it came from")
    return Outgoing(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=marked(_still_valid(record, letter), job=job, redrives=letter.redrives + 1),
    )


def _still_valid(record: Record, letter: deadletter.DeadLetter) -> Headers:
    """The sender's headers; what expired and is sent again all the same must not expire at once."""
    headers = own_headers(record.headers)
    return records.without(headers, [records.EXPIRES_AT]) if letter.reason == "expired" else headers


def marked(headers: Headers, *, job: str, redrives: int) -> Headers:
    """The headers with the two that say this is a redrive."""
    return (*headers, (records.REDRIVE_JOB, job.encode()), (records.REDRIVE_COUNT, str(redrives).encode()))
