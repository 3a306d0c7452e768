"""The classic protocol as a consumer group answers it: members of both protocols in one group (KIP-848).

A classic member is a member like any other: it has an epoch, a target and an assignment. JoinGroup is its heartbeat
with a subscription (and, from version 1 of the embedded protocol, with what it owns), SyncGroup tells it its
assignment, Heartbeat sends it back to JoinGroup when its target has moved on. Nobody leads: the broker assigns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from broker.groups.assignors import Partition
from broker.groups.classic_calls import Join, Joined, Leaver, Sync, Synced
from broker.groups.consumer import ConsumerGroup
from broker.groups.consumer_state import ClassicFace, ConsumerMember, MemberState
from broker.groups.migration import embedded_assignment
from broker.groups.subscription import SUBSCRIPTION, decode_embedded
from broker.wire.errors import ErrorCode


def join(group: ConsumerGroup, call: Join, new_id: Callable[[], str], now: int) -> Joined:
    """JoinGroup: answered at once."""
    if call.protocol_type != "consumer" or not call.protocols:
        return _refused(call, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    subscription = decode_embedded(SUBSCRIPTION, call.protocols[0][1])
    if subscription is None:
        return _refused(call, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    static = group.static_member(call.instance_id) if call.instance_id is not None else None
    member_id = call.member_id
    if not member_id:
        member_id = f"{call.instance_id or call.client_id}-{new_id()}"
        if call.instance_id is None and call.require_member_id:
            return Joined(error=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id)
    elif static is not None and static.id != member_id:
        return _refused(call, ErrorCode.FENCED_INSTANCE_ID)
    before = group.members.get(member_id) or ConsumerMember(id=member_id, instance_id=call.instance_id)
    owned: frozenset[Partition] = frozenset()
    for topic in subscription.owned_partitions:
        found = group.topics.topic(topic.topic)
        if found is not None:
            owned |= {(found.id, index) for index in topic.partitions}
    after = replace(
        before,
        client_id=call.client_id,
        client_host=call.client_host,
        rebalance_timeout_ms=call.rebalance_timeout_ms,
        topics=frozenset(subscription.topics),
        classic=ClassicFace(session_timeout_ms=call.session_timeout_ms, protocols=call.protocols),
    )
    replaced = static if static is not None and static.id != member_id else None
    member = group.advance(before, after, owned, now, replaced=replaced)
    group.expect(member, now)
    return Joined(
        generation_id=member.epoch,
        protocol_type="consumer",
        protocol_name=call.protocols[0][0],
        leader="",
        member_id=member.id,
    )


def sync(group: ConsumerGroup, call: Sync, now: int) -> Synced:
    """SyncGroup: what the member has now."""
    member = _member(group, call.member_id, call.instance_id)
    if isinstance(member, ErrorCode):
        return Synced(error=member)
    if call.generation_id != member.epoch:
        return Synced(error=ErrorCode.ILLEGAL_GENERATION)
    if member.state is not MemberState.UNREVOKED and member.epoch != group.epoch:
        return Synced(error=ErrorCode.REBALANCE_IN_PROGRESS)
    group.expect(member, now)
    assert member.classic is not None
    return Synced(
        protocol_type="consumer",
        protocol_name=call.protocol_name or member.classic.protocols[0][0],
        assignment=embedded_assignment(member, group.topics),
    )


def heartbeat(group: ConsumerGroup, member_id: str, instance_id: str | None, generation: int, now: int) -> ErrorCode:
    """Heartbeat: REBALANCE_IN_PROGRESS while there is a step to take."""
    member = _member(group, member_id, instance_id)
    if isinstance(member, ErrorCode):
        return member
    if generation != member.epoch:
        return ErrorCode.ILLEGAL_GENERATION
    group.expect(member, now)
    if member.epoch != group.epoch or member.state is MemberState.UNREVOKED or group.may_get_more(member):
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def leave(group: ConsumerGroup, leaver: Leaver, now: int) -> ErrorCode:
    """LeaveGroup of one member; static ones may be taken out by their instance id alone."""
    if leaver.instance_id is not None and not leaver.member_id:
        static = group.static_member(leaver.instance_id)
        if static is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        group.remove(static.id, now)
        return ErrorCode.NONE
    static = group.static_member(leaver.instance_id) if leaver.instance_id is not None else None
    if static is not None and static.id != leaver.member_id:
        return ErrorCode.FENCED_INSTANCE_ID
    if leaver.member_id not in group.members:
        return ErrorCode.UNKNOWN_MEMBER_ID
    group.remove(leaver.member_id, now)
    return ErrorCode.NONE


def _member(group: ConsumerGroup, member_id: str, instance_id: str | None) -> ConsumerMember | ErrorCode:
    if instance_id is not None:
        static = group.static_member(instance_id)
        if static is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if static.id != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
    member = group.members.get(member_id)
    if member is None or member.classic is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return member


def _refused(call: Join, error: ErrorCode) -> Joined:
    return Joined(error=error, member_id=call.member_id)
