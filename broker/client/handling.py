"""What happens to one record: claim, handler, done; or one more failure; or the dead-letter topic.

Nothing here knows of order, consumers or commits: `running` decides when a turn comes, and commits what is settled.
A record is *settled* when its handler is done, when it was done before, or when its dead letter is durable.
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from broker.client import records
from broker.client.errors import ClientError, UnknownTopic
from broker.client.ledger import Claim, ClaimState, LeaseLost, Ledger
from broker.client.policy import DeadLetterTopic, Reject, Retry
from broker.client.producing import OutgoingHeaders, Producer
from broker.client.records import Record

Handler = Callable[[Record], None]
DETAIL_LIMIT = 2000
UNWRITTEN_WAIT = 1.0


class Verdict(Enum):
    """What became of one attempt."""

    HANDLED = "handled"
    REPEATED = "repeated"
    DEAD = "dead"
    FAILED = "failed"
    HELD = "held"
    UNWRITTEN = "unwritten"


@dataclass(frozen=True, slots=True)
class Attempt:
    """`wait` seconds before the record may be tried again, where the verdict is not a settled one."""

    verdict: Verdict
    wait: float = 0.0
    error: Exception | None = None

    @property
    def settled(self) -> bool:
        return self.verdict in (Verdict.HANDLED, Verdict.REPEATED, Verdict.DEAD)


class Handling:
    """Attempts at records of one group, for one worker thread; `renew` may be called from another."""

    def __init__(
        self,
        group: str,
        handler: Handler,
        retry: Retry,
        dead_letters: "DeadLetters",
        ledger: Ledger | None,
        *,
        lease: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._group = group
        self._handler = handler
        self._retry = retry
        self._dead_letters = dead_letters
        self._ledger = ledger
        self._lease = lease
        self._clock = clock
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._claim: Claim | None = None

    def key(self, record: Record) -> str:
        """What a record is called in the ledger: the same for copies that a producer marked as one message."""
        named = record.text(records.MESSAGE_ID)
        return f"{self._group}|{named}" if named else f"{self._group}|{record.topic}/{record.partition}/{record.offset}"

    def attempt(self, record: Record, failures: int) -> Attempt:
        """Try once; `failures` is how often this record failed before."""
        if self._ledger is None:
            return self._try(record, failures, None)
        claim = self._ledger.claim(self.key(record), self._owner, now=self._clock(), lease=self._lease)
        if claim.state is ClaimState.DONE:
            return Attempt(Verdict.REPEATED)
        if claim.state is ClaimState.HELD:
            return Attempt(Verdict.HELD, min(max(claim.until - self._clock(), 0.05), 1.0))
        self._claim = claim
        try:
            outcome = self._try(record, failures, claim)
        except LeaseLost as error:
            # somebody else has it: look again what became of it
            return Attempt(Verdict.HELD, 0.1, error)
        finally:
            self._claim = None
        if not outcome.settled:
            self._ledger.release(claim)
        return outcome

    def renew(self) -> None:
        """Hold on to the claim of the attempt under way, if any. Losing it shows when the handler is done."""
        claim = self._claim
        if claim is not None and self._ledger is not None and claim.until - self._clock() < self._lease / 2:
            try:
                renewed = self._ledger.renew(claim, now=self._clock(), lease=self._lease)
            except LeaseLost:
                return
            if self._claim is claim:
                self._claim = renewed

    def _try(self, record: Record, failures: int, claim: Claim | None) -> Attempt:
        if self._dead_letters.pending(record):
            return self._bury(record, claim)
        try:
            self._handler(record)
        except Exception as error:
            if isinstance(error, Reject) or failures + 1 >= self._retry.attempts:
                self._dead_letters.condemn(record, failures + 1, error)
                return self._bury(record, claim)
            return Attempt(Verdict.FAILED, self._retry.wait(failures + 1), error)
        self._done(claim)
        return Attempt(Verdict.HANDLED)

    def _bury(self, record: Record, claim: Claim | None) -> Attempt:
        try:
            cause = self._dead_letters.write(record, self._group)
        except ClientError as problem:
            return Attempt(Verdict.UNWRITTEN, UNWRITTEN_WAIT, problem)
        self._done(claim)
        return Attempt(Verdict.DEAD, error=cause)

    def _done(self, claim: Claim | None) -> None:
        if claim is not None and self._ledger is not None:
            self._ledger.done(claim, now=self._clock())


class DeadLetters:
    """Writes dead letters. `create` makes a topic that isn't there (a cluster may not create topics by itself).

    A record that was condemned stays so until its dead letter is durable: its handler isn't run again.
    """

    def __init__(self, producer: Producer, where: DeadLetterTopic, create: Callable[[str], None]) -> None:
        self._producer = producer
        self._where = where
        self._create = create
        self._known: set[str] = set()
        self._condemned: dict[tuple[str, int, int], tuple[int, Exception]] = {}

    def condemn(self, record: Record, attempts: int, error: Exception) -> None:
        """Note that this record's attempts are used up."""
        self._condemned[record.topic, record.partition, record.offset] = attempts, error

    def pending(self, record: Record) -> bool:
        """Whether only the dead letter of this record is missing."""
        return (record.topic, record.partition, record.offset) in self._condemned

    def write(self, record: Record, group: str) -> Exception:
        """Write a condemned record's dead letter; returns its cause when it is durable, raises ClientError."""
        attempts, error = self._condemned[record.topic, record.partition, record.offset]
        topic = self._where.name(record.topic)
        if topic not in self._known:
            self._create(topic)
            self._known.add(topic)
        try:
            self._producer.send(topic, record.value, record.key, dead_headers(record, group, attempts, error))
        except UnknownTopic:
            self._known.discard(topic)
            raise
        del self._condemned[record.topic, record.partition, record.offset]
        return error


REPLACED = (
    records.ERROR_REASON,
    records.ERROR_DETAIL,
    records.ATTEMPTS,
    records.ORIGIN_TOPIC,
    records.ORIGIN_PARTITION,
    records.ORIGIN_OFFSET,
    records.ORIGIN_TIMESTAMP,
    records.ORIGIN_GROUP,
)


def dead_headers(record: Record, group: str, attempts: int, error: Exception) -> OutgoingHeaders:
    """The dead letter's headers: the record's own, and why and where it failed."""
    if isinstance(error, Reject):
        reason, detail = error.reason, str(error)
    else:
        reason, detail = "handler", f"{type(error).__name__}: {error}"
    headers: OutgoingHeaders = list(records.without(record.headers, REPLACED))
    headers += [
        (records.ERROR_REASON, reason),
        (records.ERROR_DETAIL, detail[:DETAIL_LIMIT]),
        (records.ATTEMPTS, str(attempts)),
        (records.ORIGIN_TOPIC, record.topic),
        (records.ORIGIN_PARTITION, str(record.partition)),
        (records.ORIGIN_OFFSET, str(record.offset)),
        (records.ORIGIN_TIMESTAMP, str(record.timestamp)),
        (records.ORIGIN_GROUP, group),
    ]
    return headers
