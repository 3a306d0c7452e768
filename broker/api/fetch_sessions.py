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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from broker.api.fetch_followed import Followed, Key, Wanted
from broker.cluster.acls import Operation, ResourceType
from broker.wire.errors import ErrorCode

if TYPE_CHECKING:
    from broker.api.registry import Context
    from broker.log.partition import Partition
    from broker.server.waiting import Waiting
    from broker.wire.framing import RequestHeader

SLOTS = 1000
FINAL, INITIAL = -1, 0


class SessionError(Exception):
    """The session the request names can't be used; carries the code."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class FetchSession(Followed):
    """One client's set of followed partitions."""

    def __init__(self, session_id: int, principal: str, waiting: Waiting, by_id: bool) -> None:
        super().__init__(waiting)
        self.id = session_id
        self.principal = principal
        self.by_id = by_id
        self.epoch = 1
        self.full = True
        """Whether the request under way is the one that opened the session: it names and gets everything."""
        self._moved: OrderedDict[Key, None] = OrderedDict()

    def asked(self, wanted: Iterable[Wanted]) -> None:
        """The request under way named these."""
        for one in wanted:
            self._moved[one.key] = None

    def forget(self, key: Key) -> None:
        self._moved.pop(key, None)
        super().forget(key)

    def close(self) -> None:
        self._moved.clear()
        super().close()

    def candidates(self) -> list[Wanted]:
        """What has to be looked at: everything at first, then what moved or was asked anew."""
        return [self._wanted[key] for key in self._moved]

    def told(self, looked_at: list[Wanted]) -> list[Wanted]:
        """Which of them go into the answer; those still owed something stay candidates."""
        answer = []
        for one in looked_at:
            partition = one.partition
            owed = one.urgent
            has = owed or (one.slice is not None and one.slice.size > 0)
            if partition is not None and not owed:
                marks = partition.high_watermark, partition.log_start_offset
                has = has or marks != (one.sent_high_watermark, one.sent_start)
                one.sent_high_watermark, one.sent_start = marks
                # Served or nothing there: what the client reads next it will ask for.
                owed = one.offset < partition.high_watermark
            if has or self.full:
                answer.append(one)
            if owed:
                self._moved.move_to_end(one.key)
            else:
                self._moved.pop(one.key, None)
        self.full = False
        return answer

    def _touched(self, partition: Partition) -> None:
        one = self._by_partition.get(partition)
        if one is not None:
            self._moved[one.key] = None
            super()._touched(partition)


FollowAsked = Callable[["Context", "RequestHeader", Any, Followed], list[Wanted]]


class FetchSessions:
    """Every session of the broker: a bounded number, the one unused longest goes first."""

    def __init__(self, waiting: Waiting, follow_asked: FollowAsked, slots: int = SLOTS) -> None:
        self._waiting = waiting
        self._follow_asked = follow_asked
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
        session.asked(self._follow_asked(ctx, header, request, session))
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
        session.asked(self._follow_asked(ctx, header, request, session))
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
