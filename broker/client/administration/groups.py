"""The admin's calls for groups of every kind: ListGroups, the three describes, offsets, deletion.

A classic group is described by DescribeGroups, one of KIP-848 by ConsumerGroupDescribe, a share group by
ShareGroupDescribe; a broker of an earlier version has the first alone. The listing tells which is which.
"""

from collections.abc import Iterable, Mapping

from broker.client.administration.link import Link
from broker.client.administration.offsets import by_topic
from broker.client.administration.types import Committed, Group, GroupKind, GroupListing, Member, ShareOffset
from broker.client.errors import (
    ClientError,
    NotAuthorized,
    UnknownGroup,
    UnsupportedByCluster,
    from_code,
)
from broker.client.records import TopicPartition
from broker.wire import codec
from broker.wire.codec import Malformed, Struct

OFFSET_COMMIT, OFFSET_FETCH, LEAVE_GROUP, DESCRIBE_GROUPS, LIST_GROUPS = 8, 9, 13, 15, 16
DELETE_GROUPS, OFFSET_DELETE, CONSUMER_GROUP_DESCRIBE, SHARE_GROUP_DESCRIBE = 42, 47, 69, 77
DESCRIBE_SHARE_OFFSETS, ALTER_SHARE_OFFSETS, DELETE_SHARE_OFFSETS = 90, 91, 92
BATCHED_OFFSET_FETCH = 8
NAMED_TOPICS = 9
GROUP_ID_NOT_FOUND = 69
DESCRIBE = {GroupKind.CONSUMER: CONSUMER_GROUP_DESCRIBE, GroupKind.SHARE: SHARE_GROUP_DESCRIBE}
REQUEST = {GroupKind.CONSUMER: "ConsumerGroupDescribeRequest", GroupKind.SHARE: "ShareGroupDescribeRequest"}


async def listing(link: Link) -> tuple[GroupListing, ...]:
    return await link.retried(lambda _: _listing(link))


async def _listing(link: Link) -> tuple[GroupListing, ...]:
    found: dict[str, GroupListing] = {}
    for broker in list(await link.brokers()):
        answer = await link.ask(LIST_GROUPS, codec.struct("ListGroupsRequest")(), broker)
        _refuse(answer)
        for each in answer.groups:
            kind = _kind(each.group_type) if each.group_type else GroupKind.CLASSIC
            found[each.group_id] = GroupListing(
                name=each.group_id, kind=kind, state=each.group_state or "", protocol_type=each.protocol_type
            )
    return tuple(found[name] for name in sorted(found))


def _kind(label: str) -> GroupKind:
    try:
        return GroupKind(label.lower())
    except ValueError:
        return GroupKind.UNKNOWN


async def describe(link: Link, names: Iterable[str]) -> dict[str, Group]:
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    return await link.retried(lambda _: _describe(link, wanted))


async def _describe(link: Link, wanted: list[str]) -> dict[str, Group]:
    kinds = {each.name: each.kind for each in await listing(link)}
    found: dict[str, Group] = {}
    for broker, mine in (await link.coordinators(wanted)).items():
        by_kind: dict[GroupKind, list[str]] = {}
        for name in mine:
            if name in kinds:
                by_kind.setdefault(kinds[name], []).append(name)
        for kind, members in by_kind.items():
            try:
                if kind in DESCRIBE:
                    request = codec.struct(REQUEST[kind])(group_ids=members)
                    answer = await link.ask(DESCRIBE[kind], request, broker)
                    described = [_modern(each, kind, broker) for each in answer.groups if _there(each)]
                else:
                    request = codec.struct("DescribeGroupsRequest")(groups=members)
                    answer = await link.ask(DESCRIBE_GROUPS, request, broker)
                    described = [_classic(each, broker) for each in answer.groups if _there(each)]
            except UnsupportedByCluster:
                continue
            found |= {group.name: group for group in described}
    return found


