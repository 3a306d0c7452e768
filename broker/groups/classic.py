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

from broker.groups.classic_calls import Joined, Sync, Synced
from broker.groups.classic_join import Joining
from broker.groups.classic_rebalance import answer
from broker.groups.classic_state import Member, Snapshot, State
from broker.groups.ports import Reply, StateUnwritable
from broker.wire.errors import ErrorCode


class ClassicGroup(Joining):
    """State machine of one classic group."""

    type_name = "Classic"

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
        answer(member.sync, Synced(error=ErrorCode.REBALANCE_IN_PROGRESS))
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
                answer(reply, self._synced(member))
        if not self._unsynced:
            self._deadlines.clear((self.id, "unsynced"))

    def _synced(self, member: Member) -> Synced:
        return Synced(protocol_type=self.protocol_type, protocol_name=self.protocol, assignment=member.assignment)

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
        answer(member.join, Joined(error=ErrorCode.UNKNOWN_MEMBER_ID, member_id=member.id))
        self._remove(member)
        self._after_removal(now)

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
            answer(member.join, Joined(error=error, member_id=member.id))
            answer(member.sync, Synced(error=error))
            self._forget_deadlines(member.id)
        for pending in self._pending:
            self._deadlines.clear((self.id, "pending", pending))
        for kind in ("delay", "rebalance", "unsynced"):
            self._deadlines.clear((self.id, kind))
