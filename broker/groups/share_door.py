"""The calls of share groups' membership (KIP-932): which group they are for."""

from __future__ import annotations

from dataclasses import dataclass

from broker.groups.consumer_state import JOINING, LEAVING, Refused
from broker.groups.share import ShareBeat, ShareGroup, ShareHeartbeat, ShareMember, share_record
from broker.groups.table import GroupTable
from broker.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedShare:
    """A share group as ShareGroupDescribe shows it."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    group_id: str
    state: str = "Dead"
    epoch: int = 0
    members: tuple[ShareMember, ...] = ()


class ShareDoor(GroupTable):
    """ShareGroupHeartbeat, ShareGroupDescribe."""

    def share_heartbeat(self, call: ShareHeartbeat, now: int) -> ShareBeat:
        """ShareGroupHeartbeat."""
        try:
            _check(call)
            return self._share_group(call, now).heartbeat(call, now)
        except Refused as refused:
            return ShareBeat(error=refused.error, message=refused.message)

    def _share_group(self, call: ShareHeartbeat, now: int) -> ShareGroup:
        group = self._groups.get(call.group_id)
        if isinstance(group, ShareGroup):
            return group
        if group is not None:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {call.group_id} is not a share group.")
        if call.member_epoch != JOINING:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Group {call.group_id} has no such member.")
        return self._new_share(call.group_id, now)

    def describe_share(self, group_id: str) -> DescribedShare:
        """ShareGroupDescribe of one group."""
        group = self._groups.get(group_id)
        if not isinstance(group, ShareGroup):
            what = "not found" if group is None else "not a share group"
            return DescribedShare(
                error=ErrorCode.GROUP_ID_NOT_FOUND, message=f"Group {group_id} is {what}.", group_id=group_id
            )
        return DescribedShare(
            group_id=group_id, state=group.state_name, epoch=group.epoch, members=tuple(group.members.values())
        )

    def share_cut_off(self, group_id: str, member_id: str, now: int) -> None:
        """A member's connection closed."""
        group = self.share_group(group_id)
        if group is not None:
            group.cut_off(member_id, now)

    def ensure_share(self, group_id: str, now: int) -> ErrorCode:
        """Make the share group if there is no group of that id."""
        group = self._groups.get(group_id)
        if group is None:
            self._log.append([share_record(group_id, 0)], now)
            self._new_share(group_id, now)
        return ErrorCode.NONE if group is None or isinstance(group, ShareGroup) else ErrorCode.GROUP_ID_NOT_FOUND

    def is_other_than_share(self, group_id: str) -> bool:
        """Whether there is a group of that id, and it is no share group."""
        group = self._groups.get(group_id)
        return group is not None and not isinstance(group, ShareGroup)

    def share_group(self, group_id: str) -> ShareGroup | None:
        """The share group of that id."""
        group = self._groups.get(group_id)
        return group if isinstance(group, ShareGroup) else None


def _check(call: ShareHeartbeat) -> None:
    if not call.group_id.strip():
        raise Refused(ErrorCode.INVALID_REQUEST, "GroupId can't be empty.")
    if not call.member_id:
        raise Refused(ErrorCode.INVALID_REQUEST, "MemberId can't be empty.")
    if call.rack_id == "":
        raise Refused(ErrorCode.INVALID_REQUEST, "RackId can't be empty.")
    if call.member_epoch < LEAVING:
        raise Refused(ErrorCode.INVALID_REQUEST, "MemberEpoch is invalid.")
    if call.member_epoch == JOINING and not call.topics:
        raise Refused(ErrorCode.INVALID_REQUEST, "SubscribedTopicNames must be set in first request.")
