"""The retry topic of one group: failed records wait there for their next attempt.

Theory. One topic per group, one partition per delay. All records of a partition wait equally long, so they come due in
the order of their offsets: a member reads on as far as its window goes, keeps what isn't due, and pauses the partition.
It never seeks, nothing waits behind what is due later, and no service but the consumers themselves is needed. One topic
is one name to see, to grant rights on and to keep; a topic per delay would be sixteen.

A record in it carries where it came from (`sluice.origin.*`), why it failed (`sluice.error.*`), how often
(`sluice.attempts`) and when it is due (`sluice.deliver.at`). Only here are these headers believed; what is odd in them
falls back to what the partition says, so the worst that nonsense does is an attempt at the wrong time, never later than
the partition's delay after the record was read.
"""

from dataclasses import dataclass, replace

from broker.client import headers, records
from broker.client.outgoing import OutgoingHeaders
from broker.client.policy import Ladder, Reject
from broker.client.records import Record

DETAIL_LIMIT = 2000
READ = (
    headers.DELIVER_AT,
    headers.ATTEMPTS,
    headers.ORIGIN_PARTITION,
    headers.ORIGIN_OFFSET,
    headers.ORIGIN_TIMESTAMP,
)
REPLACED = (
    records.ERROR_REASON,
    records.ERROR_DETAIL,
    records.ATTEMPTS,
    records.DELIVER_AT,
    records.DELIVER_AFTER,
    records.ORIGIN_TOPIC,
    records.ORIGIN_PARTITION,
    records.ORIGIN_OFFSET,
    records.ORIGIN_TIMESTAMP,
    records.ORIGIN_GROUP,
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be written elsewhere. `partition` -1: by its key."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: OutgoingHeaders


class RetryTopic:
    """The ladder of one group. Times are epoch seconds."""

    def __init__(self, ladder: Ladder, group: str) -> None:
        self.name = ladder.name(group)
        self.delays = ladder.delays
        self._group = group

    def due(self, record: Record, now: float) -> float:
        """When a record of this topic may be tried, seen at `now`."""
        at = headers.number(record, headers.DELIVER_AT)
        if at is None:
            return now
        return min(at / 1000, now + self._delay(record.partition))

    def failures(self, record: Record) -> int:
        """How often a record of this topic has failed: 1 to the ladder's length, or more where it was longer once."""
        said = headers.number(record, headers.ATTEMPTS)
        return record.partition + 1 if said is None else said

    def original(self, record: Record) -> Record:
        """A record of this topic with the place and time it had at first (where it says so)."""
        topic = record.text(records.ORIGIN_TOPIC)
        partition = headers.number(record, headers.ORIGIN_PARTITION)
        offset = headers.number(record, headers.ORIGIN_OFFSET)
        timestamp = headers.number(record, headers.ORIGIN_TIMESTAMP)
        if not topic or partition is None or offset is None:
            return record
        return replace(
            record, topic=topic, partition=partition, offset=offset, timestamp=-1 if timestamp is None else timestamp
        )

    def next(self, original: Record, failures: int, error: Exception, now: float) -> Outgoing | None:
        """The record as it goes back into the topic after its `failures`-th failure; None: the ladder is used up."""
        if failures > len(self.delays):
            return None
        due = round((now + self.delays[failures - 1]) * 1000)
        kept = told(original, self._group, failures, error)
        return Outgoing(self.name, failures - 1, original.key, original.value, [*kept, (records.DELIVER_AT, str(due))])

    def _delay(self, partition: int) -> float:
        return self.delays[min(partition, len(self.delays) - 1)]


class RecordExpired(Exception):
    """The record was too old when its turn came."""


def told(record: Record, group: str, attempts: int, error: Exception) -> OutgoingHeaders:
    """The record's own headers, and why, how often and where it failed."""
    detail = str(error)
    if isinstance(error, Reject):
        reason = error.reason
    elif isinstance(error, RecordExpired):
        reason = "expired"
    else:
        reason, detail = "handler", f"{type(error).__name__}: {error}"
    written: OutgoingHeaders = list(records.without(record.headers, REPLACED))
    written += [
        (records.ERROR_REASON, reason),
        (records.ERROR_DETAIL, detail[:DETAIL_LIMIT]),
        (records.ATTEMPTS, str(attempts)),
        (records.ORIGIN_TOPIC, record.topic),
        (records.ORIGIN_PARTITION, str(record.partition)),
        (records.ORIGIN_OFFSET, str(record.offset)),
        (records.ORIGIN_TIMESTAMP, str(record.timestamp)),
        (records.ORIGIN_GROUP, group),
    ]
    return written
