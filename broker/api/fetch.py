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
from typing import Any

from broker.api.failures import error_of
from broker.api.fetch_sessions import FetchSession, SessionError
from broker.api.registry import Context, Later, handles
from broker.cluster.acls import Operation, ResourceType
from broker.log.failures import LogError
from broker.log.partition import Partition, Slice
from broker.server.quotas import FETCH
from broker.server.waiting import Poll
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

FetchResponse = struct("FetchResponse")
TopicAnswer = struct("FetchResponse.FetchableTopicResponse")
PartitionAnswer = struct("FetchResponse.PartitionData")
AbortedTransaction = struct("FetchResponse.AbortedTransaction")
EpochEndOffset = struct("FetchResponse.EpochEndOffset")

MAX_RESPONSE = 57_671_680
WINDOW_PER_PARTITION = 0.000_015
WINDOW_LIMIT = 0.025
NO_ID = bytes(16)


class Wanted:
    """One partition of a fetch and what was found in it so far."""

    __slots__ = (
        "current_epoch",
        "diverging",
        "error",
        "index",
        "last_fetched_epoch",
        "max_bytes",
        "offset",
        "partition",
        "sent_high_watermark",
        "sent_start",
        "slice",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: bytes, index: int) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.partition: Partition | None = None
        self.offset = 0
        self.max_bytes = 0
        self.current_epoch = -1
        self.last_fetched_epoch = -1
        self.error = ErrorCode.NONE
        self.slice: Slice | None = None
        self.diverging: Any = None
        self.sent_high_watermark = -1
        self.sent_start = -1

    def asks(self, data: Any) -> None:
        """Take over what a request says of the partition."""
        self.offset = data.fetch_offset
        self.max_bytes = data.partition_max_bytes
        self.current_epoch = data.current_leader_epoch
        self.last_fetched_epoch = data.last_fetched_epoch

    def read(self, max_bytes: int, committed: bool, at_least_one: bool) -> int:
        """Read once; the bytes found. Errors are kept for the answer."""
        self.slice = None
        self.diverging = None
        partition = self.partition
        if partition is None:
            return 0
        self.error = ErrorCode.NONE
        if self.current_epoch >= 0 and self.current_epoch != partition.leader_epoch:
            newer = self.current_epoch > partition.leader_epoch
            self.error = ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
            return 0
        if self.last_fetched_epoch >= 0:
            epoch, end = partition.end_offset_for_epoch(self.last_fetched_epoch)
            if epoch >= 0 and (epoch < self.last_fetched_epoch or end < self.offset):
                self.diverging = EpochEndOffset(epoch=epoch, end_offset=end)
                return 0
        if self.offset == partition.high_watermark:
            return 0
        try:
            found = partition.read(
                self.offset, min(self.max_bytes, max_bytes), committed=committed, at_least_one=at_least_one
            )
        except LogError as error:
            self.error = error_of(error)
            return 0
        self.slice = found
        return found.size

    @property
    def urgent(self) -> bool:
        """Whether the answer can't wait for more bytes."""
        return self.error != ErrorCode.NONE or self.diverging is not None

    def answer(self, committed: bool) -> Any:
        partition, found = self.partition, self.slice
        if partition is None or self.error:
            start = partition.log_start_offset if partition is not None and self.error == 1 else -1
            return PartitionAnswer(
                partition_index=self.index,
                error_code=self.error,
                high_watermark=-1,
                log_start_offset=start,
                records=b"",
                aborted_transactions=None,
            )
        aborted = None
        records: Sequence[Any] = ()
        if found is not None:
            records = found.buffers
            if found.aborted is not None:
                aborted = [
                    AbortedTransaction(producer_id=one.producer_id, first_offset=one.first_offset)
                    for one in found.aborted
                ]
        elif committed:
            aborted = []
        answer = PartitionAnswer(
            partition_index=self.index,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable_offset,
            log_start_offset=partition.log_start_offset,
            aborted_transactions=aborted,
            records=list(records) if records else b"",
        )
        if self.diverging is not None:
            answer.diverging_epoch = self.diverging
        return answer


