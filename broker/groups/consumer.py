"""The consumer group (KIP-848): the broker assigns, members converge to their targets one heartbeat at a time.

Theory of operation
-------------------
A change of members, subscriptions or topics makes a new group epoch with a new target. Each member then walks from
what it has to its target: it is told to give up what it should not have (UNREVOKED) until it says it no longer owns
it; then it enters the epoch with what is free already, and waits (UNRELEASED) for what others still hold. Nobody stops
for anybody else.

Invariants
* A partition is held (assigned or not yet given up) by one member at most, at all times: `_owners` is the proof.
* What a member is told was written before: `_commit` writes all records of a step at once, then applies them.
* A member's epoch is the group's epoch in which its assignment holds; calls under another are fenced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from broker.groups.assignors import ASSIGNORS, Candidate, Partition
from broker.groups.consumer_state import (
    JOINING,
    LEAVING,
    LEAVING_FOR_NOW,
    ConsumerBeat,
    ConsumerHeartbeat,
    ConsumerMember,
    ConsumerSettings,
    Epochs,
    MemberState,
    Refused,
    epochs_record,
    member_record,
)
from broker.groups.deadlines import Deadlines
from broker.groups.patterns import find_topics
from broker.groups.ports import StateRecord, Topics
from broker.wire.errors import ErrorCode


class ConsumerGroup:
    """State machine of one consumer group. `write` makes records durable or raises StateUnwritable."""

    type_name = "Consumer"
    protocol_type = "consumer"

    def __init__(
        self,
        group_id: str,
        *,
        topics: Topics,
        settings: Callable[[], ConsumerSettings],
        deadlines: Deadlines[tuple[str, ...]],
        write: Callable[[Sequence[StateRecord], int], None],
        now: int,
    ) -> None:
        self.id = group_id
        self.members: dict[str, ConsumerMember] = {}
        self.epochs = Epochs()
        self.changed_at = now
        self.topics = topics
        self._settings = settings
        self._deadlines = deadlines
        self._write = write
        self._owners: dict[Partition, str] = {}
        self._static: dict[str, str] = {}
        self._topics_seen = -1

    # -- what others ask --------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it."""
        return not self.members

    @property
    def epoch(self) -> int:
        """The group's epoch; its target is always made for it."""
        return self.epochs.epoch

    @property
    def state_name(self) -> str:
        """State as ListGroups and ConsumerGroupDescribe spell it."""
        if not self.members:
            return "Empty"
        settled = all(
            m.state is MemberState.STABLE and m.epoch in (self.epoch, LEAVING_FOR_NOW) for m in self.members.values()
        )
        return "Stable" if settled else "Reconciling"

    @property
    def settled(self) -> bool:
        """Whether everybody has its target."""
        return self.state_name == "Stable"

    def subscribed(self) -> frozenset[str]:
        """Topics anybody wants."""
        return frozenset(name for m in self.members.values() for name in m.subscribed)

    def static_member(self, instance_id: str) -> ConsumerMember | None:
        """The member that has the instance id now."""
        member_id = self._static.get(instance_id)
        return None if member_id is None else self.members[member_id]

    def check_epoch(self, member_id: str, epoch: int, *, stale: ErrorCode) -> ErrorCode:
        """Whether a call under that epoch is the member's (offset commits and fetches)."""
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if epoch == member.epoch else stale

    def may_get_more(self, member: ConsumerMember) -> bool:
        """Whether something the member waits for has become free."""
        if member.state is not MemberState.UNRELEASED:
            return False
        missing = self.epochs.target.get(member.id, frozenset()) - member.assigned
        return any(partition not in self._owners for partition in missing)

    # -- replay -----------------------------------------------------------------------------------------------------

    def replay_epochs(self, epochs: Epochs) -> None:
        """The group's own record came back."""
        self.epochs = epochs

    def replay_member(self, member_id: str, member: ConsumerMember | None) -> None:
        """A member's record came back."""
        self._apply([] if member is None else [member], [member_id] if member is None else [])

    def resume(self, now: int) -> None:
        """Give every member a whole session to show up again."""
        self.changed_at = now
        for member in self.members.values():
            self.expect(member, now)
            if member.state is MemberState.UNREVOKED:
                self._deadlines.set((self.id, "revoke", member.id), now + member.rebalance_timeout_ms)

    # -- heartbeats -------------------------------------------------------------------------------------------------

    def heartbeat(self, call: ConsumerHeartbeat, now: int) -> ConsumerBeat:
        """One heartbeat; raises Refused."""
        if call.member_epoch in (LEAVING, LEAVING_FOR_NOW):
            return self._leave(call, now)
        before = self._member_for(call)
        member = self.advance(before, self._updated(before, call), call.owned, now, replaced=self._replaced_by(call))
        self.expect(member, now)
        # A member that joins, asks for everything, or owns something else than it should (an answer got lost) is told.
        asks = call.member_epoch == JOINING or (
            call.owned is not None
            and (call.rebalance_timeout_ms != -1 and (call.topics is not None or call.regex is not None))
        )
        differs = member.assigned != before.assigned or (call.owned is not None and call.owned != member.assigned)
        settings = self._settings()
        waiting = member.state is MemberState.UNRELEASED
        return ConsumerBeat(
            member_id=member.id,
            epoch=member.epoch,
            interval_ms=min(settings.heartbeat_interval_ms, settings.waiting_interval_ms)
            if waiting
            else settings.heartbeat_interval_ms,
            assignment=member.assigned if asks or differs else None,
        )

    def advance(
        self,
        before: ConsumerMember,
        member: ConsumerMember,
        owned: frozenset[Partition] | None,
        now: int,
        *,
        replaced: ConsumerMember | None = None,
    ) -> ConsumerMember:
        """Let the member be as it says it is, and take it one step nearer to its target.

        `owned` is what it says it owns, None when it does not say; `replaced` the member whose place it takes.
        """
        changed = {**{i: m for i, m in self.members.items() if m is not replaced}, member.id: member}
        epochs = self._next_epochs(changed, before, member, replaced)
        if replaced is not None:
            member = replace(member, assigned=replaced.assigned, revoking=replaced.revoking, state=replaced.state)
        member = self._reconciled(member, epochs, owned, replaced)
        self._commit([member] if member != before else [], [] if replaced is None else [replaced.id], epochs, now)
        return member

    def _member_for(self, call: ConsumerHeartbeat) -> ConsumerMember:
        if call.instance_id is not None:
            static = self.static_member(call.instance_id)
            if static is not None and static.id != call.member_id:
                if call.member_epoch != JOINING:
                    raise Refused(ErrorCode.FENCED_INSTANCE_ID, f"{call.instance_id} belongs to another member now.")
                if static.epoch != LEAVING_FOR_NOW:
                    raise Refused(ErrorCode.UNRELEASED_INSTANCE_ID, f"{call.instance_id} is still in use.")
            if static is None and call.member_epoch != JOINING:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{call.instance_id} is not a member.")
        member = self.members.get(call.member_id)
        if member is None:
            if call.member_epoch != JOINING:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {call.member_id} is not a member of the group.")
            if len(self.members) >= self._settings().max_size:
                raise Refused(ErrorCode.GROUP_MAX_SIZE_REACHED, "The group is full.")
            return ConsumerMember(id=call.member_id, instance_id=call.instance_id)
        if call.member_epoch != JOINING:
            self._check_beat(member, call)
        return member

    @staticmethod
    def _check_beat(member: ConsumerMember, call: ConsumerHeartbeat) -> None:
        if call.member_epoch == member.epoch:
            return
        # The answer that raised the epoch may have got lost: the call before it, once more, is fine.
        if (
            call.member_epoch < member.epoch
            and call.member_epoch == member.previous_epoch
            and call.owned is not None
            and call.owned <= member.assigned
        ):
            return
        raise Refused(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"The epoch is {member.epoch}, not {call.member_epoch}. The member must give up its partitions and rejoin.",
        )

    def _replaced_by(self, call: ConsumerHeartbeat) -> ConsumerMember | None:
        static = self.static_member(call.instance_id) if call.instance_id is not None else None
        return static if static is not None and static.id != call.member_id else None

    def _updated(self, member: ConsumerMember, call: ConsumerHeartbeat) -> ConsumerMember:
        topics = member.topics if call.topics is None else call.topics
        regex = member.regex if call.regex is None else call.regex or None
        found = member.regex_topics
        if regex is None:
            found = frozenset()
        elif regex != member.regex or self.topics.version != self._topics_seen:
            found = find_topics(regex, self.topics.names(), call.may_see)
        return replace(
            member,
            rack_id=member.rack_id if call.rack_id is None else call.rack_id,
            rebalance_timeout_ms=call.rebalance_timeout_ms
            if call.rebalance_timeout_ms >= 0
            else member.rebalance_timeout_ms,
            client_id=call.client_id,
            client_host=call.client_host,
            topics=topics,
            regex=regex,
            regex_topics=found,
            assignor=member.assignor if call.assignor is None else call.assignor,
            classic=None,
        )

    # -- epochs and targets -------------------------------------------------------------------------------------------

    def _next_epochs(
        self,
        members: Mapping[str, ConsumerMember],
        before: ConsumerMember | None,
        after: ConsumerMember | None,
        replaced: ConsumerMember | None = None,
    ) -> Epochs:
        """The epochs once the members are these: the same when nothing that matters has changed."""
        topics = self._wanted_topics(members.values())
        same = topics == self.epochs.topics
        if after is not None:
            old = replaced or (before if before is not None and before.id in self.members else None)
            same = same and old is not None and (old.subscribed, old.assignor) == (after.subscribed, after.assignor)
            if same and replaced is not None:
                target = {m: p for m, p in self.epochs.target.items() if m != replaced.id}
                target[after.id] = self.epochs.target.get(replaced.id, frozenset())
                return replace(self.epochs, target=target)
        elif before is not None:
            same = False
        if same:
            return self.epochs
        return self._with_target(members, topics)

    def _with_target(self, members: Mapping[str, ConsumerMember], topics: Mapping[bytes, int]) -> Epochs:
        ids = {
            found.name: found.id for name in self.subscribed_by(members.values()) if (found := self.topics.topic(name))
        }
        votes = [m.assignor for m in members.values() if m.assignor]
        name = max(sorted(set(votes)), key=votes.count) if votes else next(iter(ASSIGNORS))
        candidates = {
            m.id: Candidate(
                id=m.id,
                instance_id=m.instance_id,
                topics=frozenset(ids[n] for n in m.subscribed if n in ids),
                owned=self.epochs.target.get(m.id, frozenset()) or m.assigned,
            )
            for m in members.values()
        }
        return Epochs(
            epoch=self.epochs.epoch + 1, target=ASSIGNORS[name](candidates, topics), topics=topics, assignor=name
        )

    @staticmethod
    def subscribed_by(members: Iterable[ConsumerMember]) -> frozenset[str]:
        """Topic names these members want."""
        return frozenset(name for m in members for name in m.subscribed)

    def _wanted_topics(self, members: Iterable[ConsumerMember]) -> Mapping[bytes, int]:
        found = (self.topics.topic(name) for name in self.subscribed_by(members))
        return {topic.id: topic.partitions for topic in found if topic is not None}

    # -- reconciliation -----------------------------------------------------------------------------------------------

    def _reconciled(
        self,
        member: ConsumerMember,
        epochs: Epochs,
        owned: frozenset[Partition] | None,
        replaced: ConsumerMember | None = None,
    ) -> ConsumerMember:
        """The member one step nearer to its target."""
        target = epochs.target.get(member.id, frozenset())
        if member.state is MemberState.UNREVOKED:
            if owned is None or owned & member.revoking:
                return member
            member = replace(member, revoking=frozenset())
        elif member.state is MemberState.STABLE and member.epoch == epochs.epoch and member.assigned == target:
            return member
        kept, surplus, missing = member.assigned & target, member.assigned - target, target - member.assigned
        if surplus and (owned is None or owned & surplus):
            return replace(member, state=MemberState.UNREVOKED, assigned=kept, revoking=surplus)
        mine = {member.id, None} if replaced is None else {member.id, replaced.id, None}
        free = frozenset(p for p in missing if self._owners.get(p) in mine)
        return replace(
            member,
            state=MemberState.STABLE if free == missing else MemberState.UNRELEASED,
            assigned=kept | free,
            revoking=frozenset(),
            previous_epoch=member.previous_epoch if member.epoch == epochs.epoch else member.epoch,
            epoch=epochs.epoch,
        )

    # -- leaving ------------------------------------------------------------------------------------------------------

    def _leave(self, call: ConsumerHeartbeat, now: int) -> ConsumerBeat:
        if call.instance_id is not None:
            member = self.static_member(call.instance_id)
            if member is None:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{call.instance_id} is not a member.")
            if member.id != call.member_id:
                raise Refused(ErrorCode.FENCED_INSTANCE_ID, f"{call.instance_id} belongs to another member now.")
        else:
            member = self.members.get(call.member_id)
            if member is None:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {call.member_id} is not a member of the group.")
        if call.member_epoch == LEAVING_FOR_NOW:
            # It keeps its place: whoever comes back under the instance id takes over (KIP-848, static membership).
            away = replace(
                member,
                epoch=LEAVING_FOR_NOW,
                assigned=member.assigned | member.revoking,
                revoking=frozenset(),
                state=MemberState.STABLE,
            )
            self._commit([away], [], self.epochs, now)
            self._deadlines.clear((self.id, "revoke", member.id))
        else:
            self.remove(member.id, now)
        return ConsumerBeat(member_id=call.member_id, epoch=call.member_epoch)

    def remove(self, member_id: str, now: int) -> None:
        """Take the member out, and give what it held to others."""
        member = self.members[member_id]
        rest = {i: m for i, m in self.members.items() if i != member_id}
        self._commit([], [member_id], self._next_epochs(rest, member, None), now)
        if not self.members:
            self.changed_at = now

    def expire(self, kind: str, member_id: str, now: int) -> None:
        """A deadline set by this group has come: silence, or partitions not given up in time."""
        if member_id in self.members and kind in ("session", "revoke"):
            self.remove(member_id, now)

    def die(self) -> None:
        """The group is deleted or given up."""
        for member_id in self.members:
            self._forget_deadlines(member_id)

    # -- one step -----------------------------------------------------------------------------------------------------

    def _commit(self, changed: Sequence[ConsumerMember], removed: Sequence[str], epochs: Epochs, now: int) -> None:
        """Write everything the step changes, then be it."""
        records = [member_record(self.id, member_id, None) for member_id in removed]
        records += [member_record(self.id, member.id, member) for member in changed]
        if epochs != self.epochs:
            records.append(epochs_record(self.id, epochs))
        if records:
            self._write(records, now)
        self.epochs = epochs
        self._apply(changed, removed)
        self._topics_seen = self.topics.version
        for member_id in removed:
            self._forget_deadlines(member_id)
        for member in changed:
            key = (self.id, "revoke", member.id)
            if member.state is not MemberState.UNREVOKED:
                self._deadlines.clear(key)
            elif self._deadlines.get(key) is None:
                self._deadlines.set(key, now + member.rebalance_timeout_ms)

    def _apply(self, changed: Iterable[ConsumerMember], removed: Iterable[str]) -> None:
        for member_id in removed:
            gone = self.members.pop(member_id, None)
            if gone is not None:
                self._release(gone)
                if gone.instance_id is not None and self._static.get(gone.instance_id) == member_id:
                    del self._static[gone.instance_id]
        for member in changed:
            old = self.members.get(member.id)
            if old is not None:
                self._release(old)
            self.members[member.id] = member
            if member.instance_id is not None:
                self._static[member.instance_id] = member.id
            for partition in member.holds:
                self._owners[partition] = member.id

    def _release(self, member: ConsumerMember) -> None:
        for partition in member.holds:
            if self._owners.get(partition) == member.id:
                del self._owners[partition]

    def expect(self, member: ConsumerMember, now: int) -> None:
        """Start the member's session anew."""
        timeout = member.classic.session_timeout_ms if member.classic else self._settings().session_timeout_ms
        self._deadlines.set((self.id, "session", member.id), now + timeout)

    def _forget_deadlines(self, member_id: str) -> None:
        for kind in ("session", "revoke"):
            self._deadlines.clear((self.id, kind, member_id))
