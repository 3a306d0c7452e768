"""One HTTP connection: bytes in, answers out, one request at a time.

    waiting ─▶ knocking ─▶ reading ─▶ publishing ─▶ waiting …
                  └─▶ refusing ─▶ (answered)               every state ─▶ closed

Theory of operation
-------------------
h11 knows the protocol; this knows what a request means. A request's head is judged whole before a byte of its body is
kept: its form, then who it is from. While the engine is asked, nothing is read: what a peer sends ahead is bounded by
one read. A turn takes at most `TURN` events, so a thousand tiny chunks or requests in one read don't keep the others
waiting.

Who somebody is, is remembered for the connection as long as the header stays the same and the engine says that nothing
has changed (`Door.still_holds`), and is asked for again once the body is there: a revocation or a ban is in force for
the next message. Of the header only a keyed digest is kept between requests.

An answer to a wrong credential leaves `Settings.refusing` after the request, however long the look-up took: an unknown
name costs as long as a wrong password. After any other refusal the next request waits as long. An answer before the
whole request was read ends the connection.

Implements what `gateway.server.connection` asks of a session.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import h11

from gateway.http import requests
from gateway.http.credentials import Credentials, credentials
from gateway.http.port import Door, Publication, Visitor
from gateway.http.problems import Header, Problem, bad, problem_of, unavailable, unknown
from gateway.mqtt.surroundings import Link, Moment
from gateway.ports import ConnectRequest, Fate, Peer, Receipt

TURN: Final = 200
_WAITING, _KNOCKING, _READING, _PUBLISHING, _REFUSING, _YIELDING = range(6)
_BUSY: Final = (_KNOCKING, _PUBLISHING, _REFUSING, _YIELDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for every connection; times in seconds."""

    head_size: int = 16_384  # bytes of a request's line and headers
    head_fields: int = 100
    head: float = 5.0  # until a request's head is complete, from its first byte or from the connection's begin
    body: float = 60.0  # until its body is, from there
    idle: float = 60.0  # a kept connection may be silent
    answer: float = 30.0  # until a message must be durable; its outcome is called unknown then
    refusing: float = 0.25  # before a wrong credential is answered, and after any other refusal
    stalled: float = 60.0  # a peer may leave our answers unread