def _there(each: Struct) -> bool:
    """Whether the group could be described; raises what is neither absence nor missing rights."""
    if not each.error_code:
        return True
    error = from_code(each.error_code, each.error_message)
    if isinstance(error, UnknownGroup | NotAuthorized):
        return False
    raise error


def _classic(each: Struct, broker: int) -> Group:
    members = []
    for member in each.members:
        assignment, subscribed = (), ()  # type: tuple[TopicPartition, ...], tuple[str, ...]
        if each.protocol_type == "consumer":
            assignment = _assignment(bytes(member.member_assignment))
            subscribed = _subscription(bytes(member.member_metadata))
        members.append(
            Member(
                id=member.member_id,
                instance=member.group_instance_id,
                client_id=member.client_id,
                host=member.client_host.lstrip("/"),
                assignment=assignment,
                subscribed=subscribed,
            )
        )
    return Group(
        name=each.group_id,
        kind=GroupKind.CLASSIC,
        state=each.group_state,
        assignor=each.protocol_data,
        coordinator=broker,
        members=tuple(members),
        protocol_type=each.protocol_type,
    )


def _assignment(data: bytes) -> tuple[TopicPartition, ...]:
    """The partitions in a member's assignment (ConsumerProtocolAssignment); () where it is something else."""
    found = _versioned("ConsumerProtocolAssignment", data)
    if found is None:
        return ()
    return tuple(TopicPartition(each.topic, i) for each in found.assigned_partitions for i in sorted(each.partitions))


def _subscription(data: bytes) -> tuple[str, ...]:
    found = _versioned("ConsumerProtocolSubscription", data)
    return () if found is None else tuple(found.topics)


def _versioned(name: str, data: bytes) -> Struct | None:
    if len(data) < 2:
        return None
    version = int.from_bytes(data[:2], "big", signed=True)
    for known in dict.fromkeys((max(0, min(version, 3)), 0)):
        try:
            return codec.decode(name, known, data[2:])
        except Malformed:
            continue
    return None


def _modern(each: Struct, kind: GroupKind, broker: int) -> Group:
    members = []
    for member in each.members:
        shared = kind is GroupKind.SHARE
        members.append(
            Member(
                id=member.member_id,
                instance=None if shared else member.instance_id,
                client_id=member.client_id,
                host=member.client_host.lstrip("/"),
                assignment=_places(member.assignment),
                target=None if shared else _places(member.target_assignment),
                epoch=member.member_epoch,
                subscribed=tuple(member.subscribed_topic_names),
                rack=member.rack_id,
            )
        )
    return Group(
        name=each.group_id,
        kind=kind,
        state=each.group_state,
        assignor=each.assignor_name,
        coordinator=broker,
        members=tuple(members),
        epoch=each.group_epoch,
        protocol_type="share" if kind is GroupKind.SHARE else "consumer",
    )


def _places(assignment: Struct) -> tuple[TopicPartition, ...]:
    return tuple(
        TopicPartition(each.topic_name, index)
        for each in assignment.topic_partitions
        for index in sorted(each.partitions)
    )


async def committed(
    link: Link, names: Iterable[str], *, require_stable: bool
) -> dict[str, dict[TopicPartition, Committed]]:
    wanted = list(names)
    return await link.retried(lambda _: _committed(link, wanted, require_stable))


async def _committed(link: Link, names: list[str], require_stable: bool) -> dict[str, dict[TopicPartition, Committed]]:
    found: dict[str, dict[TopicPartition, Committed]] = {}
    for broker, mine in (await link.coordinators(names)).items():
        try:
            answers = await _fetch_batched(link, broker, mine, require_stable)
        except UnsupportedByCluster:
            answers = [(name, await _fetch_one(link, broker, name)) for name in mine]
        for name, answer in answers:
            if answer.error_code:
                error = from_code(answer.error_code)
                if isinstance(error, NotAuthorized | UnknownGroup):
                    continue
                raise error
            places = found[name] = {}
            for topic in answer.topics:
                for part in topic.partitions:
                    if part.error_code:
                        raise from_code(part.error_code, f"{name}: {topic.name}-{part.partition_index}")
                    if part.committed_offset >= 0:
                        places[TopicPartition(topic.name, part.partition_index)] = Committed(
                            part.committed_offset, part.metadata or "", part.committed_leader_epoch
                        )
    return found


