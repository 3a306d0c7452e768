"""Records of share groups: handed out and judged (KIP-932).

* ShareFetch 1 to 2: share sessions; acknowledgements on the way; waits `max_wait_ms` for something to hand out. From 2
  `share_acquire_mode` 1 keeps strictly to `max_records` (KIP-1206), and RENEW extends locks (KIP-1222).
* ShareAcknowledge 1 to 2: RENEW from 2, where `share.renew.acknowledge.enable` allows it.

What is handed out counts against the client's consumer_byte_rate as what is fetched does. READ on the group and on each
topic. Acknowledgements are answered once they are durable, and records are handed out
once the delivery counts that this raises are: no crash makes a record forget how often it was delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from broker.api.registry import Context, Later, handles
from broker.cluster.acls import Operation, ResourceType
from broker.groups.ports import StateUnwritable
from broker.groups.share_coordinator import Judgement, Place
from broker.groups.share_partition import AckType
from broker.groups.share_service import FetchBounds, Handed
from broker.groups.share_sessions import FINAL, FIRST, ShareSession
from broker.server.quotas import FETCH
from broker.server.waiting import Poll
from broker.wire import codec
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ShareFetchResponse = codec.struct("ShareFetchResponse")
FetchedTopic = codec.struct("ShareFetchResponse.ShareFetchableTopicResponse")
FetchedPartition = codec.struct("ShareFetchResponse.PartitionData")
AcquiredRecords = codec.struct("ShareFetchResponse.AcquiredRecords")
ShareAcknowledgeResponse = codec.struct("ShareAcknowledgeResponse")
AcknowledgedTopic = codec.struct("ShareAcknowledgeResponse.ShareAcknowledgeTopicResponse")
AcknowledgedPartition = codec.struct("ShareAcknowledgeResponse.PartitionData")

Codes = dict[tuple[bytes, int], ErrorCode]
_MAX_BYTES = 64 << 20


@handles(78, min=1, max=2)
async def share_fetch(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ShareFetch."""

    def refused(error: ErrorCode) -> Any:
        return ShareFetchResponse(error_code=error)

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id or ""):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    wrong = _wrong_fetch(request)
    if wrong is not None:
        return refused(wrong)
    shares = ctx.broker.shares
    session = _session(ctx, request)
    if isinstance(session, ErrorCode):
        return refused(session)
    errors = _update(ctx, session, request)
    judged = _judge(ctx, session, request, renews=header.api_version >= 2)
    if request.share_session_epoch == FINAL:
        shares.member_gone(session.group, session.member)
        handed: list[Handed] = []
    elif request.is_renew_ack:
        handed = []
    else:
        handed = await _wait(ctx, session, header, request)
    response = ShareFetchResponse(
        throttle_time_ms=_throttled(ctx, session, header, sum(one.size for one in handed)) if handed else 0,
        acquisition_lock_timeout_ms=shares.limits(session.group).lock_ms,
        responses=_fetched(handed, judged, errors),
    )
    return await _durable(ctx, response, refused) if judged or handed else response


def _wrong_fetch(request: Any) -> ErrorCode | None:
    if not request.group_id or not request.member_id:
        return ErrorCode.INVALID_REQUEST
    acknowledges = any(p.acknowledgement_batches for t in request.topics for p in t.partitions)
    if request.share_session_epoch == FIRST and acknowledges:
        return ErrorCode.INVALID_REQUEST
    if request.share_session_epoch < FINAL:
        return ErrorCode.INVALID_SHARE_SESSION_EPOCH
    return None


def _session(ctx: Context, request: Any) -> ShareSession | ErrorCode:
    shares = ctx.broker.shares
    if request.share_session_epoch != FIRST:
        continued: ShareSession | ErrorCode = shares.sessions.advance(
            request.group_id, request.member_id, request.share_session_epoch
        )
        return continued
    shares.member_gone(request.group_id, request.member_id)  # what an earlier session of it still held
    begun: ShareSession | ErrorCode = shares.sessions.begin(request.group_id, request.member_id, ctx.connection)
    if isinstance(begun, ShareSession) and ctx.connection is not None:
        ctx.connection.on_close.append(lambda: shares.connection_gone(begun))
    return begun


def _update(ctx: Context, session: ShareSession, request: Any) -> Codes:
    """Let the session have the partitions the request names; what it can't have is told."""
    errors: Codes = {}
    for topic in request.topics:
        refusal = _topic_refusal(ctx, topic.topic_id)
        for p in topic.partitions:
            key = (topic.topic_id, p.partition_index)
            if refusal is not None:
                errors[key] = refusal
                session.partitions.pop(key, None)
            elif ctx.broker.shares.log_of(Place(session.group, *key)) is None:
                errors[key] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                session.partitions.pop(key, None)
            elif request.share_session_epoch != FINAL:
                session.partitions.setdefault(key, None)
    for forgotten in request.forgotten_topics_data:
        for index in forgotten.partitions:
            session.partitions.pop((forgotten.topic_id, index), None)
    return errors


def _topic_refusal(ctx: Context, topic_id: bytes) -> ErrorCode | None:
    topic = ctx.broker.topics.by_id(topic_id)
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if not ctx.allows(Operation.READ, ResourceType.TOPIC, topic.name):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return None


def _judge(ctx: Context, session: ShareSession, request: Any, *, renews: bool) -> Codes:
    """Apply the acknowledgements of the request."""
    codes: Codes = {}
    may_renew = renews and ctx.broker.shares.renews(session.group)
    for topic in request.topics:
        for p in topic.partitions:
            if not p.acknowledgement_batches:
                continue
            key = (topic.topic_id, p.partition_index)
            refusal = _topic_refusal(ctx, topic.topic_id)
            codes[key] = _judge_one(ctx, session, key, p, renews=may_renew) if refusal is None else refusal
    return codes


