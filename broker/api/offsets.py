"""Committed offsets.

* OffsetCommit 2 to 10: leader epochs from 6, static members from 7, epochs of consumer groups from 9 (KIP-848), topic
  ids in 10. READ on the group and on each topic; retention times that old clients send are ignored (KIP-211).
* OffsetFetch 1 to 10: all topics with null from 2, `require_stable` from 7 (KIP-447), many groups from 8 (KIP-709),
  member and epoch checked from 9 (KIP-848), topic ids in 10. DESCRIBE on the group and on each topic; of all topics
  those that may be seen are shown.
* OffsetDelete 0 (KIP-496): DELETE on the group, READ on each topic.

A commit is answered after the journal's fdatasync; a fetch never tells an offset that is not durable yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.directory import FetchedOffset, FetchedOffsets, OffsetCommitCall, OffsetFetchCall
from broker.groups.offsets import Commit
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

OffsetCommitResponse = codec.struct("OffsetCommitResponse")
OffsetCommitResponseTopic = codec.struct("OffsetCommitResponse.OffsetCommitResponseTopic")
OffsetCommitResponsePartition = codec.struct("OffsetCommitResponse.OffsetCommitResponsePartition")
OffsetFetchResponse = codec.struct("OffsetFetchResponse")
OffsetFetchResponseTopic = codec.struct("OffsetFetchResponse.OffsetFetchResponseTopic")
OffsetFetchResponsePartition = codec.struct("OffsetFetchResponse.OffsetFetchResponsePartition")
OffsetFetchResponseGroup = codec.struct("OffsetFetchResponse.OffsetFetchResponseGroup")
OffsetFetchResponseTopics = codec.struct("OffsetFetchResponse.OffsetFetchResponseTopics")
OffsetFetchResponsePartitions = codec.struct("OffsetFetchResponse.OffsetFetchResponsePartitions")
OffsetDeleteResponse = codec.struct("OffsetDeleteResponse")
OffsetDeleteResponseTopic = codec.struct("OffsetDeleteResponse.OffsetDeleteResponseTopic")
OffsetDeleteResponsePartition = codec.struct("OffsetDeleteResponse.OffsetDeleteResponsePartition")

NO_TOPIC_ID = bytes(16)


class CommitSheet:
    """The partitions of a commit request: those to be tried, and those refused at the door."""

    def __init__(self, ctx: Context, topics: list[Any], *, by_id: bool) -> None:
        self._topics = topics
        self._codes: list[ErrorCode | None] = []
        commits = []
        for topic in topics:
            name, refusal, count = self._find(ctx, topic, by_id=by_id)
            for p in topic.partitions:
                error = refusal
                if error is None and not 0 <= p.partition_index < count:
                    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                self._codes.append(error)
                if error is None:
                    commits.append(
                        Commit(
                            name,
                            p.partition_index,
                            p.committed_offset,
                            p.committed_leader_epoch,
                            p.committed_metadata or "",
                        )
                    )
        self.commits = tuple(commits)

    @staticmethod
    def _find(ctx: Context, topic: Any, *, by_id: bool) -> tuple[str, ErrorCode | None, int]:
        topics = ctx.broker.groups.topics
        found = topics.topic_by_id(topic.topic_id) if by_id else topics.topic(topic.name)
        name = topic.name if found is None else found.name
        if by_id and found is None:
            return name, ErrorCode.UNKNOWN_TOPIC_ID, 0
        if not ctx.allows(Operation.READ, ResourceType.TOPIC, name):
            return name, ErrorCode.TOPIC_AUTHORIZATION_FAILED, 0
        if found is None:
            return name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0
        return name, None, found.partitions

    def answered(
        self, codes: tuple[ErrorCode, ...], topic_type: Callable[..., Any], partition_type: Callable[..., Any]
    ) -> list[Any]:
        """The response's topics, with the codes of what was tried in their places."""
        tried, all_codes = iter(codes), iter(self._codes)
        topics = []
        for topic in self._topics:
            partitions = []
            for p in topic.partitions:
                code = next(all_codes)
                error = next(tried) if code is None else code
                partitions.append(partition_type(partition_index=p.partition_index, error_code=error))
            topics.append(topic_type(name=topic.name, topic_id=topic.topic_id, partitions=partitions))
        return topics

    def all_refused(
        self, error: ErrorCode, topic_type: Callable[..., Any], partition_type: Callable[..., Any]
    ) -> list[Any]:
        """The response's topics, every partition with that error."""
        return [
            topic_type(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=[
                    partition_type(partition_index=p.partition_index, error_code=error) for p in topic.partitions
                ],
            )
            for topic in self._topics
        ]


