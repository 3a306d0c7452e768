"""The group coordinator: every group there is, and the calls made on them.

It owns the groups by id, their offsets and their deadlines, and turns calls into steps of one group's state
machine. Everything durable passes through the `StateLog` as compacted records; `replay` takes them back in at start,
`resume` then gives restored members a whole session. `tick` must be called when `next_deadline` has come.

A group id belongs to one kind of group at a time. A group nobody is in changes its kind by being used; a consumer
group with members and a classic group of the consumer protocol convert online (KIP-848), see `migration`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from broker.groups.classic import ClassicGroup
from broker.groups.classic_calls import ClassicSettings, Join, Joined, Leaver, Sync, Synced
from broker.groups.classic_state import Snapshot, State
from broker.groups.deadlines import Deadlines
from broker.groups.directory import (
    Described,
    DescribedMember,
    FetchedOffset,
    FetchedOffsets,
    GroupSettings,
    Listing,
    OffsetCommitCall,
    OffsetFetchCall,
)
from broker.groups.offsets import OffsetBook
from broker.groups.ports import GroupConfigs, Reply, StateLog, Topics
from broker.groups.records import (
    CLASSIC_GROUP,
    OFFSET,
    PENDING_OFFSET,
    classic_record,
    read_classic,
    read_key,
    read_offset,
    read_offset_key,
)
from broker.groups.subscription import subscribed_topics
from broker.wire.errors import ErrorCode

CONSUMER_PROTOCOL = "consumer"
_RETENTION = ("", "retention")


class GroupCoordinator:
    """All groups of this broker."""

    def __init__(
        self,
        *,
        log: StateLog,
        topics: Topics,
        configs: GroupConfigs,
        new_id: Callable[[], str],
        classic: ClassicSettings | None = None,
        settings: GroupSettings | None = None,
    ) -> None:
        self._log = log
        self._topics = topics
        self._configs = configs
        self._new_id = new_id
        self._classic = classic or ClassicSettings()
        self._settings = settings or GroupSettings()
        self._deadlines: Deadlines[tuple[str, ...]] = Deadlines()
        self._groups: dict[str, ClassicGroup] = {}
        self.offsets = OffsetBook(log)

    # -- start --------------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take one state record back in, in log order."""
        kind, parts = read_key(key)
        if kind == OFFSET:
            self.offsets.replay(read_offset_key(key), None if value is None else read_offset(value))
        elif kind == PENDING_OFFSET:
            group, producer_id, topic, partition = parts
            kept = None if value is None else read_offset(value)
            self.offsets.replay_pending(group, producer_id, (topic, partition), kept)
        elif kind == CLASSIC_GROUP:
            (group_id,) = parts
            if value is None:
                self._groups.pop(group_id, None)
            else:
                group = self._new_classic(group_id, 0)
                group.restore(read_classic(group_id, value))

    def resume(self, now: int) -> None:
        """Replay is over: sessions begin, and groups that exist by their offsets alone are known."""
        for group_id in list(self.offsets.groups()):
            if group_id not in self._groups:
                self._new_classic(group_id, now)
        for group in self._groups.values():
            group.resume(now)
        self._deadlines.set(_RETENTION, now + self._settings.retention_check_ms)

    # -- time ---------------------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in milliseconds; None for never."""
        return self._deadlines.next()

    def tick(self, now: int) -> None:
        """Do what has become due."""
        for key in self._deadlines.due(now):
            if key == _RETENTION:
                self._expire_offsets(now)
                self._deadlines.set(_RETENTION, now + self._settings.retention_check_ms)
            elif (group := self._groups.get(key[0])) is not None:
                group.expire(key[1], key[2] if len(key) > 2 else "", now)

    def _expire_offsets(self, now: int) -> None:
        """KIP-211: offsets go once their group has been empty that long, or lost interest in the topic."""
        before = now - self._settings.retention_ms
        for group in list(self._groups.values()):
            if self.offsets.has_pending(group.id):
                continue
            if group.state is State.EMPTY and (group.protocol_type is None or group.changed_at < before):
                self.offsets.delete(group.id, self.offsets.expired(group.id, before), now)
            elif group.state is State.STABLE and group.protocol_type == CONSUMER_PROTOCOL:
                wanted = self._subscribed(group)
                stale = [p for p in self.offsets.expired(group.id, before) if p[0] not in wanted]
                self.offsets.delete(group.id, stale, now)
            if group.is_empty and not self.offsets.has(group.id) and group.changed_at < before:
                self._log.append([classic_record(group.id, None)], now)
                self._drop(group)

    def abandon(self) -> None:
        """Answer whatever is parked; this coordinator will not be asked again."""
        for group in self._groups.values():
            group.die()

    # -- classic protocol ---------------------------------------------------------------------------------------

    def join(self, call: Join, now: int) -> Reply[Joined]:
        """JoinGroup."""
        error = ErrorCode.NONE
        if not call.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        elif not (
            self._classic.min_session_timeout_ms <= call.session_timeout_ms <= self._classic.max_session_timeout_ms
        ):
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        elif call.group_id not in self._groups and call.member_id:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        if error is not ErrorCode.NONE:
            return Reply(Joined(error=error, member_id=call.member_id))
        return self._classic_group(call.group_id, now).join(call, now)

    def sync(self, call: Sync, now: int) -> Reply[Synced]:
        """SyncGroup."""
        if not call.group_id:
            return Reply(Synced(error=ErrorCode.INVALID_GROUP_ID))
        group = self._groups.get(call.group_id)
        return Reply(Synced(error=ErrorCode.UNKNOWN_MEMBER_ID)) if group is None else group.sync(call, now)

    def heartbeat(self, group_id: str, member_id: str, instance_id: str | None, generation: int, now: int) -> ErrorCode:
        """Heartbeat."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return group.heartbeat(member_id, instance_id, generation, now)

    def leave(
        self, group_id: str, leavers: Sequence[Leaver], now: int
    ) -> tuple[ErrorCode, tuple[tuple[Leaver, ErrorCode], ...]]:
        """LeaveGroup: an error of the whole call, and each member's."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID, ()
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.NONE, tuple((leaver, ErrorCode.UNKNOWN_MEMBER_ID) for leaver in leavers)
        return ErrorCode.NONE, tuple(
            (leaver, group.leave(leaver.member_id, leaver.instance_id, now)[1]) for leaver in leavers
        )

    # -- offsets ------------------------------------------------------------------------------------------------

    def commit_offsets(self, call: OffsetCommitCall, now: int) -> tuple[ErrorCode, ...]:
        """OffsetCommit: one code per commit."""
        error = self._may_commit(call, now)
        if error is not ErrorCode.NONE:
            return (error,) * len(call.commits)
        codes = self._refuse_metadata(call)
        good = [commit for commit, code in zip(call.commits, codes, strict=True) if code is ErrorCode.NONE]
        if good:
            self.offsets.commit(call.group_id, good, now)
            self._classic_group(call.group_id, now)
        return codes

    def stage_offsets(self, call: OffsetCommitCall, producer_id: int, now: int) -> tuple[ErrorCode, ...]:
        """TxnOffsetCommit, once the transaction coordinator has let the producer pass."""
        error = self._may_commit(call, now) if call.member_id or call.generation_or_epoch >= 0 else ErrorCode.NONE
        if not call.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        if error is not ErrorCode.NONE:
            return (error,) * len(call.commits)
        codes = self._refuse_metadata(call)
        good = [commit for commit, code in zip(call.commits, codes, strict=True) if code is ErrorCode.NONE]
        if good:
            self.offsets.stage(call.group_id, producer_id, good, now)
            self._classic_group(call.group_id, now)
        return codes

    def settle_offsets(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        """The producer's transaction has ended for that group. Doing it again changes nothing."""
        self.offsets.settle(group_id, producer_id, commit=commit, now=now)

    def _refuse_metadata(self, call: OffsetCommitCall) -> tuple[ErrorCode, ...]:
        limit = self._settings.metadata_max_bytes
        return tuple(
            ErrorCode.OFFSET_METADATA_TOO_LARGE if len(c.metadata.encode()) > limit else ErrorCode.NONE
            for c in call.commits
        )

    def _may_commit(self, call: OffsetCommitCall, now: int) -> ErrorCode:
        if not call.group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._groups.get(call.group_id)
        if group is None:
            return ErrorCode.NONE if call.generation_or_epoch < 0 else ErrorCode.ILLEGAL_GENERATION
        if call.generation_or_epoch < 0 and not call.member_id and group.is_empty:
            return ErrorCode.NONE
        member = group.member_of(call.member_id, call.instance_id)
        if isinstance(member, ErrorCode):
            return member
        if call.generation_or_epoch != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if group.state is State.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        group.heartbeat(call.member_id, call.instance_id, group.generation, now)
        return ErrorCode.NONE

    def fetch_offsets(self, call: OffsetFetchCall) -> FetchedOffsets:
        """OffsetFetch of one group; `places` None asks for all there are."""
        if not call.group_id:
            return FetchedOffsets(group_id="", error=ErrorCode.INVALID_GROUP_ID)
        places = self.offsets.places(call.group_id) if call.places is None else call.places
        offsets = []
        for topic, partition in places:
            if call.require_stable and self.offsets.unstable(call.group_id, topic, partition):
                error, committed = ErrorCode.UNSTABLE_OFFSET_COMMIT, None
            else:
                error, committed = ErrorCode.NONE, self.offsets.committed(call.group_id, topic, partition)
            offsets.append(FetchedOffset(topic=topic, partition=partition, committed=committed, error=error))
        return FetchedOffsets(group_id=call.group_id, offsets=tuple(offsets))

    def delete_offsets(
        self, group_id: str, places: Sequence[tuple[str, int]], now: int
    ) -> tuple[ErrorCode, tuple[ErrorCode, ...]]:
        """OffsetDelete: an error of the whole call, and one code per place."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID, ()
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND, ()
        wanted: frozenset[str] = frozenset()
        if not group.is_empty:
            if group.protocol_type != CONSUMER_PROTOCOL:
                return ErrorCode.NON_EMPTY_GROUP, ()
            wanted = self._subscribed(group)
        self.offsets.delete(group_id, [place for place in places if place[0] not in wanted], now)
        return ErrorCode.NONE, tuple(
            ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if topic in wanted else ErrorCode.NONE for topic, _ in places
        )

    def topic_deleted(self, name: str, now: int) -> None:
        """Offsets in a deleted topic mean nothing any more."""
        self.offsets.drop_topic(name, now)

    # -- administration -----------------------------------------------------------------------------------------

    def list_groups(self, states: Iterable[str] = (), types: Iterable[str] = ()) -> list[Listing]:
        """ListGroups; filters compare without case, empty ones let everything pass."""
        wanted_states = {state.lower() for state in states}
        wanted_types = {kind.lower() for kind in types}
        return [
            Listing(
                group_id=group.id,
                protocol_type=group.protocol_type or "",
                state=group.state.value,
                type=group.type_name,
            )
            for group in self._groups.values()
            if (not wanted_states or group.state.value.lower() in wanted_states)
            and (not wanted_types or group.type_name.lower() in wanted_types)
        ]

    def describe_group(self, group_id: str) -> Described:
        """DescribeGroups of one classic group."""
        group = self._groups.get(group_id)
        if group is None:
            return Described(
                group_id=group_id,
                error=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id} not found.",
            )
        shown = group.state in (State.STABLE, State.COMPLETING)
        return Described(
            group_id=group_id,
            state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol=(group.protocol or "") if shown else "",
            members=tuple(
                DescribedMember(
                    member_id=m.id,
                    instance_id=m.instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    metadata=m.metadata(group.protocol) if shown else b"",
                    assignment=m.assignment if shown else b"",
                )
                for m in group.members.values()
            ),
        )

    def delete_group(self, group_id: str, now: int) -> ErrorCode:
        """DeleteGroups of one group."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._groups.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if not group.is_empty:
            return ErrorCode.NON_EMPTY_GROUP
        self._log.append([classic_record(group_id, None), *self.offsets.tombstones(group_id)], now)
        self.offsets.drop(group_id)
        self._drop(group)
        return ErrorCode.NONE

    # -- the table of groups ------------------------------------------------------------------------------------

    def _classic_group(self, group_id: str, now: int) -> ClassicGroup:
        return self._groups.get(group_id) or self._new_classic(group_id, now)

    def _new_classic(self, group_id: str, now: int) -> ClassicGroup:
        group = self._groups[group_id] = ClassicGroup(
            group_id,
            settings=self._classic,
            deadlines=self._deadlines,
            write=self._write_classic,
            new_id=self._new_id,
            now=now,
        )
        return group

    def _write_classic(self, snapshot: Snapshot, now: int) -> None:
        self._log.append([classic_record(snapshot.group_id, snapshot)], now)

    def _drop(self, group: ClassicGroup) -> None:
        group.die()
        del self._groups[group.id]

    def _subscribed(self, group: ClassicGroup) -> frozenset[str]:
        return frozenset(
            topic for m in group.members.values() for topic in subscribed_topics(m.metadata(group.protocol))
        )
