"""The calls about committed offsets, whatever kind of group they are for, and the offsets' retention."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from broker.groups.classic_state import State
from broker.groups.consumer import ConsumerGroup
from broker.groups.directory import FetchedOffset, FetchedOffsets, OffsetCommitCall, OffsetFetchCall
from broker.groups.ports import StateUnwritable
from broker.groups.share import ShareGroup
from broker.groups.subscription import subscribed_topics
from broker.groups.table import Group, GroupTable
from broker.wire.errors import ErrorCode

CONSUMER_PROTOCOL = "consumer"
_RETENTION = ("", "retention")


class OffsetDoor(GroupTable):
    """OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete."""

    def commit_offsets(self, call: OffsetCommitCall, now: int) -> tuple[ErrorCode, ...]:
        """OffsetCommit: one code per commit."""
        error = self._may_commit(call, now)
        if error is not ErrorCode.NONE:
            return (error,) * len(call.commits)
        codes = self._refuse_metadata(call)
        good = [commit for commit, code in zip(call.commits, codes, strict=True) if code is ErrorCode.NONE]
        if good:
            self.offsets.commit(call.group_id, good, now)
            self._ensure(call.group_id, now)
        return codes

    def stage_offsets(self, call: OffsetCommitCall, producer_id: int, now: int) -> tuple[ErrorCode, ...]:
        """TxnOffsetCommit, once the transaction coordinator has let the producer pass."""
        # Before TxnOffsetCommit 3 (KIP-447) a producer could not say which member it commits for.
        named = call.member_id or call.generation_or_epoch >= 0 or call.instance_id is not None
        error = self._may_commit(call, now, transactional=True) if named else ErrorCode.NONE
        if not call.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        if error is not ErrorCode.NONE:
            return (error,) * len(call.commits)
        codes = self._refuse_metadata(call)
        good = [commit for commit, code in zip(call.commits, codes, strict=True) if code is ErrorCode.NONE]
        if good:
            self.offsets.stage(call.group_id, producer_id, good, now)
            self._ensure(call.group_id, now)
        return codes

    def settle_offsets(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        """The producer's transaction has ended for that group. Doing it again changes nothing."""
        self.offsets.settle(group_id, producer_id, commit=commit, now=now)

    def _refuse_metadata(self, call: OffsetCommitCall) -> tuple[ErrorCode, ...]:
        limit = self.settings.groups().metadata_max_bytes
        return tuple(
            ErrorCode.OFFSET_METADATA_TOO_LARGE if len(c.metadata.encode()) > limit else ErrorCode.NONE
            for c in call.commits
        )

    def _may_commit(self, call: OffsetCommitCall, now: int, *, transactional: bool = False) -> ErrorCode:
        if transactional and not call.group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._groups.get(call.group_id)
        if group is None:
            unknown = (
                ErrorCode.GROUP_ID_NOT_FOUND if call.epoch_aware and not transactional else ErrorCode.ILLEGAL_GENERATION
            )
            return ErrorCode.NONE if call.generation_or_epoch < 0 else unknown
        if isinstance(group, ShareGroup):
            return ErrorCode.GROUP_ID_NOT_FOUND
        if call.generation_or_epoch < 0 and group.is_empty:
            return ErrorCode.NONE
        if isinstance(group, ConsumerGroup):
            return self._may_commit_to_consumers(group, call)
        member = group.member_of(call.member_id, call.instance_id)
        if isinstance(member, ErrorCode):
            return member
        if call.generation_or_epoch != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if group.state is State.COMPLETING and not transactional:
            return ErrorCode.REBALANCE_IN_PROGRESS
        group.heartbeat(call.member_id, call.instance_id, group.generation, now)
        return ErrorCode.NONE

    @staticmethod
    def _may_commit_to_consumers(group: ConsumerGroup, call: OffsetCommitCall) -> ErrorCode:
        member = group.members.get(call.member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if member.classic is not None:
            return group.check_epoch(call.member_id, call.generation_or_epoch, stale=ErrorCode.ILLEGAL_GENERATION)
        if not call.epoch_aware:
            return ErrorCode.UNSUPPORTED_VERSION
        return group.check_epoch(call.member_id, call.generation_or_epoch, stale=ErrorCode.STALE_MEMBER_EPOCH)

    def fetch_offsets(self, call: OffsetFetchCall) -> FetchedOffsets:
        """OffsetFetch of one group; `places` None asks for all there are."""
        group = self._groups.get(call.group_id)
        if (
            isinstance(group, ConsumerGroup)
            and call.member_id is not None
            and (call.member_id or call.member_epoch >= 0)
        ):
            error = group.check_epoch(call.member_id, call.member_epoch, stale=ErrorCode.STALE_MEMBER_EPOCH)
            if error is not ErrorCode.NONE:
                return FetchedOffsets(group_id=call.group_id, error=error)
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
        if not group.is_empty and group.protocol_type != CONSUMER_PROTOCOL:
            return ErrorCode.NON_EMPTY_GROUP, ()
        wanted = subscribed_by(group)
        self.offsets.delete(group_id, [place for place in places if place[0] not in wanted], now)
        return ErrorCode.NONE, tuple(
            ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if topic in wanted else ErrorCode.NONE for topic, _ in places
        )

    def topic_deleted(self, name: str, now: int) -> None:
        """Offsets in a deleted topic mean nothing any more."""
        self.offsets.drop_topic(name, now)

    # -- retention ----------------------------------------------------------------------------------------------------

    def resume(self, now: int) -> None:
        """Replay is over; retention begins to be looked after."""
        super().resume(now)
        self._deadlines.set(_RETENTION, now + self.settings.groups().retention_check_ms)

    def tick(self, now: int) -> None:
        """Do what has become due."""
        at = self._deadlines.get(_RETENTION)
        if at is not None and at <= now:
            self._deadlines.set(_RETENTION, now + self.settings.groups().retention_check_ms)
            with contextlib.suppress(StateUnwritable):
                self._expire_offsets(now)
        super().tick(now)

    def _expire_offsets(self, now: int) -> None:
        """KIP-211: offsets go once their group has been empty that long, or lost interest in the topic."""
        before = now - self.settings.groups().retention_ms
        for group in list(self._groups.values()):
            if self.offsets.has_pending(group.id) or isinstance(group, ShareGroup):
                continue
            if group.is_empty and (group.protocol_type is None or group.changed_at < before):
                self.offsets.delete(group.id, self.offsets.expired(group.id, before), now)
            elif not group.is_empty and group.protocol_type == CONSUMER_PROTOCOL and group.settled:
                wanted = subscribed_by(group)
                stale = [p for p in self.offsets.expired(group.id, before) if p[0] not in wanted]
                self.offsets.delete(group.id, stale, now)
            if group.is_empty and not self.offsets.has(group.id) and group.changed_at < before:
                self._log.append(self._tombstones(group), now)
                self._drop(group)


def subscribed_by(group: Group) -> frozenset[str]:
    """Topics the members of a group of the consumer protocol want."""
    if isinstance(group, ConsumerGroup | ShareGroup):
        return group.subscribed()
    return frozenset(topic for m in group.members.values() for topic in subscribed_topics(m.metadata(group.protocol)))