@handles(8, min=2, max=10)
def offset_commit(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """OffsetCommit."""
    sheet = CommitSheet(ctx, request.topics, by_id=header.api_version >= 10)

    def refused(error: ErrorCode) -> Any:
        return OffsetCommitResponse(
            topics=sheet.all_refused(error, OffsetCommitResponseTopic, OffsetCommitResponsePartition)
        )

    def shape(codes: tuple[ErrorCode, ...]) -> Any:
        return OffsetCommitResponse(
            topics=sheet.answered(codes, OffsetCommitResponseTopic, OffsetCommitResponsePartition)
        )

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    call = OffsetCommitCall(
        group_id=request.group_id,
        generation_or_epoch=request.generation_id_or_member_epoch,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        commits=sheet.commits,
        epoch_aware=header.api_version >= 9,
    )
    return ctx.broker.groups.ask(lambda coordinator, now: coordinator.commit_offsets(call, now), shape, refused)


@handles(9, min=1, max=10)
def offset_fetch(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """OffsetFetch."""
    version = header.api_version
    if version >= 8:
        asked = [(g.group_id, g.topics, g.member_id, g.member_epoch) for g in request.groups]
    else:
        asked = [(request.group_id, request.topics, None, -1)]

    def refused(error: ErrorCode) -> Any:
        if version < 8:
            return OffsetFetchResponse(error_code=error, topics=_unanswered(request.topics, error))
        groups = [OffsetFetchResponseGroup(group_id=g[0], error_code=error) for g in asked]
        return OffsetFetchResponse(groups=groups)

    groups = []
    for group_id, topics, member_id, member_epoch in asked:
        if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group_id):
            fetched = FetchedOffsets(group_id=group_id, error=ErrorCode.GROUP_AUTHORIZATION_FAILED)
        else:
            fetched = _fetch(ctx, version, group_id, topics, member_id, member_epoch, stable=request.require_stable)
        if version < 8:
            return ctx.broker.groups.durable(_single(request, fetched), refused)
        groups.append(_grouped(ctx, fetched))
    return ctx.broker.groups.durable(OffsetFetchResponse(groups=groups), refused)


def _fetch(
    ctx: Context,
    version: int,
    group_id: str,
    topics: list[Any] | None,
    member_id: str | None,
    member_epoch: int,
    *,
    stable: bool,
) -> FetchedOffsets:
    view = ctx.broker.groups.topics
    refused: list[FetchedOffset] = []
    places: list[tuple[str, int]] | None = None
    if topics is not None:
        places = []
        for topic in topics:
            found = view.topic_by_id(topic.topic_id) if version >= 10 else None
            name = topic.topic_id.hex() if version >= 10 and found is None else (found.name if found else topic.name)
            error = ErrorCode.NONE
            if version >= 10 and found is None:
                error = ErrorCode.UNKNOWN_TOPIC_ID
            elif not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name):
                error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            for index in topic.partition_indexes:
                if error is ErrorCode.NONE:
                    places.append((name, index))
                else:
                    refused.append(FetchedOffset(topic=name, partition=index, committed=None, error=error))
    call = OffsetFetchCall(
        group_id=group_id,
        places=None if places is None else tuple(places),
        member_id=member_id,
        member_epoch=member_epoch,
        require_stable=stable,
    )
    fetched: FetchedOffsets = ctx.broker.groups.coordinator.fetch_offsets(call)
    seen = fetched.offsets
    if places is None:
        seen = tuple(o for o in seen if ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, o.topic))
    return FetchedOffsets(group_id=group_id, error=fetched.error, offsets=(*seen, *refused))


