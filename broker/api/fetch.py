"""Fetch 4-18: reads, long polls, sessions.

Isolation levels (KIP-98), leader epochs (KIP-320), diverging epochs (KIP-595), sessions (KIP-227: `fetch_sessions`),
topic ids from 13 (KIP-516). Batches are whole and uncopied: the first holds the offset asked for, and the first of a
response comes whatever the size limits say (KIP-74). A request whose answer is smaller than `min_bytes` is parked; it
costs nothing while its partitions are idle, and when they grow only those that did are read, a coalescing window after
the first (the window grows with the number of partitions, so that many partitions with a trickle don't cost a response
each time).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from broker.api import fetch_request
from broker.api.fetch_followed import Followed, Wanted
from broker.api.fetch_sessions import FetchSession, SessionError
from broker.api.registry import Context, Later, handles
from broker.cluster.acls import Operation, ResourceType
from broker.server.quotas import FETCH
from broker.server.waiting import Poll
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

if TYPE_CHECKING:
    from broker.log.partition import Partition

FetchResponse = struct("FetchResponse")
TopicAnswer = struct("FetchResponse.FetchableTopicResponse")

MAX_RESPONSE = 16 << 20
"""Kafka's is 55 MiB. All of a response is in memory before its first byte leaves: beyond what the process keeps of
freed memory (`server.memory`) every response would be read into pages fetched anew, at twice the price."""
FEW = 16
"""So many partitions are answered for at once, without a coalescing window."""
WINDOW_PER_PARTITION = 0.000_02
WINDOW_LIMIT = 0.025
NO_ID = bytes(16)


@handles(1, min=4, max=18, decode=fetch_request.decode)
def fetch(ctx: Context, header: RequestHeader, request: Any) -> Any:
    ctx.broker.meter.fetch_requests += 1
    try:
        session = ctx.broker.fetch_sessions.of(ctx, header, request)
    except SessionError as refusal:
        return FetchResponse(error_code=refusal.code, session_id=0)
    return _Fetch(ctx, header, request, session).run()


class _Fetch:
    """One request: read, maybe parked, read again where something moved, answered."""

    __slots__ = (
        "_committed",
        "_ctx",
        "_followed",
        "_header",
        "_later",
        "_least",
        "_left",
        "_limit",
        "_poll",
        "_request",
        "_session",
        "_size",
        "_urgent",
        "_wanted",
    )

    def __init__(self, ctx: Context, header: RequestHeader, request: Any, session: FetchSession | None) -> None:
        self._ctx = ctx
        self._header = header
        self._request = request
        self._session = session
        self._followed: Followed = session if session is not None else _followed_of(ctx)
        self._committed = request.isolation_level == 1
        self._limit = _limit(ctx, header, request)
        self._least = min(request.min_bytes, self._limit)
        self._left = self._limit
        self._size = 0
        self._urgent = False
        self._later: Later | None = None
        self._poll: Poll | None = None
        self._wanted: list[Wanted] = []

    def run(self) -> Any:
        session = self._session
        if session is None:
            self._wanted = follow_asked(self._ctx, self._header, self._request, self._followed)
            self._followed.keep_only(self._wanted)
        else:
            self._wanted = session.candidates()
        self._read(self._wanted)
        ready = self._urgent or self._size >= self._least or self._request.max_wait_ms <= 0
        if ready or self._ctx.broker.waiting.stopping or (session is not None and session.full):
            return self._answer()
        self._park()
        return self._later

    def _read(self, wanted: Sequence[Wanted]) -> None:
        committed = self._committed
        for one in wanted:
            found = one.slice
            before = found.size if found is not None else 0
            size = one.read(self._left + before, committed, self._size - before <= 0)
            if size != before:
                self._size += size - before
                self._left -= size - before
            if one.error or one.diverging is not None:
                self._urgent = True

    def _park(self) -> None:
        broker = self._ctx.broker
        self._later = Later()
        count = len(self._followed)
        self._poll = Poll(
            broker.waiting,
            self._ctx.connection.loop,
            seconds=self._request.max_wait_ms / 1000,
            window=0.0 if count < FEW else min(WINDOW_LIMIT, count * WINDOW_PER_PARTITION),
            wake=self._woken,
        )
        self._ctx.connection.on_close.append(self._leave)
        self._followed.poll = self._poll

    def _woken(self, moved: set[Partition], expired: bool) -> None:
        if self._session is not None:
            self._ctx.broker.fetch_sessions.check(self._ctx, self._session)
            self._wanted = self._session.candidates()
            self._size, self._left = 0, self._limit
            self._read(self._wanted)
        else:
            wanted = self._followed.moved(moved)
            find = self._ctx.broker.topics.partition
            for one in wanted:
                if find(one.topic, one.index) is not one.partition:
                    self._followed.refuse(one, gone_code(self._header.api_version))
            self._read(wanted)
        if expired or self._urgent or self._size >= self._least:
            assert self._later is not None
            self._leave()
            self._later.complete(self._answer())

    def _leave(self) -> None:
        """Wait no longer: answered, or the connection is gone."""
        assert self._poll is not None
        self._poll.cancel()
        self._followed.poll = None
        on_close = self._ctx.connection.on_close
        if self._leave in on_close:
            on_close.remove(self._leave)

    def _answer(self) -> Any:
        broker = self._ctx.broker
        throttle = broker.quotas.throttle(
            FETCH, self._ctx.principal, self._header.client_id, self._size, broker.clock.monotonic()
        )
        if throttle:
            broker.meter.throttled += 1
            self._ctx.connection.throttle(throttle)
        broker.meter.fetched_bytes += self._size
        session = self._session
        told = self._wanted if session is None else session.told(self._wanted)
        return FetchResponse(
            throttle_time_ms=throttle,
            session_id=0 if session is None else session.id,
            responses=_by_topic(told, self._committed, self._header.api_version),
        )


def _limit(ctx: Context, header: RequestHeader, request: Any) -> int:
    """The most bytes the answer may have; no more than the client's quota has room for, or it would always wait."""
    asked: int = max(0, min(request.max_bytes, MAX_RESPONSE))
    broker = ctx.broker
    most = broker.quotas.most(FETCH, ctx.principal, header.client_id, broker.clock.monotonic())
    return asked if most is None else min(asked, most)


