"""What happens to one record: claim, handler, done; or one more failure, here or by way of the retry topic; or a dead
letter.

Nothing here knows of order, consumers or commits: `scheduling` says whose turn it is, `running` writes what is to be
written elsewhere and commits what is settled. A record is *settled* when its handler is done, when it was done before,
when it was too old and is discarded, or when its move to the retry or dead-letter topic is durable.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from broker.client import expiry, headers, ladder, records
from broker.client.ladder import Outgoing, RecordExpired, RetryTopic, told
from broker.client.ledger import Claim, ClaimState, LeaseLost, Ledger
from broker.client.policy import DeadLetterTopic, Expired, Reject, Retry
from broker.client.records import Record

Handler = Callable[[Record], None]


class Verdict(Enum):
    """What became of one attempt."""

    HANDLED = "handled"
    REPEATED = "repeated"
    DISCARDED = "discarded"
    FAILED = "failed"
    HELD = "held"
    MOVED = "moved"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Attempt:
    """`wait` seconds before the record may be tried again, where it stays. `outgoing` is to be made durable before the
    record is settled; then, or if that never comes to be, `Handling.close` ends the claim."""

    verdict: Verdict
    wait: float = 0.0
    error: Exception | None = None
    outgoing: Outgoing | None = None
    claim: Claim | None = None

    @property
    def settled(self) -> bool:
        return self.verdict in (Verdict.HANDLED, Verdict.REPEATED, Verdict.DISCARDED)


class Handling:
    """Attempts at records of one group; for any number of threads. Retries are in place unless there is a topic for
    them."""

    def __init__(
        self,
        group: str,
        handler: Handler,
        retry: Retry,
        retries: RetryTopic | None = None,
        dead_letter: DeadLetterTopic | None = None,
        ledger: Ledger | None = None,
        *,
        expired: Expired = Expired.BURY,
        lease: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._group = group
        self._handler = handler
        self._retry = retry
        self._retries = retries
        self._dead_letter = dead_letter or DeadLetterTopic()
        self._ledger = ledger
        self._expired = expired
        self._lease = lease
        self._clock = clock
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}

    def key(self, record: Record) -> str:
        """What a record is called in the ledger: the same for copies that a producer marked as one message, and for its
        retries; another for each time an operator sent it again."""
        named = record.text(records.MESSAGE_ID)
        if not named:
            return f"{self._group}|{record.topic}/{record.partition}/{record.offset}"
        redrives = headers.number(record, headers.REDRIVES)
        return f"{self._group}|{named}" + (f"|{redrives}" if redrives else "")

    def odd(self, record: Record) -> list[str]:
        """The headers of this record that ought to say something to us, and don't (see `headers`)."""
        if not record.headers:
            return []
        retried = self._retries is not None and record.topic == self._retries.name
        read = (*expiry.READ, headers.REDRIVES, *(ladder.READ if retried else ()))
        return [header.name for header in read if headers.is_odd(record, header)]

    def due(self, record: Record) -> float:
        """When a record that was just read may be tried, epoch seconds; 0: at once."""
        if self._retries is None or record.topic != self._retries.name:
            return 0.0
        return self._retries.due(record, self._clock())

    def attempt(self, given: Record, failures: int) -> Attempt:
        """Try once; `failures` is how often this record failed since it was read."""
        record, before = given, failures
        if self._retries is not None and given.topic == self._retries.name:
            record, before = self._retries.original(given), self._retries.failures(given)
        if self._ledger is None:
            return self._try(record, before, None)
        key = self.key(record)
        claim = self._ledger.claim(key, self._owner, now=self._clock(), lease=self._lease)
        if claim.state is ClaimState.DONE:
            return Attempt(Verdict.REPEATED)
        if claim.state is ClaimState.HELD:
            return Attempt(Verdict.HELD, min(max(claim.until - self._clock(), 0.05), 1.0))
        with self._lock:
            self._claims[key] = claim
        kept = False
        try:
            outcome = self._try(record, before, claim)
            kept = outcome.outgoing is not None
        except LeaseLost as error:
            # somebody else has it: look again what became of it
            return Attempt(Verdict.HELD, 0.1, error)
        finally:
            if not kept:
                self._let_go(key)
        if not (outcome.settled or kept):
            self._ledger.release(claim)
        return outcome

    def _let_go(self, key: str) -> None:
        with self._lock:
            self._claims.pop(key, None)

    def renew(self) -> None:
        """Hold on to the claims of the attempts under way. Losing one shows when the handler is done."""
        if self._ledger is None:
            return
        now = self._clock()
        with self._lock:
            late = [claim for claim in self._claims.values() if claim.until - now < self._lease / 2]
        for claim in late:
            try:
                renewed = self._ledger.renew(claim, now=now, lease=self._lease)
            except LeaseLost:
                self._let_go(claim.key)
                continue
            with self._lock:
                if self._claims.get(claim.key) is claim:
                    self._claims[claim.key] = renewed

    def close(self, attempt: Attempt, *, written: bool) -> None:
        """The attempt's `outgoing` is durable, or given up: end its claim. A dead letter is done for good."""
        claim = attempt.claim
        if claim is None or self._ledger is None:
            return
        self._let_go(claim.key)
        if written and attempt.verdict is Verdict.DEAD:
            try:
                self._ledger.done(claim, now=self._clock())
            except LeaseLost:
                return  # whoever has it now handles a copy of what is already settled here
        else:
            self._ledger.release(claim)

    def _try(self, record: Record, failures: int, claim: Claim | None) -> Attempt:
        if expiry.is_expired(record, self._clock()):
            late = RecordExpired("too old when its turn came")
            if self._expired is Expired.DISCARD:
                self._done(claim)
                return Attempt(Verdict.DISCARDED, error=late)
            return self._bury(record, failures, late, claim)
        try:
            self._handler(record)
        except Exception as error:
            return self._failed(record, failures + 1, error, claim)
        self._done(claim)
        return Attempt(Verdict.HANDLED)

    def _failed(self, record: Record, failures: int, error: Exception, claim: Claim | None) -> Attempt:
        if isinstance(error, Reject):
            return self._bury(record, failures, error, claim)
        if self._retries is not None:
            outgoing = self._retries.next(record, failures, error, self._clock())
            if outgoing is not None:
                return Attempt(Verdict.MOVED, error=error, outgoing=outgoing, claim=claim)
        elif failures < self._retry.attempts:
            return Attempt(Verdict.FAILED, self._retry.wait(failures), error)
        return self._bury(record, failures, error, claim)

    def _bury(self, record: Record, attempts: int, error: Exception, claim: Claim | None) -> Attempt:
        letter = Outgoing(
            self._dead_letter.name(record.topic),
            -1,
            record.key,
            record.value,
            told(record, self._group, attempts, error),
        )
        return Attempt(Verdict.DEAD, error=error, outgoing=letter, claim=claim)

    def _done(self, claim: Claim | None) -> None:
        if claim is not None and self._ledger is not None:
            self._ledger.done(claim, now=self._clock())