def _judge_one(ctx: Context, session: ShareSession, key: tuple[bytes, int], p: Any, *, renews: bool) -> ErrorCode:
    judgements = [
        Judgement(b.first_offset, b.last_offset, tuple(b.acknowledge_types)) for b in p.acknowledgement_batches
    ]
    if not renews and any(AckType.RENEW in j.types for j in judgements):
        return ErrorCode.INVALID_REQUEST
    try:
        code: ErrorCode = ctx.broker.shares.step(
            lambda c, now: c.acknowledge(Place(session.group, *key), session.member, judgements, now)
        )
    except StateUnwritable:
        return ErrorCode.KAFKA_STORAGE_ERROR
    return code


def _throttled(ctx: Context, session: ShareSession, header: RequestHeader, size: int) -> int:
    """Count `size` bytes handed out; the milliseconds the connection is muted for: half the time that the records are
    locked at most, or others would get them before this member can acknowledge them."""
    broker = ctx.broker
    broker.meter.fetched_bytes += size
    wait: int = broker.quotas.throttle(FETCH, ctx.principal, header.client_id, size, broker.clock.monotonic())
    wait = min(wait, broker.shares.limits(session.group).lock_ms // 2)
    if wait:
        broker.meter.throttled += 1
        ctx.connection.throttle(wait)
    return wait


async def _wait(ctx: Context, session: ShareSession, header: RequestHeader, request: Any) -> list[Handed]:
    """Something to hand out, or nothing when the time is up."""
    shares, waiting = ctx.broker.shares, ctx.broker.waiting
    most = ctx.broker.quotas.most(FETCH, ctx.principal, header.client_id, ctx.broker.clock.monotonic())
    most = _MAX_BYTES if most is None else min(most, _MAX_BYTES)
    bounds = FetchBounds(
        max_bytes=max(min(request.max_bytes, most), 1),
        max_records=request.max_records if request.max_records > 0 else 2**31 - 1,
        strict=request.share_acquire_mode == 1,
    )
    handed: list[Handed] = shares.hand_out(session, bounds)
    if handed or request.max_wait_ms <= 0 or waiting.stopping:
        return handed
    moved = asyncio.Event()
    poll = Poll(
        waiting,
        asyncio.get_running_loop(),
        seconds=request.max_wait_ms / 1000,
        window=0,
        wake=lambda partitions, expired: moved.set(),
    )
    places = [Place(session.group, *key) for key in session.partitions]
    logs = [log for place in places if (log := shares.log_of(place)) is not None]
    for log in logs:
        waiting.watch(log, poll.touched)
    for place in places:
        shares.watch(place, moved)
    try:
        while not handed and not poll.over:
            await moved.wait()
            moved.clear()
            handed = shares.hand_out(session, bounds)
    finally:
        poll.cancel()
        for log in logs:
            waiting.unwatch(log, poll.touched)
        for place in places:
            shares.unwatch(place, moved)
    return handed


def _fetched(handed: list[Handed], judged: Codes, errors: Codes) -> list[Any]:
    partitions: dict[tuple[bytes, int], Any] = {}
    for one in handed:
        partitions[one.topic, one.index] = FetchedPartition(
            partition_index=one.index,
            error_code=one.error,
            records=one.records,
            acquired_records=[
                AcquiredRecords(first_offset=a.first, last_offset=a.last, delivery_count=a.count) for a in one.acquired
            ],
        )
    for (topic, index), code in errors.items():
        partitions[topic, index] = FetchedPartition(partition_index=index, error_code=code, records=[])
    for (topic, index), code in judged.items():
        found = partitions.setdefault((topic, index), FetchedPartition(partition_index=index, records=[]))
        found.acknowledge_error_code = code
    topics: dict[bytes, list[Any]] = {}
    for (topic, _), partition in partitions.items():
        topics.setdefault(topic, []).append(partition)
    return [FetchedTopic(topic_id=topic, partitions=found) for topic, found in topics.items()]


async def _durable(ctx: Context, response: Any, refused: Callable[[ErrorCode], Any]) -> Any:
    """The response once everything share groups have written is durable."""
    result = ctx.broker.shares.durable(response, refused)
    if not isinstance(result, Later):
        return result
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    result.then(settle)
    return await future


@handles(79, min=1, max=2)
def share_acknowledge(ctx: Context, header: RequestHeader, request: Any) -> Any:
    """ShareAcknowledge."""

    def refused(error: ErrorCode) -> Any:
        return ShareAcknowledgeResponse(error_code=error)

    if not ctx.allows(Operation.READ, ResourceType.GROUP, request.group_id or ""):
        return refused(ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id or not request.member_id:
        return refused(ErrorCode.INVALID_REQUEST)
    if request.share_session_epoch == FIRST or request.share_session_epoch < FINAL:
        return refused(ErrorCode.INVALID_SHARE_SESSION_EPOCH)
    shares = ctx.broker.shares
    session = shares.sessions.advance(request.group_id, request.member_id, request.share_session_epoch)
    if isinstance(session, ErrorCode):
        return refused(session)
    judged = _judge(ctx, session, request, renews=header.api_version >= 2)
    if request.share_session_epoch == FINAL:
        shares.member_gone(session.group, session.member)
    topics: dict[bytes, list[Any]] = {}
    for (topic, index), code in judged.items():
        topics.setdefault(topic, []).append(AcknowledgedPartition(partition_index=index, error_code=code))
    response = ShareAcknowledgeResponse(
        acquisition_lock_timeout_ms=shares.limits(session.group).lock_ms,
        responses=[AcknowledgedTopic(topic_id=topic, partitions=found) for topic, found in topics.items()],
    )
    return shares.durable(response, refused)
