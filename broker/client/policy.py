"""What an application asks of `run_consumer`: in which order, how often again and when, and what becomes of a record
that can't be handled or came too late. Pure values."""

from dataclasses import dataclass
from enum import Enum

DAY = 86_400.0
ROCKETMQ = tuple(
    [10.0, 30.0] + [60.0 * minutes for minutes in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30)] + [3600.0, 7200.0]
)
"""10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h, in seconds."""
LONGEST_TOPIC = 249


class Reject(Exception):
    """Raised by a handler: this record can never be handled; no retry. The message becomes `sluice.error.detail`."""

    def __init__(self, detail: str = "", *, reason: str = "rejected") -> None:
        super().__init__(detail)
        self.reason = reason


class Order(Enum):
    """Which records wait for which.

    PARTITION: a record is handled when all before it in its partition are settled; a retry holds its partition.
    KEY: the same for each key of a partition; the other keys go on. Records without a key wait for none.
    NONE: every record for itself.
    """

    PARTITION = "partition"
    KEY = "key"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """In place: the record stays where it is. `attempts` in all (the first included); the wait before the n-th retry is
    first * factor ** (n - 1) seconds, at most `longest`."""

    attempts: int = 5
    first: float = 0.2
    factor: float = 2.0
    longest: float = 30.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return float(min(self.longest, self.first * self.factor ** min(max(0, failures - 1), 60)))


ORDERED = Retry(attempts=17, first=3.0, factor=1.0, longest=3.0)
"""RocketMQ's pace for ordered groups: 16 retries, 3 s apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """By retry topic: a failed record moves there, waits for the next of `delays` (seconds), and is tried again; after
    the last it is a dead letter. What follows it is not held up, so order isn't kept.

    `topic` may hold {group}. It has one partition per delay, so what is due first always comes first in its partition.
    """

    delays: tuple[float, ...] = ROCKETMQ
    topic: str = "retry.{group}"

    def __post_init__(self) -> None:
        if not 1 <= len(self.delays) <= 64:
            raise ValueError(f"a ladder has 1 to 64 delays, not {len(self.delays)}")
        if not all(0 <= delay <= 30 * DAY for delay in self.delays):
            raise ValueError("a ladder's delays are seconds, from 0 to 30 days")

    def name(self, group: str) -> str:
        """The group's retry topic; raises ValueError where the group's name can't be part of a topic's."""
        name = self.topic.format(group=group)
        if len(name) > LONGEST_TOPIC or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
            raise ValueError(f"{name!r} can't be a topic's name: give Ladder(topic=...) another")
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterTopic:
    """Where records go that are given up. `topic` may hold {topic}."""

    topic: str = "dlq.{topic}"

    def name(self, topic: str) -> str:
        return self.topic.format(topic=topic)


class Expired(Enum):
    """What becomes of a record that is too old when its turn comes; both are counted.

    BURY: a dead letter with the reason `expired`. DISCARD: nothing is left of it but the count.
    """

    BURY = "bury"
    DISCARD = "discard"


def retry_for(order: Order) -> Retry:
    """What is done where an application says nothing of retries."""
    return ORDERED if order is Order.KEY else Retry()
