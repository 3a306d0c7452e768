"""How members enter a classic group: newcomers, members that come back, static members that replace themselves."""

from __future__ import annotations

from broker.groups.classic_calls import Join, Joined, Synced
from broker.groups.classic_rebalance import Rebalancing, answer, speaks
from broker.groups.classic_state import Member, State
from broker.groups.ports import Reply, StateUnwritable
from broker.wire.errors import ErrorCode


class Joining(Rebalancing):
    """JoinGroup."""

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
        return any(all(speaks(m, name) for m in others) for name, _ in call.protocols)

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
        answer(old.join, Joined(error=ErrorCode.FENCED_INSTANCE_ID, member_id=old.id))
        answer(old.sync, Synced(error=ErrorCode.FENCED_INSTANCE_ID))
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


def _refused(call: Join, error: ErrorCode) -> Reply[Joined]:
    return Reply(Joined(error=error, member_id=call.member_id))
