"""The calls of the classic protocol: which group they are for, and what kind of group that is."""

from __future__ import annotations

from collections.abc import Sequence

from broker.groups import classic_face
from broker.groups.classic import ClassicGroup
from broker.groups.classic_calls import Join, Joined, Leaver, Sync, Synced
from broker.groups.consumer import ConsumerGroup
from broker.groups.ports import Reply
from broker.groups.records import classic_record
from broker.groups.share import ShareGroup
from broker.groups.table import GroupTable
from broker.wire.errors import ErrorCode


class ClassicDoor(GroupTable):
    """JoinGroup, SyncGroup, Heartbeat, LeaveGroup."""

    def join(self, call: Join, now: int) -> Reply[Joined]:
        """JoinGroup."""
        error, limits = ErrorCode.NONE, self.settings.classic()
        if not call.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        elif not limits.min_session_timeout_ms <= call.session_timeout_ms <= limits.max_session_timeout_ms:
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        elif call.group_id not in self._groups and call.member_id:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        if error is not ErrorCode.NONE:
            return Reply(Joined(error=error, member_id=call.member_id))
        group = self._ensure(call.group_id, now)
        if isinstance(group, ConsumerGroup):
            if not group.is_empty:
                return Reply(classic_face.join(group, call, self._new_id, now))
            group = self._made_classic(group, now)
        if isinstance(group, ShareGroup):
            return Reply(Joined(error=ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id=call.member_id))
        return group.join(call, now)

    def _made_classic(self, empty: ConsumerGroup, now: int) -> ClassicGroup:
        group = self._new_classic(empty.id, now)
        group.generation = empty.epoch
        try:
            self._log.append([*self._tombstones(empty), classic_record(group.id, group.snapshot(now))], now)
        except BaseException:
            self._groups[empty.id] = empty
            raise
        return group

    def sync(self, call: Sync, now: int) -> Reply[Synced]:
        """SyncGroup."""
        if not call.group_id:
            return Reply(Synced(error=ErrorCode.INVALID_GROUP_ID))
        group = self._groups.get(call.group_id)
        if group is None or isinstance(group, ShareGroup):
            return Reply(Synced(error=ErrorCode.UNKNOWN_MEMBER_ID))
        if isinstance(group, ConsumerGroup):
            return Reply(classic_face.sync(group, call, now))
        return group.sync(call, now)

    def heartbeat(self, group_id: str, member_id: str, instance_id: str | None, generation: int, now: int) -> ErrorCode:
        """Heartbeat."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._groups.get(group_id)
        if group is None or isinstance(group, ShareGroup):
            return ErrorCode.UNKNOWN_MEMBER_ID
        if isinstance(group, ConsumerGroup):
            return classic_face.heartbeat(group, member_id, instance_id, generation, now)
        return group.heartbeat(member_id, instance_id, generation, now)

    def leave(
        self, group_id: str, leavers: Sequence[Leaver], now: int
    ) -> tuple[ErrorCode, tuple[tuple[Leaver, ErrorCode], ...]]:
        """LeaveGroup: an error of the whole call, and each member's."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID, ()
        group = self._groups.get(group_id)
        if group is None or isinstance(group, ShareGroup):
            return ErrorCode.NONE, tuple((leaver, ErrorCode.UNKNOWN_MEMBER_ID) for leaver in leavers)
        if isinstance(group, ConsumerGroup):
            results = tuple((leaver, classic_face.leave(group, leaver, now)) for leaver in leavers)
            self._settle_kind(group, now)
            return ErrorCode.NONE, results
        return ErrorCode.NONE, tuple(
            (leaver, group.leave(leaver.member_id, leaver.instance_id, now)[1]) for leaver in leavers
        )
