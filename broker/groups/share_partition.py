"""One partition as a share group sees it (KIP-932): which records are free, with whom, done, or given up.

Theory of operation
-------------------
Below `start` everything is done. From `end` on nothing has been handed out yet. In between lie runs: neighbouring
offsets in the same state.

AVAILABLE ─acquire (delivery count + 1)─▶ ACQUIRED ─accept─▶ ACKNOWLEDGED
    ▲                                        │  ─reject, gap─▶ ARCHIVED
    └──release, lock expiry, member gone─────┘  ─the same, when no attempt is left─▶ ARCHIVED

Invariants
* Runs are sorted, do not overlap, and cover start..end - 1 exactly; the first one is never done.
* A record is with one member at a time.
* A record on its last permitted attempt is handed out alone, so that a poison record takes no good ones with it; the
  two attempts before come in tens and hundreds at most (`ShareLimits.together`).
* A record that is given up for its own sake (rejected, no attempt left) passes through `bury` first. Where that fails
  it stays AVAILABLE with one attempt left: nothing is dropped.
* ACQUIRED is not durable, its delivery count is: `snapshot` shows it as AVAILABLE.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from broker.wire.errors import ErrorCode


class RecordState(enum.IntEnum):
    """States, numbered as Kafka numbers them on the wire of its state topic."""

    AVAILABLE = 0
    ACQUIRED = 1
    ACKNOWLEDGED = 2
    ARCHIVED = 4


class AckType(enum.IntEnum):
    """What a consumer says about a record."""

    GAP = 0
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4


DONE = (RecordState.ACKNOWLEDGED, RecordState.ARCHIVED)


class Cause(enum.Enum):
    """Why a record was given up; the values are KIP-1191's messages."""

    REJECTED = "Offset rejected by client."
    ATTEMPTS = "Offset delivery count exceeded the threshold."
    EXPIRED = "Record expired before it was delivered."
    """Our own: KIP-1191 knows no expiry."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring offsets in one state."""

    first: int
    last: int
    state: RecordState
    count: int = 0
    member: str | None = None
    lock_until: int = 0

    def same_as(self, other: Run) -> bool:
        """Whether the two differ in their offsets alone."""
        return (self.state, self.count, self.member, self.lock_until) == (
            other.state,
            other.count,
            other.member,
            other.lock_until,
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A batch in the log: `deliverable` unless it is a marker or belongs to an aborted transaction."""

    first: int
    last: int
    deliverable: bool = True


@dataclass(frozen=True, slots=True)
class Acquired:
    """Offsets handed to a member."""

    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLimits:
    """What an operator may set for a group."""

    delivery_count: int = 5
    lock_ms: int = 30_000
    max_locks: int = 2_000

    def together(self, count: int) -> int | None:
        """How many records delivered `count` times before may be handed out at once; None: any number.

        A hundred on the last attempt but two, ten on the last but one, one on the last: so a poison record parts from
        its neighbours before their attempts are used up as well, and few ever have to come alone.
        """
        left = self.delivery_count - 1 - count
        return None if count == 0 or left > 2 else 10 ** max(left, 0)


Bury = Callable[[int, int, Cause], bool]
"""Write a dead letter for (offset, delivery count, cause): whether it is written, or none is wanted."""


@dataclass(frozen=True, slots=True)
class ShareSnapshot:
    """What is durable of a share partition."""

    start: int
    runs: tuple[tuple[int, int, int, int], ...] = ()
    """First offset, last offset, state, delivery count."""


class SharePartition:
    """State machine of one partition of one share group."""

    __slots__ = ("_bury", "_firsts", "_runs", "start")

    def __init__(self, snapshot: ShareSnapshot, bury: Bury) -> None:
        self._bury = bury
        self.start = snapshot.start
        self._runs = [Run(first, last, RecordState(state), count) for first, last, state, count in snapshot.runs]
        self._firsts = [run.first for run in self._runs]
        self._tidy()

    # -- queries ----------------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """The first offset never handed out."""
        return self._runs[-1].last + 1 if self._runs else self.start

    @property
    def runs(self) -> Sequence[Run]:
        """What lies between start and end."""
        return self._runs

    def snapshot(self) -> ShareSnapshot:
        """What to write."""
        runs: list[tuple[int, int, int, int]] = []
        for run in self._runs:
            state = RecordState.AVAILABLE if run.state is RecordState.ACQUIRED else run.state
            if runs and (runs[-1][2], runs[-1][3]) == (state, run.count):
                runs[-1] = (runs[-1][0], run.last, state, run.count)
            else:
                runs.append((run.first, run.last, int(state), run.count))
        return ShareSnapshot(self.start, tuple(runs))

    def mark(self) -> tuple[int, tuple[Run, ...]]:
        """Everything, so that a step can be undone."""
        return self.start, tuple(self._runs)

    def go_back(self, mark: tuple[int, tuple[Run, ...]]) -> None:
        """Undo what was done since the mark."""
        self.start, runs = mark
        self._runs = list(runs)
        self._firsts = [run.first for run in runs]

    def has_free(self) -> bool:
        """Whether something was given back."""
        return any(run.state is RecordState.AVAILABLE for run in self._runs)

    def next_lock(self) -> int | None:
        """When the first lock runs out."""
        return min((r.lock_until for r in self._runs if r.state is RecordState.ACQUIRED), default=None)

    def next_offset(self, limits: ShareLimits) -> int | None:
        """Where to read for something to hand out; None while everything there may be is with somebody."""
        for run in self._runs:
            if run.state is RecordState.AVAILABLE:
                return run.first
        return self.end if self.end - self.start < limits.max_locks else None

    def done_in_flight(self) -> int:
        """Records beyond start that are done already."""
        return sum(r.last - r.first + 1 for r in self._runs if r.state in DONE)

    # -- handing out ------------------------------------------------------------------------------------------------

    def acquire(
        self,
        member: str,
        offset: int,
        spans: Iterable[Span],
        *,
        max_records: int,
        strict: bool,
        others: bool = False,
        limits: ShareLimits,
        now: int,
    ) -> list[Acquired]:
        """Hand out what is free among the batches read from `offset` on.

        Stops at the batch that reaches `max_records`; `strict` stops within it. `others`: the answer has records,
        so none may come that must come alone. Offsets that turn out to be no records
        (compacted away, markers, aborted) are archived on the way.
        """
        try:
            return self._acquire(member, offset, spans, max_records, strict, others, limits, now)
        finally:
            self._tidy()

    def _acquire(
        self,
        member: str,
        offset: int,
        spans: Iterable[Span],
        max_records: int,
        strict: bool,
        others: bool,
        limits: ShareLimits,
        now: int,
    ) -> list[Acquired]:
        acquired: list[Acquired] = []
        taken = 0
        expected = offset
        for span in spans:
            if span.last < expected:
                continue
            if span.first > expected:
                self._skip(expected, span.first - 1)
            first = max(span.first, expected)
            expected = span.last + 1
            if not span.deliverable:
                self._skip(first, span.last)
                continue
            alone = False
            for run in list(self._free(first, span.last, limits)):
                last_chance = run.count >= limits.delivery_count - 1
                if last_chance and (acquired or others):
                    return acquired
                last = run.last
                if last_chance:
                    last = run.first
                    alone = limits.delivery_count > 1 or run.count > 0
                elif (few := limits.together(run.count)) is not None:
                    if acquired:
                        return acquired
                    last = min(last, run.first + few - 1)
                    alone = True
                if strict:
                    last = min(last, run.first + max_records - taken - 1)
                count = max(run.count, min(run.count + 1, limits.delivery_count))
                self._put(Run(run.first, last, RecordState.ACQUIRED, count, member, now + limits.lock_ms))
                acquired.append(Acquired(run.first, last, count))
                taken += last - run.first + 1
                if alone or (strict and taken >= max_records):
                    return acquired
            if taken >= max_records or self.end - self.start >= limits.max_locks:
                break
        return acquired

    def _free(self, first: int, last: int, limits: ShareLimits) -> Iterable[Run]:
        """Free runs in first..last, what was never handed out among them."""
        for run in self._within(first, min(last, self.end - 1)):
            if run.state is RecordState.AVAILABLE:
                yield run
        last = min(last, self.start + limits.max_locks - 1)
        if last >= max(first, self.end):
            yield Run(max(first, self.end), last, RecordState.AVAILABLE)

    def _skip(self, first: int, last: int) -> None:
        """These offsets hold nothing to hand out."""
        for run in list(self._within(first, min(last, self.end - 1))):
            if run.state is RecordState.AVAILABLE:
                self._put(replace(run, state=RecordState.ARCHIVED))
        if last >= self.end:
            self._put(Run(max(first, self.end), last, RecordState.ARCHIVED))

    # -- taking back ------------------------------------------------------------------------------------------------

    def acknowledge(
        self, member: str, judgements: Iterable[tuple[int, int, Sequence[int]]], limits: ShareLimits, now: int
    ) -> ErrorCode:
        """What the member says about ranges first..last: one type for all of a range, or one each. The first wrong
        range ends it, those before it hold."""
        try:
            for first, last, types in judgements:
                code = self._acknowledge(member, first, last, types, limits, now)
                if code is not ErrorCode.NONE:
                    return code
            return ErrorCode.NONE
        finally:
            # once for all of them: it looks at every run
            self._tidy()

    def _acknowledge(
        self, member: str, first: int, last: int, types: Sequence[int], limits: ShareLimits, now: int
    ) -> ErrorCode:
        if first > last or len(types) not in (1, last - first + 1):
            return ErrorCode.INVALID_REQUEST
        if any(kind not in AckType.__members__.values() for kind in types):
            return ErrorCode.INVALID_REQUEST
        begin = max(first, self.start)
        if begin > last:
            return ErrorCode.NONE  # gone meanwhile: retention has passed it
        if last >= self.end:
            return ErrorCode.INVALID_RECORD_STATE
        held = list(self._within(begin, last))
        if any(run.state is not RecordState.ACQUIRED or run.member != member for run in held):
            return ErrorCode.INVALID_RECORD_STATE
        for run in held:
            if len(types) == 1:
                self._judge(run, AckType(types[0]), limits, now)
                continue
            at = run.first
            while at <= run.last:
                kind, upto = types[at - first], at
                while upto < run.last and types[upto + 1 - first] == kind:
                    upto += 1
                self._judge(replace(run, first=at, last=upto), AckType(kind), limits, now)
                at = upto + 1
        return ErrorCode.NONE

    def _judge(self, run: Run, kind: AckType, limits: ShareLimits, now: int) -> None:
        if kind is AckType.ACCEPT:
            self._put(_free_of(run, RecordState.ACKNOWLEDGED))
        elif kind is AckType.GAP:
            self._put(_free_of(run, RecordState.ARCHIVED))
        elif kind is AckType.RENEW:
            self._put(replace(run, lock_until=now + limits.lock_ms))
        elif kind is AckType.REJECT:
            self._give_up(run, Cause.REJECTED, limits)
        else:
            self._release(run, limits)

    def _release(self, run: Run, limits: ShareLimits) -> None:
        if run.count >= limits.delivery_count:
            self._give_up(run, Cause.ATTEMPTS, limits)
        else:
            self._put(_free_of(run, RecordState.AVAILABLE))

    def _give_up(self, run: Run, cause: Cause, limits: ShareLimits) -> None:
        for offset in range(run.first, run.last + 1):
            one = replace(run, first=offset, last=offset)
            if self._bury(offset, run.count, cause):
                self._put(_free_of(one, RecordState.ARCHIVED))
            else:
                kept = min(run.count, limits.delivery_count - 1)
                self._put(replace(_free_of(one, RecordState.AVAILABLE), count=kept))

    def give_up(self, member: str, offset: int, cause: Cause, limits: ShareLimits) -> None:
        """A record the member was about to get is not handed out after all."""
        for run in list(self._within(offset, offset)):
            if run.state is RecordState.ACQUIRED and run.member == member:
                self._give_up(run, cause, limits)
        self._tidy()

    def expire_locks(self, limits: ShareLimits, now: int) -> bool:
        """Take back what was not judged in time; whether there was any."""
        late = [r for r in self._runs if r.state is RecordState.ACQUIRED and r.lock_until <= now]
        for run in late:
            self._release(run, limits)
        self._tidy()
        return bool(late)

    def release_member(self, member: str, limits: ShareLimits) -> bool:
        """The member is gone; whether it had anything."""
        held = [r for r in self._runs if r.state is RecordState.ACQUIRED and r.member == member]
        for run in held:
            self._release(run, limits)
        self._tidy()
        return bool(held)

    def log_starts_at(self, offset: int) -> bool:
        """Retention has removed what lies before; whether that concerns this partition."""
        if offset <= self.start:
            return False
        self._runs = [replace(r, first=max(r.first, offset)) for r in self._runs if r.last >= offset]
        self._firsts = [run.first for run in self._runs]
        self.start = offset
        self._tidy()
        return True

    # -- the runs ---------------------------------------------------------------------------------------------------

    def _within(self, first: int, last: int) -> Iterable[Run]:
        """The parts of runs that lie in first..last."""
        index = max(bisect.bisect_right(self._firsts, first) - 1, 0)
        while index < len(self._runs) and self._runs[index].first <= last:
            run = self._runs[index]
            if run.last >= first:
                yield replace(run, first=max(run.first, first), last=min(run.last, last))
            index += 1

    def _put(self, run: Run) -> None:
        """Let these offsets be so, and split what they are cut from."""
        low = max(bisect.bisect_right(self._firsts, run.first) - 1, 0)
        if low < len(self._runs) and self._runs[low].last < run.first:
            low += 1
        high = bisect.bisect_right(self._firsts, run.last)
        parts = [run]
        if low < high:
            head, tail = self._runs[low], self._runs[high - 1]
            if head.first < run.first:
                parts.insert(0, replace(head, last=run.first - 1))
            if tail.last > run.last:
                parts.append(replace(tail, first=run.last + 1))
        self._runs[low:high] = parts
        self._firsts[low:high] = [part.first for part in parts]

    def _tidy(self) -> None:
        """Join neighbours that are alike, and let start pass what is done."""
        joined: list[Run] = []
        for run in self._runs:
            if joined and joined[-1].same_as(run):
                joined[-1] = replace(joined[-1], last=run.last)
            elif not joined and run.state in DONE:
                self.start = run.last + 1
            else:
                joined.append(run)
        self._runs = joined
        self._firsts = [run.first for run in joined]


def _free_of(run: Run, state: RecordState) -> Run:
    return replace(run, state=state, member=None, lock_until=0)