async def _fetch_batched(link: Link, broker: int, names: list[str], stable: bool) -> list[tuple[str, Struct]]:
    make = codec.struct("OffsetFetchRequest.OffsetFetchRequestGroup")
    request = codec.struct("OffsetFetchRequest")(
        groups=[make(group_id=name, member_epoch=-1, topics=None) for name in names], require_stable=stable
    )
    answer = await link.ask(OFFSET_FETCH, request, broker, at_least=BATCHED_OFFSET_FETCH, at_most=NAMED_TOPICS)
    return [(each.group_id, each) for each in answer.groups]


async def _fetch_one(link: Link, broker: int, name: str) -> Struct:
    request = codec.struct("OffsetFetchRequest")(group_id=name, topics=None)
    return await link.ask(OFFSET_FETCH, request, broker, at_least=2, at_most=BATCHED_OFFSET_FETCH - 1)


async def _coordinator(link: Link, group: str) -> int:
    return next(iter(await link.coordinators([group])))


async def commit(link: Link, group: str, places: Mapping[TopicPartition, int | Committed]) -> None:
    if not places:
        return
    make = codec.struct("OffsetCommitRequest.OffsetCommitRequestPartition")
    topic = codec.struct("OffsetCommitRequest.OffsetCommitRequestTopic")

    def entry(partition: TopicPartition) -> Struct:
        place = places[partition]
        full = place if isinstance(place, Committed) else Committed(place)
        return make(
            partition_index=partition.partition,
            committed_offset=full.offset,
            committed_leader_epoch=full.leader_epoch,
            committed_metadata=full.metadata,
        )

    request = codec.struct("OffsetCommitRequest")(
        group_id=group,
        generation_id_or_member_epoch=-1,
        topics=[
            topic(name=name, partitions=[entry(TopicPartition(name, i)) for i in indexes])
            for name, indexes in by_topic(places)
        ],
    )

    async def attempt(_: float) -> Struct:
        answer = await link.ask(OFFSET_COMMIT, request, await _coordinator(link, group), at_most=NAMED_TOPICS)
        _refuse_parts(answer)
        return answer

    # committing the same offsets twice changes nothing, so this may be asked again
    await link.retried(attempt)


def _refuse_parts(answer: Struct) -> None:
    for topic in answer.topics:
        for part in topic.partitions:
            if part.error_code:
                raise _of_group(part.error_code, f"{topic.name}-{part.partition_index}")


def _of_group(code: int, message: str | None) -> ClientError:
    # a group with members answers an offset commit from outside with "unknown member" or "rebalance in progress"
    return from_code(68 if code in (25, 22, 27) else code, message)


async def forget(link: Link, group: str, partitions: Iterable[TopicPartition]) -> None:
    make = codec.struct("OffsetDeleteRequest.OffsetDeleteRequestPartition")
    topic = codec.struct("OffsetDeleteRequest.OffsetDeleteRequestTopic")
    request = codec.struct("OffsetDeleteRequest")(
        group_id=group,
        topics=[
            topic(name=name, partitions=[make(partition_index=i) for i in indexes])
            for name, indexes in by_topic(partitions)
        ],
    )

    async def attempt(_: float) -> Struct:
        answer = await link.ask(OFFSET_DELETE, request, await _coordinator(link, group))
        _refuse(answer)
        for each in answer.topics:
            for part in each.partitions:
                if part.error_code:
                    raise from_code(part.error_code, f"{each.name}-{part.partition_index}")
        return answer

    await link.retried(attempt)


