"""Incremental fetch sessions (KIP-227): the broker remembers what a client follows.

A session watches its partitions once. What moved since the last answer is in `_moved`, so an incremental fetch reads
what moved and what the request changed, and passes over idle partitions without touching them. Partitions whose data
did not fit, or that had an error, stay among the candidates until they have been served.

Epochs: a request with epoch 0 and id 0 opens a session; -1 uses none (and closes the one it names); otherwise the epoch
must be the next one.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.cluster.acls import Operation, ResourceType
from broker.wire.errors import ErrorCode

if TYPE_CHECKING:
    from broker.api.fetch import Wanted
    from broker.api.registry import Context
    from broker.log.partition import Partition
    from broker.server.waiting import Poll, Waiting
    from broker.wire.framing import RequestHeader

SLOTS = 1000
FINAL, INITIAL = -1, 0
Key = tuple[bytes | str, int]


class SessionError(Exception):
    """The session the request names can't be used; carries the code."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class FetchSession:
    """One client's set of followed partitions."""

    def __init__(self, session_id: int, principal: str, waiting: Waiting, by_id: bool) -> None:
        self.id = session_id
        self.principal = principal
        self.by_id = by_id
        self.epoch = 1
        self.full = True
        """Whether the request under way is the one that opened the session: it names and gets everything."""
        self.poll: Poll | None = None
        self._waiting = waiting
        self._wanted: OrderedDict[Key, Wanted] = OrderedDict()
        self._keys: dict[Partition, Key] = {}
        self._moved: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wanted)

    def follow(self, one: Wanted) -> None:
        """Follow a partition, or follow it from another offset."""
        key = self._key(one)
        before = self._wanted.get(key)
        if before is not None:
            one.sent_high_watermark, one.sent_start = before.sent_high_watermark, before.sent_start
            self._unwatch(before)
        self._wanted[key] = one
        if one.partition is not None:
            self._keys[one.partition] = key
            self._waiting.watch(one.partition, self._touched)
        self._moved[key] = None

    def refuse(self, one: Wanted, code: ErrorCode) -> None:
        """The partition can't be read (any more): answer with the code until the client asks anew."""
        self._unwatch(one)
        one.partition = None
        one.slice = None
        one.error = code

    def forget(self, key: Key) -> None:
        gone = self._wanted.pop(key, None)
        self._moved.pop(key, None)
        if gone is not None:
            self._unwatch(gone)

    def close(self) -> None:
        for one in self._wanted.values():
            self._unwatch(one)
        self._wanted.clear()
        self._moved.clear()

    def candidates(self) -> list[Wanted]:
        """What has to be looked at: everything at first, then what moved or was asked anew."""
        return [self._wanted[key] for key in self._moved]

    def told(self, looked_at: list[Wanted]) -> list[Wanted]:
        """Which of them go into the answer; those still owed something stay candidates."""
        answer = []
        for one in looked_at:
            partition = one.partition
            owed = bool(one.error) or one.diverging is not None
            has = owed or (one.slice is not None and one.slice.size > 0)
            if partition is not None and not owed:
                moved = (
                    partition.high_watermark != one.sent_high_watermark or partition.log_start_offset != one.sent_start
                )
                one.sent_high_watermark, one.sent_start = partition.high_watermark, partition.log_start_offset
                has = has or moved
                # Served or nothing there: what the client reads next it will ask for.
                owed = one.offset < partition.high_watermark
            if has or self.full:
                answer.append(one)
            key = self._key(one)
            if owed:
                self._moved.move_to_end(key)
            else:
                self._moved.pop(key, None)
        self.full = False
        return answer

    def _key(self, one: Wanted) -> Key:
        return (one.topic_id if self.by_id else one.topic), one.index

    def _touched(self, partition: Partition) -> None:
        key = self._keys.get(partition)
        if key is None:
            return
        self._moved[key] = None
        if self.poll is not None:
            self.poll.touched(partition)

    def _unwatch(self, one: Wanted) -> None:
        if one.partition is not None:
            self._keys.pop(one.partition, None)
            self._waiting.unwatch(one.partition, self._touched)


class FetchSessions:
    """Every session of the broker: a bounded number, the one unused longest goes first."""

    def __init__(
        self, waiting: Waiting, wanted_of: Callable[[Context, RequestHeader, Any], Any], slots: int = SLOTS
    ) -> None:
        self._waiting = waiting
        self._wanted_of = wanted_of
        self._slots = slots
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, ctx: Context, header: RequestHeader, request: Any) -> FetchSession | None:
        """The session this request belongs to, brought up to date with it; None for a request without one."""
        session_id, epoch = request.session_id, request.session_epoch
        if header.api_version < 7 or epoch == FINAL:
            self._close(session_id, ctx.principal)
            return None
        if epoch == INITIAL:
            self._close(session_id, ctx.principal)
            return self._opened(ctx, header, request)
        session = self._sessions.get(session_id)
        if session is None or session.principal != ctx.principal:
            raise SessionError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.by_id != (header.api_version >= 13):
            raise SessionError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        if session.epoch != epoch:
            raise SessionError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.poll is not None:
            raise SessionError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        session.epoch = epoch + 1 if epoch < 2**31 - 1 else 1
        self._sessions.move_to_end(session_id)
        for topic in request.forgotten_topics_data:
            for index in topic.partitions:
                session.forget((topic.topic_id if session.by_id else topic.topic, index))
        for one in self._wanted_of(ctx, header, request):
            session.follow(one)
        self.check(ctx, session)
        return session

    def _opened(self, ctx: Context, header: RequestHeader, request: Any) -> FetchSession | None:
        if not request.topics:
            return None
        if len(self._sessions) >= self._slots and not self._make_room():
            return None
        session_id = random.randrange(1, 2**31)
        while session_id in self._sessions:
            session_id = random.randrange(1, 2**31)
        session = FetchSession(session_id, ctx.principal, self._waiting, header.api_version >= 13)
        for one in self._wanted_of(ctx, header, request):
            session.follow(one)
        self._sessions[session_id] = session
        return session

    @staticmethod
    def check(ctx: Context, session: FetchSession) -> None:
        """Rights and topics may have changed since a candidate was followed."""
        from_topics = ctx.broker.topics
        for one in session.candidates():
            if one.partition is None:
                continue
            if from_topics.partition(one.topic, one.index) is not one.partition:
                session.refuse(
                    one, ErrorCode.UNKNOWN_TOPIC_ID if session.by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                )
            elif not may_read(ctx, one.topic):
                session.refuse(one, ErrorCode.TOPIC_AUTHORIZATION_FAILED)

    def _make_room(self) -> bool:
        for session_id, session in self._sessions.items():
            if session.poll is None:
                session.close()
                del self._sessions[session_id]
                return True
        return False

    def _close(self, session_id: int, principal: str) -> None:
        session = self._sessions.get(session_id)
        if session is not None and session.principal == principal and session.poll is None:
            session.close()
            del self._sessions[session_id]


def may_read(ctx: Context, topic: str) -> bool:
    """Whether the peer may (still) read the topic."""
    return ctx.allows(Operation.READ, ResourceType.TOPIC, topic)