def _by_topic(offsets: tuple[FetchedOffset, ...]) -> dict[str, list[FetchedOffset]]:
    topics: dict[str, list[FetchedOffset]] = {}
    for offset in offsets:
        topics.setdefault(offset.topic, []).append(offset)
    return topics


def _partition(offset: FetchedOffset, partition_type: Callable[..., Any]) -> Any:
    kept = offset.committed
    return partition_type(
        partition_index=offset.partition,
        committed_offset=-1 if kept is None else kept.offset,
        committed_leader_epoch=-1 if kept is None else kept.leader_epoch,
        metadata="" if kept is None else kept.metadata,
        error_code=offset.error,
    )


def _single(request: Any, fetched: FetchedOffsets) -> Any:
    if fetched.error is not ErrorCode.NONE:
        return OffsetFetchResponse(error_code=fetched.error, topics=_unanswered(request.topics, fetched.error))
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name=name, partitions=[_partition(o, OffsetFetchResponsePartition) for o in offsets]
            )
            for name, offsets in _by_topic(fetched.offsets).items()
        ]
    )


def _unanswered(topics: list[Any] | None, error: ErrorCode) -> list[Any]:
    """Version 1 has no top-level code: each partition carries it."""
    return [
        OffsetFetchResponseTopic(
            name=t.name,
            partitions=[
                OffsetFetchResponsePartition(
                    partition_index=i,
                    committed_offset=-1,
                    committed_leader_epoch=-1,
                    metadata="",
                    error_code=error,
                )
                for i in t.partition_indexes
            ],
        )
        for t in topics or ()
    ]


def _grouped(ctx: Context, fetched: FetchedOffsets) -> Any:
    view = ctx.broker.groups.topics

    def topic_id(name: str, offsets: list[FetchedOffset]) -> bytes:
        if offsets[0].error is ErrorCode.UNKNOWN_TOPIC_ID:
            return bytes.fromhex(name)
        found = view.topic(name)
        return NO_TOPIC_ID if found is None else found.id

    return OffsetFetchResponseGroup(
        group_id=fetched.group_id,
        error_code=fetched.error,
        topics=[
            OffsetFetchResponseTopics(
                name=name,
                topic_id=topic_id(name, offsets),
                partitions=[_partition(o, OffsetFetchResponsePartitions) for o in offsets],
            )
            for name, offsets in _by_topic(fetched.offsets).items()
        ],
    )


@handles(47, min=0, max=0)
def offset_delete(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """OffsetDelete."""

    def refused(error: ErrorCode) -> Any:
        return OffsetDeleteResponse(error_code=error)

    if not ctx.allows(Operation.DELETE, ResourceType.GROUP, request.group_id):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    refusals: dict[str, ErrorCode] = {}
    absent: set[tuple[str, int]] = set()
    places = []
    for topic in request.topics:
        found = ctx.broker.groups.topics.topic(topic.name)
        if not ctx.allows(Operation.READ, ResourceType.TOPIC, topic.name):
            refusals[topic.name] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif found is None:
            refusals[topic.name] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        else:
            named = {(topic.name, p.partition_index) for p in topic.partitions}
            absent |= {place for place in named if not 0 <= place[1] < found.partitions}
            places += sorted(named - absent)

    def shape(answer: tuple[ErrorCode, tuple[ErrorCode, ...]]) -> Any:
        error, codes = answer
        if error is not ErrorCode.NONE:
            return refused(error)
        outcome = dict.fromkeys(absent, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) | dict(zip(places, codes, strict=True))
        return OffsetDeleteResponse(
            topics=[
                OffsetDeleteResponseTopic(
                    name=topic.name,
                    partitions=[
                        OffsetDeleteResponsePartition(
                            partition_index=p.partition_index,
                            error_code=refusals.get(topic.name) or outcome[topic.name, p.partition_index],
                        )
                        for p in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )

    return ctx.broker.groups.ask(
        lambda coordinator, now: coordinator.delete_offsets(request.group_id, places, now), shape, refused
    )