async def delete(link: Link, names: Iterable[str]) -> dict[str, ClientError | None]:
    outcomes: dict[str, ClientError | None] = {}
    for broker, mine in (await link.coordinators(names)).items():
        request = codec.struct("DeleteGroupsRequest")(groups_names=mine)
        answer = await link.ask(DELETE_GROUPS, request, broker, reads=False)
        for each in answer.results:
            outcomes[each.group_id] = from_code(each.error_code, each.error_message) if each.error_code else None
    return outcomes


async def remove_members(link: Link, group: str, members: Iterable[str]) -> None:
    make = codec.struct("LeaveGroupRequest.MemberIdentity")
    request = codec.struct("LeaveGroupRequest")(
        group_id=group, members=[make(member_id=each, reason="removed by an operator") for each in members]
    )
    answer = await link.ask(LEAVE_GROUP, request, await _coordinator(link, group), reads=False, at_least=3)
    _refuse(answer)
    for each in answer.members:
        _refuse(each)


async def share_offsets(link: Link, names: Iterable[str]) -> dict[str, dict[TopicPartition, ShareOffset]]:
    wanted = list(names)
    return await link.retried(lambda _: _share_offsets(link, wanted))


async def _share_offsets(link: Link, names: list[str]) -> dict[str, dict[TopicPartition, ShareOffset]]:
    make = codec.struct("DescribeShareGroupOffsetsRequest.DescribeShareGroupOffsetsRequestGroup")
    found: dict[str, dict[TopicPartition, ShareOffset]] = {}
    for broker, mine in (await link.coordinators(names)).items():
        request = codec.struct("DescribeShareGroupOffsetsRequest")(
            groups=[make(group_id=name, topics=None) for name in mine]
        )
        answer = await link.ask(DESCRIBE_SHARE_OFFSETS, request, broker)
        for each in answer.groups:
            if not _there(each):
                continue
            found[each.group_id] = {
                TopicPartition(topic.topic_name, part.partition_index): ShareOffset(
                    start=part.start_offset, leader_epoch=part.leader_epoch, lag=part.lag
                )
                for topic in each.topics
                for part in topic.partitions
                if not part.error_code and part.start_offset >= 0
            }
    return found


async def alter_share_offsets(link: Link, group: str, places: Mapping[TopicPartition, int]) -> None:
    make = codec.struct("AlterShareGroupOffsetsRequest.AlterShareGroupOffsetsRequestPartition")
    topic = codec.struct("AlterShareGroupOffsetsRequest.AlterShareGroupOffsetsRequestTopic")
    request = codec.struct("AlterShareGroupOffsetsRequest")(
        group_id=group,
        topics=[
            topic(
                topic_name=name,
                partitions=[make(partition_index=i, start_offset=places[TopicPartition(name, i)]) for i in indexes],
            )
            for name, indexes in by_topic(places)
        ],
    )
    answer = await link.ask(ALTER_SHARE_OFFSETS, request, await _coordinator(link, group), reads=False)
    _refuse(answer)
    for each in answer.responses:
        for part in each.partitions:
            _refuse(part)


async def delete_share_offsets(link: Link, group: str, names: Iterable[str]) -> None:
    make = codec.struct("DeleteShareGroupOffsetsRequest.DeleteShareGroupOffsetsRequestTopic")
    request = codec.struct("DeleteShareGroupOffsetsRequest")(
        group_id=group, topics=[make(topic_name=name) for name in names]
    )
    answer = await link.ask(DELETE_SHARE_OFFSETS, request, await _coordinator(link, group), reads=False)
    _refuse(answer)
    for each in answer.responses:
        _refuse(each)


def _refuse(answer: Struct) -> None:
    """Raise what the answer's code means. Those that say "ask again" are CoordinatorMoved."""
    if answer.error_code:
        raise from_code(answer.error_code, getattr(answer, "error_message", None))