class Conversation:
    """See the module. `report(kind, detail, why)` hears of what is refused."""

    def __init__(
        self,
        door: Door,
        link: Link,
        settings: Settings,
        moment: Moment,
        peer: Peer,
        report: Callable[[str, str, str], None],
    ) -> None:
        self._door = door
        self._link = link
        self._settings = settings
        self._moment = moment
        self._peer = peer
        self._report = report
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=settings.head_size)
        self._state = _WAITING
        self._before = _WAITING  # what it yielded in
        self._begun = True  # a request's first byte came (a new connection owes one)
        self._until = moment.monotonic + settings.head
        self._stalled = 0.0
        self._asked = 0  # what is waited for; an answer to an older question is not listened to
        self._running = False
        self._last = False
        self._method = b""
        self._request: Publication | None = None
        self._knock: ConnectRequest | None = None
        self._proof = b""
        self._body = bytearray()
        self._visitor: Visitor | None = None
        self._known = b""  # digest of the header that the visitor proved themselves by
        self._key = b""
        self._refusal: tuple[float, Problem] | None = None
        # as a session's
        self.state = None
        self.closed = False
        self.blamed = self.ended = self.why = ""
        self.received_messages = self.refused_messages = self.other_packets = 0
        self.sent_messages = self.dropped_messages = self.joined_packets = 0

    @property
    def client_id(self) -> str:
        """Who this is, or, before that is known, says it is."""
        if self._visitor is not None:
            return self._visitor.client_id
        return (self._knock.username if self._knock is not None else None) or ""

    # -- the connection's side -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """What one read brought. Nothing means nothing, where h11 would take it for the end."""
        if self.closed or not data:
            return
        if not self._begun and self._state == _WAITING:
            self._begun = True
            self._until = self._moment.monotonic + self._settings.head
        self._h11.receive_data(data)
        self._run()

    def tick(self, late: float = 0.0) -> None:
        """Once a second: deadlines. So many seconds `late` they are looked at: what came meanwhile was not read yet."""
        if self.closed:
            return
        now = self._moment.monotonic - late
        if not self._link.writable and now > self._stalled + self._settings.stalled:
            self._end("answers are not read", spoken=False)
        elif now <= self._until or self._state in (_REFUSING, _YIELDING):
            return
        elif self._state == _WAITING and not self._begun:
            self._end("idle", spoken=False)
        elif self._state in (_WAITING, _READING):
            detail = "the request was not complete in time"
            self._answer_problem(Problem(HTTPStatus.REQUEST_TIMEOUT, "slow", detail), last=True)
        elif self._state == _PUBLISHING:
            detail = f"not durable within {self._settings.answer:.0f} s; it may be later: send it again, with the same "
            self._answer_problem(unknown(detail + "Sluice-Message-Id"), last=True)
        else:
            self._answer_problem(unavailable("nobody could say in time who you are"), last=True)

    def hold_back(self, seconds: float) -> None:
        """Many come from there: take its first request later, and give it as much longer."""
        self._until += seconds
        self._state = _YIELDING
        self._link.pause_reading()
        self._link.wake_after(seconds)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self.closed = True
        self.ended = self.ended or reason
        self._forget()

    def close(self, code: int, reason: str = "", *, server_reference: str = "") -> None:
        """The server stops: what was handed to the engine is waited for, nothing new is taken."""
        if self._state == _PUBLISHING:
            self._last = True
        elif self._state in (_WAITING, _YIELDING) and not self._begun:
            self._end(reason, spoken=False)
        else:
            self._answer_problem(unavailable(reason or f"closed with 0x{code:02x}"), last=True)

    def decongest(self) -> None:
        """Nothing waits for that: a message that can't be taken is refused."""

    def rate_recovered(self) -> None:
        """The link's answer to `wake_after`."""
        if self.closed:
            return
        if self._state == _YIELDING:
            self._state = self._before
            self._go_on()
        elif self._state == _REFUSING and self._refusal is not None:
            at, problem = self._refusal
            if self._moment.monotonic < at:
                self._link.wake_after(at - self._moment.monotonic)
            else:
                self._refusal = None
                self._answer_problem(problem)
                self._go_on()

    def writing_paused(self) -> None:
        self._stalled = self._moment.monotonic
        self._link.pause_reading()

    def writing_resumed(self) -> None:
        self._go_on()

    # -- from event to event ---------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Something that was waited for is here."""
        if not self._running and not self.closed and self._state not in _BUSY and self._link.writable:
            self._run()

    def _run(self) -> None:
        self._running = True
        try:
            for _ in range(TURN):
                if self.closed or self._state in _BUSY or not self._link.writable:
                    break
                event = self._next()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
            else:
                self._before, self._state = self._state, _YIELDING
                self._link.wake_after(0.0)
        finally:
            self._running = False
        if self.closed:
            return
        if self._state in _BUSY or not self._link.writable:
            self._link.pause_reading()
        else:
            self._link.resume_reading()

    def _next(self) -> Any:
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            self._broken(error)
            return h11.NEED_DATA
        try:
            if isinstance(event, h11.Request):
                self._head(event)
            elif isinstance(event, h11.Data):
                self._keep(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._whole()
        except Problem as problem:
            self._answer_problem(problem)
        return event

    def _broken(self, error: h11.RemoteProtocolError) -> None:
        """Not HTTP, or too much of it."""
        status = HTTPStatus(error.error_status_hint or 400)
        self._answer_problem(Problem(status, "malformed", f"not taken for an HTTP/1.1 request: {error}"), last=True)

    def _head(self, request: h11.Request) -> None:
        """A request's head is whole: is it one of ours, and who is it?"""
        settings, headers = self._settings, list(request.headers)
        self._method = request.method
        self._begun = True
        size = len(request.target) + sum(len(name) + len(value) for name, value in headers)
        if size > settings.head_size or len(headers) > settings.head_fields:
            detail = f"at most {settings.head_size} bytes and {settings.head_fields} fields"
            raise Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head", detail)
        if requests.values(headers, b"content-length") and requests.values(headers, b"transfer-encoding"):
            raise bad("length", "a request has Content-Length or Transfer-Encoding, not both")  # RFC 9112, 6.1
        if requests.values(headers, b"origin"):
            # any web page could have the operator's browser publish on this machine's behalf
            detail = "requests of web pages are not taken: this is for devices and applications"
            raise Problem(HTTPStatus.FORBIDDEN, "origin", detail)
        path, query = requests.split_target(request.target)
        requests.check_method(request.method, path)
        if path == requests.HEALTH:
            self.other_packets += 1
            self._answer_health()
            return
        self._request = requests.publication(path, query, headers)
        length = requests.one(headers, b"content-length")
        self._proof = requests.one(headers, b"authorization") or b""
        self._knock = self._as_connect(credentials(self._proof or None))
        self._until = self._moment.monotonic + settings.answer
        self._recognise(lambda: self._read_body(int(length or b"0")))

    def _as_connect(self, given: Credentials) -> ConnectRequest:
        return ConnectRequest(
            client_id="",
            assigned=False,
            protocol=5,
            clean_start=True,
            keep_alive=0,
            session_expiry=0,
            username=given.username,
            password=given.password,
            will=None,
            peer=self._peer,
        )

    def _recognise(self, then: Callable[[], None]) -> None:
        """Go on with `then` once it is known whose request this is."""
        visitor, knock = self._visitor, self._knock
        if visitor is not None and hmac.compare_digest(self._known, self._digest()) and self._door.still_holds(visitor):
            then()
            return
        assert knock is not None
        self._visitor = None
        self._state = _KNOCKING
        began = self._moment.monotonic

        def visited(receipt: Receipt[Visitor]) -> None:
            if receipt.failure is None:
                self._visitor, self._known = receipt.value, self._digest()
                then()
                return
            problem = problem_of(receipt.failure)
            if self._proof and problem.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
                self._refuse_later(began + self._settings.refusing, problem)
            else:
                raise problem

        self._await(self._door.visit(knock), visited)

    def _digest(self) -> bytes:
        if not self._key:
            self._key = os.urandom(16)
        return hashlib.blake2b(self._proof, key=self._key, digest_size=16).digest()

    def _refuse_later(self, at: float, problem: Problem) -> None:
        self._state = _REFUSING
        self._refusal = at, problem
        self._link.wake_after(max(0.0, at - self._moment.monotonic))

    def _read_body(self, length: int) -> None:
        self._check_size(length)
        self._state = _READING
        self._until = self._moment.monotonic + self._settings.body
        if self._h11.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _keep(self, data: bytes) -> None:
        if self._state == _READING:
            self._body += data
            self._check_size(len(self._body))

    def _check_size(self, size: int) -> None:
        assert self._visitor is not None
        largest = self._visitor.identity.limits.packet_size
        if size > largest:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "size", f"a message has at most {largest} bytes")

    def _whole(self) -> None:
        """The request is complete."""
        if self._state == _READING:
            self._until = self._moment.monotonic + self._settings.answer
            self._recognise(self._publish)

    def _publish(self) -> None:
        assert self._visitor is not None and self._request is not None
        request, payload = self._request, bytes(self._body)
        self._check_size(len(payload))
        self._state = _PUBLISHING
        self._body = bytearray()

        def published(receipt: Receipt[Fate]) -> None:
            if receipt.failure is not None:
                self.refused_messages += 1
                self.other_packets -= 1  # it is a message, and no other packet
                raise problem_of(receipt.failure)
            assert receipt.value is not None
            self.received_messages += 1
            self._answer_fate(request, receipt.value)

        self._await(self._door.publish(self._visitor, request, payload), published)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _await(self, receipt: Receipt[Any], then: Callable[[Receipt[Any]], None]) -> None:
        """Call `then` when the receipt settles, unless something else has ended the wait by then."""
        self._asked += 1
        waiter = _Waiting(self, self._asked, then)
        if receipt.settled:
            waiter.receipt_settled(receipt)
        else:
            receipt.waiters.append(waiter)

    def settled(self, asked: int, then: Callable[[Receipt[Any]], None], receipt: Receipt[Any]) -> None:
        """What was waited for is here."""
        if self.closed or asked != self._asked:
            return
        try:
            then(receipt)
        except Problem as problem:
            self._answer_problem(problem)
        self._go_on()

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer_fate(self, request: Publication, fate: Fate) -> None:
        found: dict[str, Any] = {"topic": request.topic, "outcome": fate.outcome}
        if fate.duplicate:
            found["duplicate"] = True
        if request.message_id:
            found |= {"id": request.message_id, "window": fate.window}
        if fate.reason:
            found |= {"reason": fate.reason, "detail": fate.detail}
        status = HTTPStatus.ACCEPTED if fate.outcome in ("accepted", "dead-letter") else HTTPStatus.OK
        self._answer(status, b"application/json", json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))

    def _answer_health(self) -> None:
        if not self._door.available:
            raise unavailable("no message would be taken now")
        self._answer(HTTPStatus.OK, b"application/json", b'{"status": "ok"}')

    def _answer_problem(self, problem: Problem, *, last: bool = False) -> None:
        self.other_packets += 1
        self._report(f"http-{problem.reason}", problem.detail, problem.why)
        waited = self._state == _REFUSING
        self._answer(problem.status, b"application/problem+json", problem.body, problem.headers, last=last)
        if self._state == _WAITING and not self.closed and not waited:
            # a mistake is cheap to make, and to make again: the next request is looked at a while later
            self._until += self._settings.refusing
            self._before, self._state = _WAITING, _YIELDING
            self._link.wake_after(self._settings.refusing)

    def _answer(
        self, status: HTTPStatus, kind: bytes, body: bytes, headers: tuple[Header, ...] = (), *, last: bool = False
    ) -> None:
        """Answer the request and get ready for the next, or close if there can't be one."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._end("no answer is possible", spoken=False)
            return
        last = last or self._last or not self._read_through()
        fields: list[Header] = [
            (b"Date", formatdate(self._moment.wall, usegmt=True).encode()),
            (b"Content-Type", kind),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            *headers,
        ]
        if last:
            fields.append((b"Connection", b"close"))
        self._send(h11.Response(status_code=status, headers=fields, reason=status.phrase.encode()))
        if self._method != b"HEAD":
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        self._forget()
        if last or self._h11.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._end(f"answered {status}", spoken=True)
            return
        self._h11.start_next_cycle()
        self._state = _WAITING
        self._begun = bool(self._h11.trailing_data[0])
        settings = self._settings
        self._until = self._moment.monotonic + (settings.head if self._begun else settings.idle)

    def _read_through(self) -> bool:
        """Take what has come of this request and is not wanted; whether that was all of it."""
        if self._h11.they_are_waiting_for_100_continue:
            return False
        try:
            for _ in range(TURN):
                if self._h11.their_state is not h11.SEND_BODY:
                    return True
                if self._h11.next_event() is h11.NEED_DATA:
                    return False
        except h11.RemoteProtocolError:
            pass
        return False

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._link.write(data)

    def _forget(self) -> None:
        """Nothing of the request is needed any more, its secrets least of all."""
        self._asked += 1
        self._request = self._knock = None
        self._proof = self._method = b""
        self._body = bytearray()
        self._refusal = None

    def _end(self, reason: str, *, spoken: bool) -> None:
        self.closed = True
        self.ended = reason
        self._forget()
        self._link.close(spoken=spoken)


class _Waiting:
    """One question of a conversation."""

    __slots__ = ("_asked", "_conversation", "_then")

    def __init__(self, conversation: Conversation, asked: int, then: Callable[[Receipt[Any]], None]) -> None:
        self._conversation = conversation
        self._asked = asked
        self._then = then

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        self._conversation.settled(self._asked, self._then, receipt)
