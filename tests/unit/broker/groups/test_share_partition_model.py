"""Random lives of a share partition beside a naive model that keeps a state per offset."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.groups.share_partition import (
    DONE,
    Cause,
    RecordState,
    ShareLimits,
    SharePartition,
    ShareSnapshot,
    Span,
)
from broker.wire.errors import ErrorCode

LIMITS = ShareLimits(delivery_count=3, lock_ms=1_000, max_locks=40)
MEMBERS = ["a", "b", "c"]


class ShareLife(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 0
        self.log: list[Span] = []
        self.log_end = 10
        self.buried: list[tuple[int, Cause]] = []
        self.grave_open = True
        self.state: dict[int, tuple[RecordState, int, str | None]] = {}
        self.accepted: set[int] = set()
        self.counts: dict[int, int] = {}
        self.partition = SharePartition(ShareSnapshot(10), self.bury)

    def bury(self, offset: int, count: int, cause: Cause) -> bool:
        if self.grave_open:
            self.buried.append((offset, cause))
        return self.grave_open

    # -- the log ----------------------------------------------------------------------------------------------------

    @rule(size=st.integers(1, 8), gap=st.sampled_from([0, 0, 0, 2]), deliverable=st.sampled_from([True, True, False]))
    def produce(self, size: int, gap: int, deliverable: bool) -> None:
        first = self.log_end + gap
        self.log.append(Span(first, first + size - 1, deliverable))
        self.log_end = first + size

    @rule(back=st.integers(0, 3))
    def retain(self, back: int) -> None:
        if back == 3 and self.log:
            self.log.pop(0)
            start = self.log[0].first if self.log else self.log_end
            self.partition.log_starts_at(start)
            for offset in [o for o in self.state if o < start]:
                del self.state[offset]

    # -- members ----------------------------------------------------------------------------------------------------

    @rule(member=st.sampled_from(MEMBERS), most=st.integers(1, 12), strict=st.booleans())
    def fetch(self, member: str, most: int, strict: bool) -> None:
        offset = self.partition.next_offset(LIMITS)
        if offset is None:
            return
        spans = [s for s in self.log if s.last >= offset]
        acquired = self.partition.acquire(
            member, offset, spans, max_records=most, strict=strict, limits=LIMITS, now=self.now
        )
        total = 0
        for piece in acquired:
            for at in range(piece.first, piece.last + 1):
                span = next(s for s in self.log if s.first <= at <= s.last)
                assert span.deliverable, "only records are handed out"
                state, count, _ = self.state.get(at, (RecordState.AVAILABLE, 0, None))
                assert state is RecordState.AVAILABLE, "handed out while it was not free"
                assert piece.count >= count, "a delivery count fell"
                assert at not in self.accepted
                self.state[at] = (RecordState.ACQUIRED, piece.count, member)
                total += 1
        if any(piece.count >= LIMITS.delivery_count for piece in acquired):
            assert total == 1, "the last attempt comes alone"
        if strict:
            assert total <= most
        # what holds no record is passed over beyond the window too; nothing is handed out there
        assert all(piece.last - self.partition.start < LIMITS.max_locks for piece in acquired)

    @rule(member=st.sampled_from(MEMBERS), data=st.data())
    def judge(self, member: str, data: st.DataObject) -> None:
        held = sorted(o for o, (s, _, m) in self.state.items() if s is RecordState.ACQUIRED and m == member)
        if not held:
            return
        first = data.draw(st.sampled_from(held))
        last = first
        while last + 1 in held and data.draw(st.booleans()):
            last += 1
        size = last - first + 1
        types = data.draw(
            st.one_of(
                st.lists(st.integers(0, 4), min_size=size, max_size=size),
                st.lists(st.integers(0, 4), min_size=1, max_size=1),
            )
        )
        assert self.partition.acknowledge(member, [(first, last, types)], LIMITS, self.now) is ErrorCode.NONE
        for at in range(first, last + 1):
            kind = types[0] if len(types) == 1 else types[at - first]
            _, count, _ = self.state[at]
            if kind == 1:
                self.accepted.add(at)
                self.state[at] = (RecordState.ACKNOWLEDGED, count, None)
            elif kind == 0:
                self.state[at] = (RecordState.ARCHIVED, count, None)
            elif kind == 3:
                self.give_up(at, count)
            elif kind == 2:
                self.give_back(at, count)

    def give_up(self, at: int, count: int) -> None:
        if self.grave_open:
            self.state[at] = (RecordState.ARCHIVED, count, None)
        else:
            self.state[at] = (RecordState.AVAILABLE, min(count, LIMITS.delivery_count - 1), None)

    def give_back(self, at: int, count: int) -> None:
        if count >= LIMITS.delivery_count:
            self.give_up(at, count)
        else:
            self.state[at] = (RecordState.AVAILABLE, count, None)

    @rule(member=st.sampled_from(MEMBERS), other=st.sampled_from(MEMBERS), kind=st.integers(1, 4))
    def judge_what_another_has(self, member: str, other: str, kind: int) -> None:
        held = [o for o, (s, _, m) in self.state.items() if s is RecordState.ACQUIRED and m == other]
        if member != other and held:
            before = self.partition.snapshot()
            code = self.partition.acknowledge(member, [(held[0], held[0], [kind])], LIMITS, self.now)
            assert code is ErrorCode.INVALID_RECORD_STATE
            assert self.partition.snapshot() == before

    @rule(member=st.sampled_from(MEMBERS))
    def go(self, member: str) -> None:
        self.partition.release_member(member, LIMITS)
        for at, (state, count, owner) in list(self.state.items()):
            if state is RecordState.ACQUIRED and owner == member:
                self.give_back(at, count)

    @rule(ms=st.sampled_from([10, 500, 1_001]))
    def pass_time(self, ms: int) -> None:
        self.now += ms
        if ms > LIMITS.lock_ms:
            self.partition.expire_locks(LIMITS, self.now)
            for at, (state, count, _) in list(self.state.items()):
                if state is RecordState.ACQUIRED:
                    self.give_back(at, count)

    @rule()
    def open_or_close_the_grave(self) -> None:
        self.grave_open = not self.grave_open

    @rule()
    def crash(self) -> None:
        self.partition = SharePartition(self.partition.snapshot(), self.bury)
        for at, (state, count, _) in list(self.state.items()):
            if state is RecordState.ACQUIRED:
                self.state[at] = (RecordState.AVAILABLE, count, None)

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def runs_cover_what_lies_between_start_and_end(self) -> None:
        at = self.partition.start
        for run in self.partition.runs:
            assert run.first == at <= run.last
            at = run.last + 1
        assert at == self.partition.end
        if self.partition.runs:
            assert self.partition.runs[0].state not in DONE

    @invariant()
    def every_record_is_in_the_state_the_model_says(self) -> None:
        seen: dict[int, tuple[RecordState, int, str | None]] = {}
        for run in self.partition.runs:
            for at in range(run.first, run.last + 1):
                seen[at] = (run.state, run.count, run.member)
        for at, expected in self.state.items():
            if at < self.partition.start:
                assert expected[0] in DONE, f"{at} was passed over"
            else:
                assert seen[at] == expected, at

    @invariant()
    def nothing_is_buried_that_was_accepted(self) -> None:
        assert not self.accepted & {offset for offset, _ in self.buried}


ShareLife.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestShareLife = ShareLife.TestCase
