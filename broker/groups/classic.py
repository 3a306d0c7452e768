"""The classic group: members agree on a generation by joining, and on an assignment by syncing.

Theory of operation
-------------------
EMPTY ─join─▶ PREPARING ─all joined or time-out─▶ COMPLETING ─leader synced─▶ STABLE
                  ▲                                    │ join, leave, expiry      │
                  └────────────────────────────────────┴──────────────────────────┘

Invariants
* A generation is entered by everybody at once: all parked joins are answered in the same step, and exactly one
  of the members answered is told that it leads.
* An assignment belongs to one generation. It is written before any member hears of it, and it is forgotten the
  moment a new rebalance begins, so two generations never own a partition at the same time in the same group.
* A member whose join is parked never expires: it is the coordinator who keeps it waiting.
* Every parked reply is answered exactly once: by the rebalance, or with an error when its member is replaced,
  removed, or calls again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.groups.classic_calls import ClassicSettings, Join, Joined, JoinedMember, Sync, Synced
from broker.groups.classic_state import Member, Snapshot, State
from broker.groups.deadlines import Deadlines
from broker.groups.ports import Reply, StateUnwritable
from broker.wire.errors import ErrorCode


class ClassicGroup:
    """State machine of one classic group. `write` makes a snapshot durable or raises StateUnwritable."""

    type_name = "Classic"

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

    # -- what others ask ------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it, nor about to be."""
        return not self.members and not self._pending

    @property
    def state_name(self) -> str:
        """State as ListGroups spells it."""
        return self.state.value

    @property
    def settled(self) -> bool:
        """Whether everybody has an assignment."""
        return self.state is State.STABLE

    def member_of(self, member_id: str, instance_id: str | None) -> Member | ErrorCode:
        """The member, or why the caller is not it."""
        if instance_id is not None:
            current = self._static.get(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return self.members.get(member_id) or ErrorCode.UNKNOWN_MEMBER_ID

    def static_member(self, instance_id: str) -> str | None:
        """Member id that the instance id stands for now."""
        return self._static.get(instance_id)

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

    def restore(self, snapshot: Snapshot) -> None:
        """Become what the snapshot says; sessions start when `resume` is called."""
        self.generation = snapshot.generation
        self.protocol_type = snapshot.protocol_type
        self.protocol = snapshot.protocol
        self.leader = snapshot.leader
        self.changed_at = snapshot.changed_at
        self.members = {member.id: member for member in snapshot.members}
        self._static = {m.instance_id: m.id for m in snapshot.members if m.instance_id is not None}
        self.state = State.STABLE if self.members else State.EMPTY

    def resume(self, now: int) -> None:
        """Give every restored member a whole session to show up again."""
        for member in self.members.values():
            self._expect(member, now)

    # -- join -----------------------------------------------------------------------------------------------

    def join(self, call: Join, now: int) -> Reply[Joined]:
        """Enter or re-enter; the answer comes when the generation is complete."""
        if self.state is State.DEAD:
            return _refused(call, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if not self._agrees(call):
            return _refused(call, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if not call.member_id:
            return self._join_new(call, now)
        if call.instance_id is not None:
            current = self._static.get(call.instance_id)
            if current is not None and current != call.member_id:
                return _refused(call, ErrorCode.FENCED_INSTANCE_ID)
        if call.member_id in self._pending:
            if self._full():
                return _refused(call, ErrorCode.GROUP_MAX_SIZE_REACHED)
            return self._admit(call, call.member_id, now)
        member = self.members.get(call.member_id)
        if member is None or (call.instance_id is not None and member.instance_id != call.instance_id):
            return _refused(call, ErrorCode.UNKNOWN_MEMBER_ID)
        return self._rejoin(member, call, now)

    def _join_new(self, call: Join, now: int) -> Reply[Joined]:
        if call.instance_id is not None:
            current = self._static.get(call.instance_id)
            if current is not None:
                return self._replace_static(self.members[current], call, now)
            if self._full():
                return _refused(call, ErrorCode.GROUP_MAX_SIZE_REACHED)
            return self._admit(call, f"{call.instance_id}-{self._new_id()}", now)
        if self._full():
            return _refused(call, ErrorCode.GROUP_MAX_SIZE_REACHED)
        member_id = f"{call.client_id}-{self._new_id()}"
        if call.require_member_id:
            self._pending.add(member_id)
            self._deadlines.set((self.id, "pending", member_id), now + call.session_timeout_ms)
            return Reply(Joined(error=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id))
        return self._admit(call, member_id, now)

    def _full(self) -> bool:
        return len(self.members) >= self._settings().max_size

    def _agrees(self, call: Join) -> bool:
        if not call.protocol_type or not call.protocols:
            return False
        others = [m for m in self.members.values() if m.id != call.member_id]
        if not others:
            return True
        if call.protocol_type != self.protocol_type:
            return False
        return any(all(_speaks(m, name) for m in others) for name, _ in call.protocols)

    def _admit(self, call: Join, member_id: str, now: int) -> Reply[Joined]:
        self._pending.discard(member_id)
        self._deadlines.clear((self.id, "pending", member_id))
        member = Member(
            id=member_id,
            instance_id=call.instance_id,
            client_id=call.client_id,
            client_host=call.client_host,
            session_timeout_ms=call.session_timeout_ms,
            rebalance_timeout_ms=call.rebalance_timeout_ms,
            protocols=call.protocols,
            skip_assignment=call.skip_assignment,
        )
        if not self.members:
            self.protocol_type = call.protocol_type
        self.members[member_id] = member
        if call.instance_id is not None:
            self._static[call.instance_id] = member_id
        self._newcomers = True
        reply = self._park_join(member, now)
        # KIP-394's sibling: a client that dies in mid-join is not waited for until the end of days.
        self._deadlines.set((self.id, "new", member_id), now + self._settings().new_member_join_timeout_ms)
        self._prepare(now)
        return reply

    def _rejoin(self, member: Member, call: Join, now: int) -> Reply[Joined]:
        same = member.protocols == call.protocols
        if self.state is State.COMPLETING and same:
            self._answer_again(member, call)
            return Reply(self._joined(member))
        if self.state is State.STABLE and same and member.id != self.leader:
            self._answer_again(member, call)
            self._expect(member, now)
            return Reply(self._joined(member))
        self._update(member, call)
        reply = self._park_join(member, now)
        self._prepare(now)
        return reply

    def _answer_again(self, member: Member, call: Join) -> None:
        member.client_id, member.client_host = call.client_id, call.client_host
        member.session_timeout_ms, member.rebalance_timeout_ms = call.session_timeout_ms, call.rebalance_timeout_ms

    def _update(self, member: Member, call: Join) -> None:
        self._answer_again(member, call)
        member.protocols = call.protocols
        member.skip_assignment = call.skip_assignment
        if len(self.members) == 1:
            self.protocol_type = call.protocol_type

    def _replace_static(self, old: Member, call: Join, now: int) -> Reply[Joined]:
        """KIP-345: the instance came back without its member id; the one before it is fenced."""
        member_id = f"{call.instance_id}-{self._new_id()}"
        _answer(old.join, Joined(error=ErrorCode.FENCED_INSTANCE_ID, member_id=old.id))
        _answer(old.sync, Synced(error=ErrorCode.FENCED_INSTANCE_ID))
        self._forget_deadlines(old.id)
        member = Member(
            id=member_id,
            instance_id=old.instance_id,
            client_id=call.client_id,
            client_host=call.client_host,
            session_timeout_ms=call.session_timeout_ms,
            rebalance_timeout_ms=call.rebalance_timeout_ms,
            protocols=call.protocols,
            assignment=old.assignment,
            skip_assignment=call.skip_assignment,
        )
        self.members = {(member_id if key == old.id else key): m for key, m in self.members.items()}
        self.members[member_id] = member
        self._static[call.instance_id or ""] = member_id
        if old.id in self._unsynced:
            self._unsynced.discard(old.id)
            self._unsynced.add(member_id)
        led = self.leader == old.id
        if led:
            self.leader = member_id
        if self.state is State.STABLE and self._select_protocol() == self.protocol:
            try:
                self._write(self.snapshot(now), now)
            except StateUnwritable:
                # Nobody has heard of the new id yet; the next generation will write it.
                reply = self._park_join(member, now)
                self._prepare(now)
                return reply
            self._expect(member, now)
            if not led:
                return Reply(self._joined(member))
            if call.skip_assignment:
                return Reply(self._joined(member, skip=True))
            # Before JoinGroup 9 a returning leader is told that its old self leads, so that it does not assign.
            return Reply(self._joined(member, leader=old.id))
        reply = self._park_join(member, now)
        self._prepare(now)
        return reply

    # -- the rebalance ----------------------------------------------------------------------------------------

    def _park_join(self, member: Member, now: int) -> Reply[Joined]:
        _answer(member.join, Joined(error=ErrorCode.REBALANCE_IN_PROGRESS, member_id=member.id))
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
            _answer(reply, self._joined(member))
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
        common = [name for name, _ in members[0].protocols if all(_speaks(m, name) for m in members)]
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

    # -- sync, heartbeat, leave ---------------------------------------------------------------------------------

    def sync(self, call: Sync, now: int) -> Reply[Synced]:
        """Hand in or ask for the assignment of this generation."""
        member = self.member_of(call.member_id, call.instance_id)
        if isinstance(member, ErrorCode):
            return Reply(Synced(error=member))
        if call.generation_id != self.generation:
            return Reply(Synced(error=ErrorCode.ILLEGAL_GENERATION))
        if (call.protocol_type is not None and call.protocol_type != self.protocol_type) or (
            call.protocol_name is not None and call.protocol_name != self.protocol
        ):
            return Reply(Synced(error=ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        if self.state is State.PREPARING:
            return Reply(Synced(error=ErrorCode.REBALANCE_IN_PROGRESS))
        self._unsynced.discard(member.id)
        self._expect(member, now)
        if self.state is State.STABLE:
            return Reply(self._synced(member))
        _answer(member.sync, Synced(error=ErrorCode.REBALANCE_IN_PROGRESS))
        reply: Reply[Synced] = Reply()
        member.sync = reply
        if member.id == self.leader:
            self._assign(dict(call.assignments), now)
        return reply

    def _assign(self, assignments: dict[str, bytes], now: int) -> None:
        for member in self.members.values():
            member.assignment = assignments.get(member.id, b"")
        try:
            self._write(self.snapshot(now), now)
        except StateUnwritable:
            for member in self.members.values():
                member.assignment = b""
            self._drop_syncs(ErrorCode.COORDINATOR_NOT_AVAILABLE, now)
            return
        self._enter(State.STABLE, now)
        for member in self.members.values():
            if member.sync is not None:
                reply, member.sync = member.sync, None
                self._expect(member, now)
                _answer(reply, self._synced(member))
        if not self._unsynced:
            self._deadlines.clear((self.id, "unsynced"))

    def _synced(self, member: Member) -> Synced:
        return Synced(protocol_type=self.protocol_type, protocol_name=self.protocol, assignment=member.assignment)

    def _drop_syncs(self, error: ErrorCode, now: int) -> None:
        for member in self.members.values():
            if member.sync is not None:
                reply, member.sync = member.sync, None
                self._expect(member, now)
                _answer(reply, Synced(error=error))

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int, now: int) -> ErrorCode:
        """Keep the session alive; REBALANCE_IN_PROGRESS asks the member to join again."""
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        member = self.member_of(member_id, instance_id)
        if isinstance(member, ErrorCode):
            return member
        if generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        self._expect(member, now)
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else ErrorCode.NONE

    def leave(self, member_id: str, instance_id: str | None, now: int) -> tuple[str, ErrorCode]:
        """Take the member out; the answer names it and says how that went."""
        if instance_id is not None:
            current = self._static.get(instance_id)
            if current is None:
                return member_id, ErrorCode.UNKNOWN_MEMBER_ID
            if member_id and current != member_id:
                return member_id, ErrorCode.FENCED_INSTANCE_ID
            self._leave(self.members[current], now)
            return member_id, ErrorCode.NONE
        if member_id in self._pending:
            self._drop_pending(member_id, now)
            return member_id, ErrorCode.NONE
        member = self.members.get(member_id)
        if member is None:
            return member_id, ErrorCode.UNKNOWN_MEMBER_ID
        self._leave(member, now)
        return member_id, ErrorCode.NONE

    def _leave(self, member: Member, now: int) -> None:
        _answer(member.join, Joined(error=ErrorCode.UNKNOWN_MEMBER_ID, member_id=member.id))
        self._remove(member)
        self._after_removal(now)

    def _after_removal(self, now: int) -> None:
        if self.state is State.PREPARING:
            if self._deadlines.get((self.id, "delay")) is None:
                self._complete_if_all_joined(now)
        elif self.state in (State.STABLE, State.COMPLETING):
            self._prepare(now)

    def _remove(self, member: Member) -> None:
        _answer(member.sync, Synced(error=ErrorCode.UNKNOWN_MEMBER_ID))
        member.join = member.sync = None
        del self.members[member.id]
        if member.instance_id is not None and self._static.get(member.instance_id) == member.id:
            del self._static[member.instance_id]
        self._unsynced.discard(member.id)
        if self.leader == member.id:
            self.leader = next(iter(self.members), None)
        self._forget_deadlines(member.id)

    def _drop_pending(self, member_id: str, now: int) -> None:
        self._pending.discard(member_id)
        self._deadlines.clear((self.id, "pending", member_id))
        if self.state is State.PREPARING and self._deadlines.get((self.id, "delay")) is None:
            self._complete_if_all_joined(now)

    # -- time -----------------------------------------------------------------------------------------------------

    def expire(self, kind: str, member_id: str, now: int) -> None:
        """A deadline set by this group has come."""
        if kind == "delay":
            if self._newcomers and self._delay_left > 0:
                delay = min(self._settings().initial_rebalance_delay_ms, self._delay_left)
                self._delay_left -= delay
                self._newcomers = False
                self._deadlines.set((self.id, "delay"), now + delay)
            else:
                self._complete(now)
        elif kind == "rebalance":
            for pending in list(self._pending):
                self._pending.discard(pending)
                self._deadlines.clear((self.id, "pending", pending))
            self._complete(now)
        elif kind == "unsynced":
            if self.state in (State.COMPLETING, State.STABLE):
                for late in [self.members[i] for i in sorted(self._unsynced) if i in self.members]:
                    self._remove(late)
                self._unsynced.clear()
                self._after_removal(now)
        elif kind == "pending":
            self._drop_pending(member_id, now)
        elif (member := self.members.get(member_id)) is not None:
            if kind == "session" and member.sync is not None:
                self._expect(member, now)  # parked by us: the leader's session and `unsynced` decide
            elif kind == "new" or member.join is None:
                self._leave(member, now)

    def die(self, error: ErrorCode = ErrorCode.COORDINATOR_NOT_AVAILABLE) -> None:
        """The group is deleted or given up: nothing may be parked in it any more."""
        self.state = State.DEAD
        for member in list(self.members.values()):
            _answer(member.join, Joined(error=error, member_id=member.id))
            _answer(member.sync, Synced(error=error))
            self._forget_deadlines(member.id)
        for pending in self._pending:
            self._deadlines.clear((self.id, "pending", pending))
        for kind in ("delay", "rebalance", "unsynced"):
            self._deadlines.clear((self.id, kind))

    def _enter(self, state: State, now: int) -> None:
        self.state = state
        self.changed_at = now

    def _expect(self, member: Member, now: int) -> None:
        """Start the member's session anew."""
        self._deadlines.set((self.id, "session", member.id), now + member.session_timeout_ms)

    def _forget_deadlines(self, member_id: str) -> None:
        self._deadlines.clear((self.id, "session", member_id))
        self._deadlines.clear((self.id, "new", member_id))


def _speaks(member: Member, protocol: str) -> bool:
    return any(name == protocol for name, _ in member.protocols)


def _refused(call: Join, error: ErrorCode) -> Reply[Joined]:
    return Reply(Joined(error=error, member_id=call.member_id))


def _answer(reply: Reply[Joined] | Reply[Synced] | None, value: Joined | Synced) -> None:
    if reply is not None and not reply.done:
        reply.complete(value)  # type: ignore[arg-type]  # the pair is matched at each call
