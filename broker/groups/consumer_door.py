"""The calls of the consumer protocol (KIP-848): which group they are for, and whether it may be one."""

from __future__ import annotations

from dataclasses import dataclass

from broker.groups.assignors import ASSIGNORS
from broker.groups.classic import ClassicGroup
from broker.groups.consumer import ConsumerGroup
from broker.groups.consumer_state import (
    JOINING,
    LEAVING_FOR_NOW,
    ConsumerBeat,
    ConsumerHeartbeat,
    ConsumerMember,
    Epochs,
    Refused,
    epochs_record,
    member_record,
)
from broker.groups.migration import consumer_from_classic
from broker.groups.patterns import BadPattern, compiled
from broker.groups.table import GroupTable
from broker.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedConsumers:
    """A consumer group as ConsumerGroupDescribe shows it."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    group_id: str
    state: str = "Dead"
    epochs: Epochs | None = None
    members: tuple[ConsumerMember, ...] = ()


class ConsumerDoor(GroupTable):
    """ConsumerGroupHeartbeat, ConsumerGroupDescribe."""

    def consumer_heartbeat(self, call: ConsumerHeartbeat, now: int) -> ConsumerBeat:
        """ConsumerGroupHeartbeat."""
        try:
            _check(call)
            group = self._consumer_group(call, now)
            beat = group.heartbeat(call, now)
        except Refused as refused:
            return ConsumerBeat(error=refused.error, message=refused.message)
        except BadPattern as bad:
            return ConsumerBeat(error=ErrorCode.INVALID_REGULAR_EXPRESSION, message=str(bad))
        if call.member_epoch < 0:
            self._settle_kind(group, now)
        return beat

    def _consumer_group(self, call: ConsumerHeartbeat, now: int) -> ConsumerGroup:
        group = self._groups.get(call.group_id)
        if isinstance(group, ConsumerGroup):
            return group
        if group is None:
            if call.member_epoch != JOINING:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Group {call.group_id} has no such member.")
            return self._new_consumer(call.group_id, now)
        if not isinstance(group, ClassicGroup):
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {call.group_id} is not a consumer group.")
        if call.member_epoch != JOINING:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Group {call.group_id} has no such member.")
        return self._made_consumer(group, now)

    def _made_consumer(self, classic: ClassicGroup, now: int) -> ConsumerGroup:
        """KIP-848's upgrade: a classic group becomes a consumer group, with its members in it."""
        if classic.members and classic.protocol_type != "consumer":
            raise Refused(
                ErrorCode.GROUP_ID_NOT_FOUND, f"Group {classic.id} is a classic group of type {classic.protocol_type}."
            )
        epochs, members = consumer_from_classic(classic, self._topics)
        self._log.append(
            [
                *self._tombstones(classic),
                epochs_record(classic.id, epochs),
                *(member_record(classic.id, m.id, m) for m in members),
            ],
            now,
        )
        classic.die(ErrorCode.REBALANCE_IN_PROGRESS)
        group = self._new_consumer(classic.id, now)
        group.replay_epochs(epochs)
        for member in members:
            group.replay_member(member.id, member)
        group.resume(now)
        return group

    def describe_consumers(self, group_id: str) -> DescribedConsumers:
        """ConsumerGroupDescribe of one group."""
        if not group_id:
            return DescribedConsumers(error=ErrorCode.INVALID_GROUP_ID, message=None, group_id=group_id)
        group = self._groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            what = "not found" if group is None else "not a consumer group"
            return DescribedConsumers(
                error=ErrorCode.GROUP_ID_NOT_FOUND, message=f"Group {group_id} is {what}.", group_id=group_id
            )
        return DescribedConsumers(
            group_id=group_id, state=group.state_name, epochs=group.epochs, members=tuple(group.members.values())
        )


def _check(call: ConsumerHeartbeat) -> None:
    def demand(holds: bool, message: str, error: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        if not holds:
            raise Refused(error, message)

    demand(bool(call.group_id.strip()), "GroupId can't be empty.")
    demand(bool(call.member_id), "MemberId can't be empty.")
    demand(call.instance_id != "", "InstanceId can't be empty.")
    demand(call.rack_id != "", "RackId can't be empty.")
    demand(call.member_epoch >= LEAVING_FOR_NOW, "MemberEpoch is invalid.")
    if call.member_epoch == JOINING:
        demand(call.rebalance_timeout_ms > 0, "RebalanceTimeoutMs must be provided in the first request.")
        demand(call.owned is not None and not call.owned, "TopicPartitions must be empty when (re-)joining.")
        demand(
            call.topics is not None or bool(call.regex),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be set in the first request.",
        )
    if call.member_epoch == LEAVING_FOR_NOW:
        demand(call.instance_id is not None, "InstanceId can't be null.")
    demand(
        call.assignor is None or call.assignor in ASSIGNORS,
        f"ServerAssignor {call.assignor} is not supported. Supported assignors: {', '.join(ASSIGNORS)}.",
        ErrorCode.UNSUPPORTED_ASSIGNOR,
    )
    if call.regex:
        compiled(call.regex)
