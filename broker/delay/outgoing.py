"""Pure: the records that the service writes."""

from __future__ import annotations

from broker.client.delaying import DELAY_DEAD_LETTERS, DELAY_TOPIC, DELAYS, Refused
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
from broker.delay.entry import offset_of
from broker.delay.store import Due

Write = tuple[str, bytes | None, bytes | None, Headers, int]
"""(topic, value, key, headers, partition or -1)."""


def row(partition: int, number: int, value: bytes | None) -> Write:
    """A pending row of `__sluice_delays`, or its removal."""
    return DELAYS, value, b"%d" % number, (), partition


def shot(partition: int, due: Due) -> Write:
    """What the target gets."""
    entry = due.entry
    return entry.target, entry.value, entry.key, entry.headers + _origin_of(partition, due), -1


def letter(record: Record, refused: Refused) -> Write:
    """A record of `sluice.delay` that makes no sense."""
    origin = _origin(record.partition, record.offset, record.timestamp)
    return DELAY_DEAD_LETTERS, record.value, record.key, record.headers + _error(refused) + origin, -1


def late_letter(partition: int, due: Due, refused: Refused) -> Write:
    """A delivery that can't be made: as it was asked for, so that it can be sent again."""
    entry = due.entry
    wanted: Headers = ((DELIVER_TOPIC, entry.target.encode()), (DELIVER_AT, b"%d" % entry.due))
    headers = entry.headers + wanted + _error(refused) + _origin_of(partition, due)
    return DELAY_DEAD_LETTERS, entry.value, entry.key, headers, -1


def _origin_of(partition: int, due: Due) -> Headers:
    return _origin(partition, offset_of(due.row), due.entry.timestamp)


def _origin(partition: int, offset: int, timestamp: int) -> Headers:
    return (
        (ORIGIN_TOPIC, DELAY_TOPIC.encode()),
        (ORIGIN_PARTITION, b"%d" % partition),
        (ORIGIN_OFFSET, b"%d" % offset),
        (ORIGIN_TIMESTAMP, b"%d" % timestamp),
    )


def _error(refused: Refused) -> Headers:
    return (ERROR_REASON, refused.reason.encode()), (ERROR_DETAIL, refused.detail.encode("utf-8", "replace"))