@handles(1, min=4, max=18)
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
        "_by_partition",
        "_committed",
        "_ctx",
        "_header",
        "_later",
        "_left",
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
        self._committed = request.isolation_level == 1
        self._left = max(0, min(request.max_bytes, MAX_RESPONSE))
        self._size = 0
        self._urgent = False
        self._later: Later | None = None
        self._poll: Poll | None = None
        self._by_partition: dict[Partition, Wanted] = {}
        self._wanted: list[Wanted] = []

    def run(self) -> Any:
        session = self._session
        if session is None:
            self._wanted = list(wanted_of(self._ctx, self._header, self._request))
        else:
            self._wanted = session.candidates()
        self._read(self._wanted)
        ready = self._urgent or self._size >= self._request.min_bytes or self._request.max_wait_ms <= 0
        if ready or self._ctx.broker.waiting.stopping or (session is not None and session.full):
            return self._answer()
        self._park()
        return self._later

    def _read(self, wanted: Sequence[Wanted]) -> None:
        committed = self._committed
        for one in wanted:
            before = one.slice.size if one.slice is not None else 0
            size = one.read(self._left + before, committed, self._size - before <= 0)
            self._size += size - before
            self._left -= size - before
            if one.error or one.diverging is not None:
                self._urgent = True

    def _park(self) -> None:
        broker = self._ctx.broker
        self._later = Later()
        session = self._session
        count = len(self._wanted) if session is None else len(session)
        window = 0.0 if count < 16 else min(WINDOW_LIMIT, count * WINDOW_PER_PARTITION)
        self._poll = Poll(
            broker.waiting,
            self._ctx.connection.loop,
            seconds=self._request.max_wait_ms / 1000,
            window=window,
            wake=self._woken,
        )
        self._ctx.connection.on_close.append(self._gone)
        if session is not None:
            session.poll = self._poll
            return
        watch, touched = broker.waiting.watch, self._poll.touched
        for one in self._wanted:
            if one.partition is not None:
                self._by_partition[one.partition] = one
                watch(one.partition, touched)

    def _woken(self, moved: set[Partition], expired: bool) -> None:
        if self._session is not None:
            self._ctx.broker.fetch_sessions.check(self._ctx, self._session)
            self._wanted = self._session.candidates()
            self._size, self._left = 0, max(0, min(self._request.max_bytes, MAX_RESPONSE))
            self._read(self._wanted)
        else:
            wanted = [self._by_partition[partition] for partition in moved]
            find = self._ctx.broker.topics.partition
            for one in wanted:
                if find(one.topic, one.index) is not one.partition:
                    one.partition = one.slice = None
                    one.error = self._gone_code
            self._read(wanted)
        if expired or self._urgent or self._size >= self._request.min_bytes:
            assert self._later is not None
            self._leave()
            self._later.complete(self._answer())

    @property
    def _gone_code(self) -> ErrorCode:
        by_id = self._header.api_version >= 13
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _leave(self) -> None:
        assert self._poll is not None
        self._poll.cancel()
        if self._session is not None:
            self._session.poll = None
        unwatch = self._ctx.broker.waiting.unwatch
        for partition in self._by_partition:
            unwatch(partition, self._poll.touched)
        on_close = self._ctx.connection.on_close
        if self._gone in on_close:
            on_close.remove(self._gone)

    def _gone(self) -> None:
        self._leave()

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
            responses=_by_topic(told, self._committed),
        )


def _by_topic(wanted: Sequence[Wanted], committed: bool) -> list[Any]:
    topics: list[Any] = []
    current = None
    for one in wanted:
        if current is None or current.topic != one.topic or current.topic_id != one.topic_id:
            current = TopicAnswer(topic=one.topic, topic_id=one.topic_id)
            topics.append(current)
        current.partitions.append(one.answer(committed))
    return topics


def wanted_of(ctx: Context, header: RequestHeader, request: Any) -> Sequence[Wanted]:
    """The partitions a request names, each found or with its error."""
    result: list[Wanted] = []
    for topic_data in request.topics:
        name, topic_id, error = resolve(ctx, header.api_version, topic_data.topic, topic_data.topic_id)
        partitions = ctx.broker.topics.partitions(name) if error == ErrorCode.NONE else []
        for data in topic_data.partitions:
            one = Wanted(name, topic_id, data.partition)
            one.asks(data)
            if error:
                one.error = error
            elif 0 <= data.partition < len(partitions):
                one.partition = partitions[data.partition]
            else:
                one.error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            result.append(one)
    return result


def resolve(ctx: Context, version: int, name: str, topic_id: bytes) -> tuple[str, bytes, ErrorCode]:
    """A topic by name or id: its name and id, and why it can't be read."""
    if version >= 13:
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
