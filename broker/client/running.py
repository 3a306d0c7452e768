"""`run_consumer`: a handler for each record, at least once, with retries and a dead-letter topic."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from broker.client.ledger import Ledger
from broker.client.records import Record
from broker.client.settings import Settings

Handler = Callable[[Record], None]


class Reject(Exception):
    """Raised by a handler: this record can never be handled; no retry. The message becomes
    `sluice.error.detail`."""

    def __init__(self, detail: str = "", *, reason: str = "rejected") -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """`attempts` in all (the first included); the wait before the n-th retry is first * factor ** (n - 1)
    seconds, at most `longest`."""

    attempts: int = 5
    first: float = 0.2
    factor: float = 2.0
    longest: float = 30.0

    def wait(self, failures: int) -> float:
        return float(min(self.longest, self.first * self.factor ** max(0, failures - 1)))


class Order(Enum):
    """PARTITION: a record is handled when all before it in its partition are done with; a retry holds its
    partition."""

    PARTITION = "partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterTopic:
    """Where records go whose attempts are used up. `topic` may hold {topic}."""

    topic: str = "dlq.{topic}"

    def name(self, topic: str) -> str:
        return self.topic.format(topic=topic)


@dataclass(slots=True)
class Progress:
    """Counts of a running consumer, for status pages."""

    handled: int = 0
    retried: int = 0
    dead: int = 0
    repeated: int = 0
    lag: dict[str, int] = field(default_factory=dict)


def run_consumer(
    topics: Iterable[str],
    group: str,
    handler: Handler,
    *,
    retry: Retry | None = None,
    order: Order = Order.PARTITION,
    dead_letter: DeadLetterTopic | None = None,
    ledger: Ledger | None = None,
    settings: Settings | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Progress:
    """Handle each record of `topics` as a member of `group` until `stop` is set; blocks.

    An offset is committed after its record was handled, or is durable in the dead-letter topic; never before.
    `dead_letter` None means `dlq.<topic>`. With a ledger, a record is handled to done once however often it
    is read.
    """
    raise NotImplementedError
