"""How a classic group gets from one generation to the next: whom it waits for, and what all are told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.groups.classic_calls import ClassicSettings, Joined, JoinedMember, Synced
from broker.groups.classic_state import Member, Snapshot, State
from broker.groups.deadlines import Deadlines
from broker.groups.ports import Reply, StateUnwritable
from broker.wire.errors import ErrorCode


class Rebalancing:
    """Members, generation and rebalance. `write` makes a snapshot durable or raises StateUnwritable."""

    def __init__(
        self,
        group_id: str,
        *,
        settings: Callable[[], ClassicSettings],
        deadlines: Deadlines[tuple[str, ...]],
        write: Callable[[Snapshot, int], None],
        new_id: Callable[[], str],
        now: int,
    ) -> None:
        self.id = group_id
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.leader: str | None = None
        self.changed_at = now
        self.members: dict[str, Member] = {}
        self._static: dict[str, str] = {}
        self._pending: set[str] = set()
        self._unsynced: set[str] = set()
        self._newcomers = False
        self._delay_left = 0
        self._settings = settings
        self._deadlines = deadlines
        self._write = write
        self._new_id = new_id

    def snapshot(self, now: int) -> Snapshot:
        """The group as it is, to be written."""
        return Snapshot(
            group_id=self.id,
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=self.leader,
            changed_at=now,
            members=tuple(self.members.values()),
        )

    def _park_join(self, member: Member, now: int) -> Reply[Joined]:
        answer(member.join, Joined(error=ErrorCode.REBALANCE_IN_PROGRESS, member_id=member.id))
        member.join = Reply()
        self._deadlines.clear((self.id, "session", member.id))
        return member.join

    def _prepare(self, now: int) -> None:
        if self.state is State.PREPARING:
            if self._deadlines.get((self.id, "delay")) is None:
                self._complete_if_all_joined(now)
            return
        was_empty = self.state is State.EMPTY
        if self.state is State.COMPLETING:
            self._drop_syncs(ErrorCode.REBALANCE_IN_PROGRESS, now)
        for member in self.members.values():
            member.assignment = b""
        self._deadlines.clear((self.id, "unsynced"))
        self._unsynced.clear()
        self._enter(State.PREPARING, now)
        timeout = self._rebalance_timeout()
        if was_empty and self._settings().initial_rebalance_delay_ms > 0:
            delay = min(self._settings().initial_rebalance_delay_ms, timeout)
            self._delay_left = max(timeout - delay, 0)
            self._newcomers = False
            self._deadlines.set((self.id, "delay"), now + delay)
            return
        self._deadlines.set((self.id, "rebalance"), now + timeout)
        self._complete_if_all_joined(now)

    def _rebalance_timeout(self) -> int:
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0)

    def _complete_if_all_joined(self, now: int) -> None:
        if not self._pending and all(m.join is not None for m in self.members.values()):
            self._complete(now)

    def _complete(self, now: int) -> None:
        self._deadlines.clear((self.id, "delay"))
        self._deadlines.clear((self.id, "rebalance"))
        for member in [m for m in self.members.values() if m.join is None and m.instance_id is None]:
            self._remove(member)
        if not self.members:
            self._become_empty(now)
            return
        joined = [m for m in self.members.values() if m.join is not None]
        if not joined:
            # Only static members that are away: wait on, their sessions decide.
            self._deadlines.set((self.id, "rebalance"), now + self._rebalance_timeout())
            return
        if self.leader not in self.members or self.members[self.leader].join is None:
            self.leader = joined[0].id
        self.generation += 1
        self.protocol = self._select_protocol()
        self._enter(State.COMPLETING, now)
        self._unsynced = {m.id for m in self.members.values()}
        self._deadlines.set((self.id, "unsynced"), now + self._rebalance_timeout())
        for member in joined:
            reply, member.join = member.join, None
            self._deadlines.clear((self.id, "new", member.id))
            self._expect(member, now)
            answer(reply, self._joined(member))
        for member in self.members.values():
            if self._deadlines.get((self.id, "session", member.id)) is None:
                self._expect(member, now)

    def _become_empty(self, now: int) -> None:
        self.generation += 1
        self.protocol = None
        self.leader = None
        self._deadlines.clear((self.id, "rebalance"))
        self._deadlines.clear((self.id, "delay"))
        self._deadlines.clear((self.id, "unsynced"))
        self._enter(State.EMPTY, now)
        try:
            self._write(self.snapshot(now), now)
        except StateUnwritable:
            # Harmless: a restart would bring the members back, and their sessions would run out again.
            return

    def _select_protocol(self) -> str:
        """Each member votes for its first protocol that everybody speaks; ties go to the first seen."""
        members = list(self.members.values())
        common = [name for name, _ in members[0].protocols if all(speaks(m, name) for m in members)]
        votes = dict.fromkeys(common, 0)
        for member in members:
            choice = next((name for name, _ in member.protocols if name in votes), None)
            if choice is not None:
                votes[choice] += 1
        return max(votes, key=lambda name: votes[name]) if votes else ""

    def _joined(self, member: Member, *, leader: str | None = None, skip: bool = False) -> Joined:
        leader = self.leader or "" if leader is None else leader
        members: Iterable[Member] = self.members.values() if leader == member.id else ()
        return Joined(
            generation_id=self.generation,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            leader=leader,
            skip_assignment=skip,
            member_id=member.id,
            members=tuple(
                JoinedMember(member_id=m.id, instance_id=m.instance_id, metadata=m.metadata(self.protocol))
                for m in members
            ),
        )

    def rebalance(self, now: int) -> None:
        """Make everybody join again."""
        if self.state is State.STABLE:
            self._prepare(now)

    def _drop_syncs(self, error: ErrorCode, now: int) -> None:
        for member in self.members.values():
            if member.sync is not None:
                reply, member.sync = member.sync, None
                self._expect(member, now)
                answer(reply, Synced(error=error))

    def _after_removal(self, now: int) -> None:
        if self.state is State.PREPARING:
            if self._deadlines.get((self.id, "delay")) is None:
                self._complete_if_all_joined(now)
        elif self.state in (State.STABLE, State.COMPLETING):
            self._prepare(now)

    def _remove(self, member: Member) -> None:
        answer(member.sync, Synced(error=ErrorCode.UNKNOWN_MEMBER_ID))
        member.join = member.sync = None
        del self.members[member.id]
        if member.instance_id is not None and self._static.get(member.instance_id) == member.id:
            del self._static[member.instance_id]
        self._unsynced.discard(member.id)
        if self.leader == member.id:
            self.leader = next(iter(self.members), None)
        self._forget_deadlines(member.id)

    def _enter(self, state: State, now: int) -> None:
        self.state = state
        self.changed_at = now

    def _expect(self, member: Member, now: int) -> None:
        """Start the member's session anew."""
        self._deadlines.set((self.id, "session", member.id), now + member.session_timeout_ms)

    def _forget_deadlines(self, member_id: str) -> None:
        self._deadlines.clear((self.id, "session", member_id))
        self._deadlines.clear((self.id, "new", member_id))


def speaks(member: Member, protocol: str) -> bool:
    """Whether the member offers the protocol."""
    return any(name == protocol for name, _ in member.protocols)


def answer(reply: Reply[Joined] | Reply[Synced] | None, value: Joined | Synced) -> None:
    """Give a parked call its answer, if it waits for one."""
    if reply is not None and not reply.done:
        reply.complete(value)  # type: ignore[arg-type]  # the pair is matched at each call