def _followed_of(ctx: Context) -> Followed:
    """What the connection's client follows without a session."""
    if ctx.followed is None:
        ctx.followed = Followed(ctx.broker.waiting)
        ctx.connection.on_close.append(ctx.followed.close)
    found: Followed = ctx.followed
    return found


def _by_topic(wanted: Sequence[Wanted], committed: bool, version: int) -> list[Any]:
    topics: list[Any] = []
    topic, topic_id = None, None
    partitions: list[Any] = []
    for one in wanted:
        if one.topic != topic or one.topic_id != topic_id:
            topic, topic_id = one.topic, one.topic_id
            partitions = []
            topics.append(TopicAnswer(topic=topic, topic_id=topic_id, partitions=partitions))
        partitions.append(one.answer(committed, version))
        one.slice = None
    return topics


def follow_asked(ctx: Context, header: RequestHeader, request: Any, followed: Followed) -> list[Wanted]:
    """Follow the partitions a request names; each is found or has its error."""
    version = header.api_version
    by_id = version >= fetch_request.FIRST_BY_ID
    current = followed.next_round()
    get = followed.get
    result: list[Wanted] = []
    for topic in request.topics:
        name, topic_id, error = resolve(ctx, version, topic.topic, topic.topic_id)
        partitions = ctx.broker.topics.partitions(name) if not error else []
        count = len(partitions)
        place = topic.topic_id if by_id else name
        for asked in topic.partitions:
            index = asked[0]
            key = (place, index)
            one = get(key)
            if one is None:
                one = Wanted(name, topic_id, index, key)
                followed.follow(one, None)
            one.asks(asked)
            one.round = current
            if error:
                followed.refuse(one, error)
            elif not 0 <= index < count:
                followed.refuse(one, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            elif one.partition is not partitions[index]:
                followed.follow(one, partitions[index])
            result.append(one)
    return result


def resolve(ctx: Context, version: int, name: str, topic_id: bytes) -> tuple[str, bytes, ErrorCode]:
    """A topic by name or id: its name and id, and why it can't be read."""
    if version >= fetch_request.FIRST_BY_ID:
        topic = ctx.broker.topics.by_id(topic_id)
        if topic is None:
            return "", topic_id, ErrorCode.UNKNOWN_TOPIC_ID
        name = topic.name
    else:
        topic = ctx.broker.topics.get(name)
        topic_id = NO_ID if topic is None else topic.topic_id
    if not ctx.allows(Operation.READ, ResourceType.TOPIC, name):
        return name, topic_id, ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return name, topic_id, ErrorCode.NONE if topic is not None else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def gone_code(version: int) -> ErrorCode:
    """What to say of a partition whose topic was deleted."""
    by_id = version >= fetch_request.FIRST_BY_ID
    return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
