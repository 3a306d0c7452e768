"""One connection: bytes in, requests started in order, responses out in the same order.

Requests of a connection run one at a time, as in Kafka, except that handlers marked `pipelined` may start while earlier
pipelined ones still wait; responses always leave in request order. What a peer may make us hold is bounded: the frame
being received, a number of queued requests, bytes of requests not yet answered (then we stop reading), and unsent
responses (then we stop starting). Whatever the peer does wrong closes this connection, with a logged reason, and
nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from broker.api.registry import Api, Context, Disconnect, Encoded, Later
from broker.server.quotas import REQUEST
from broker.server.request_time import Stepped, Stopwatch
from broker.wire import framing
from broker.wire.codec import Buffer, Malformed, struct

if TYPE_CHECKING:
    from broker.config import Listener
    from broker.server.listener import Server

logger = logging.getLogger(__name__)

API_VERSIONS = 18
UNKNOWN_SERVER_ERROR = -1


class _Slot:
    """A request under way and, in time, its response."""

    __slots__ = ("api", "buffers", "header", "ready", "size", "task", "watch")

    def __init__(self, api: Api, header: framing.RequestHeader, size: int) -> None:
        self.api = api
        self.header = header
        self.size = size
        self.ready = False
        self.buffers: list[Buffer] = []
        self.task: asyncio.Future[Any] | None = None
        self.watch: Stopwatch | None = None
        """Counts the time it takes of us, when some quota is on that."""


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._splitter = framing.Splitter(
            server.limits.frame_before_authentication if listener.sasl else server.limits.frame
        )
        self._queue: deque[memoryview] = deque()
        self._held_bytes = 0  # of requests queued or under way
        self._slots: deque[_Slot] = deque()
        self._plain_under_way = False
        self._pumping = False
        self._reading = True
        self._write_paused = False
        self._muted: asyncio.TimerHandle | None = None
        self._mute_after = 0
        self._closing = False
        self._dismissed = ""
        self.last_heard = 0.0
        self.on_close: list[Any] = []
        """Called once when the connection is gone: parked requests give up their place."""
        self.ctx: Context = cast(Context, None)

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.ctx = self._server.context(self, self._listener, self._transport)
        self.last_heard = self._server.clock.monotonic()
        refusal = self._server.opened(self)
        if refusal:
            self.abort(refusal)
            return
        wait = self._server.held(self)
        if wait:
            self.hold(wait, "connections come faster than the address's quota")
            return
        self._transport.set_write_buffer_limits(high=self._server.limits.unsent_bytes)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._queue.clear()
        self._held_bytes = 0
        for slot in self._slots:
            if slot.task is not None:
                slot.task.cancel()
        self._slots.clear()
        if self._muted is not None:
            self._muted.cancel()
        on_close, self.on_close = self.on_close, []
        for call in on_close:
            call()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self.last_heard = self._server.clock.monotonic()
        try:
            frames = self._splitter.feed(data)
        except Malformed as error:
            self.abort(f"bad frame: {error}")
            return
        if not frames:
            return
        for frame in frames:
            self._held_bytes += len(frame)
        self._queue.extend(frames)
        self._pump()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._pump()

    # --- requests

    def _pump(self) -> None:
        """Start whatever may start now."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and not self._held:
                if not self._start_next():
                    break
        finally:
            self._pumping = False
        limits = self._server.limits
        full = len(self._queue) > limits.queued_requests or self._held_bytes > limits.held_bytes
        if full == self._reading and self._transport is not None and not self._closing:
            self._reading = not full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    @property
    def _held(self) -> bool:
        """Whether no request may start now."""
        return bool(self._muted or self._mute_after or self._dismissed or self._write_paused or self._closing)

    def _start_next(self) -> bool:
        """Start the oldest queued request; False when it has to wait for those under way."""
        frame = self._queue[0]
        try:
            header, body = framing.parse_request(frame)
        except framing.UnsupportedRequest as error:
            if self._slots:
                return False
            self._drop(frame)
            self._unsupported(error.header)
            return True
        except Malformed as error:
            self.abort(f"bad request header: {error}")
            return False
        api = self._server.apis.get(header.api_key)
        if self._slots and (self._plain_under_way or api is None or not api.pipelined):
            return False
        if api is None or not api.min <= header.api_version <= api.max:
            self._drop(frame)
            self._unsupported(header)
            return True
        self._queue.popleft()
        if not self.ctx.authenticated and not api.before_authentication:
            self.abort(f"request {header.api_key} before authentication")
            return False
        expires = self.ctx.session_expires
        if expires is not None and not api.before_authentication and self._server.clock.monotonic() > expires:
            self.abort("the session's token has expired and was not renewed")
            return False
        watch = Stopwatch(self._server.clock.monotonic) if self._server.broker.quotas.times_requests else None
        try:
            request = framing.parse_body(header, body) if api.decode is None else api.decode(header, body)
        except Malformed as error:
            self.abort(f"malformed request {header.api_key} version {header.api_version}: {error}")
            return False
        self._run(api, header, request, len(frame), watch)
        return True

    def _drop(self, frame: memoryview) -> None:
        self._queue.popleft()
        self._held_bytes -= len(frame)

    def _unsupported(self, header: framing.RequestHeader) -> None:
        if header.api_key != API_VERSIONS:
            self.abort(f"unsupported request {header.api_key} version {header.api_version}")
            return
        self._write(framing.api_versions_fallback(header, self._server.api_versions))

    def _run(self, api: Api, header: framing.RequestHeader, request: Any, size: int, watch: Stopwatch | None) -> None:
        slot = _Slot(api, header, size)
        slot.watch = watch
        self._slots.append(slot)
        self._plain_under_way = not api.pipelined
        self._server.requests += 1
        try:
            result = api.handle(self.ctx, header, request)
        except Disconnect as error:
            self.abort(str(error))
            return
        except Exception as error:
            self._failed(slot, request, error)
            return
        if isinstance(result, Later):
            result.then(partial(self._completed, slot))
        elif inspect.iscoroutine(result):
            slot.task = self._server.loop.create_task(result if watch is None else Stepped(result, watch))
            slot.task.add_done_callback(partial(self._task_done, slot, request))
        elif isinstance(result, asyncio.Future):
            slot.task = result
            result.add_done_callback(partial(self._task_done, slot, request))
        else:
            self._completed(slot, result)
        if watch is not None:
            watch.pause()

    def _task_done(self, slot: _Slot, request: Any, task: asyncio.Future[Any]) -> None:
        if task.cancelled():
            if not self._closing:
                self.abort("a request was cancelled")
            return
        error = task.exception()
        if error is None:
            self._completed(slot, task.result())
        elif isinstance(error, Disconnect):
            self.abort(str(error))
        else:
            self._failed(slot, request, error)

    def _failed(self, slot: _Slot, request: Any, error: BaseException) -> None:
        """A handler of ours broke: say so in the log, and to the peer where the response has a place for it."""
        name = type(request).__name__
        logger.error("%s version %d failed", name, slot.header.api_version, exc_info=error)
        response_type = struct(name.removesuffix("Request") + "Response")
        if "error_code" not in getattr(response_type, "__slots__", ()):
            self.abort(f"{name} failed here")
            return
        self._completed(slot, response_type(error_code=UNKNOWN_SERVER_ERROR))

    def _completed(self, slot: _Slot, response: Any) -> None:
        if self._closing:
            return
        if slot.watch is not None:
            slot.watch.go()
            self._charge(slot.watch, slot.header, response)
        if response is not None:
            try:
                if isinstance(response, Encoded):
                    slot.buffers = framing.response_bytes(slot.header, response.buffers)
                else:
                    slot.buffers = framing.response(slot.header, response)
            except Exception:
                logger.exception("the response to %r can't be encoded", slot.header)
                self.abort("a response could not be encoded")
                return
        if slot.watch is not None:  # encoding counts too, against what comes next
            self._charge(slot.watch, slot.header, None)
        slot.ready = True
        self._flush()

    def _charge(self, watch: Stopwatch, header: framing.RequestHeader, response: Any) -> None:
        """Count the request's time so far against the client's share of ours (KIP-124); a response says for how long
        its connection is muted."""
        broker = self._server.broker
        percent = watch.taken() * 100
        throttle = broker.quotas.throttle(
            REQUEST, self.ctx.principal, header.client_id, percent, self._server.clock.monotonic()
        )
        if throttle and response is not None:
            broker.meter.throttled += 1
            self.throttle(throttle)
            if hasattr(response, "throttle_time_ms"):
                response.throttle_time_ms = max(response.throttle_time_ms, throttle)

    def _flush(self) -> None:
        out: list[Buffer] = []
        slots = self._slots
        while slots and slots[0].ready:
            slot = slots.popleft()
            out += slot.buffers
            self._held_bytes -= slot.size
        if out:
            self._write(out)
        if not slots:
            self._plain_under_way = False
            if self._dismissed:
                self.abort(self._dismissed)
            elif self._mute_after:
                self._mute(self._mute_after)
        if not self._closing:
            self._pump()

    def _write(self, buffers: list[Buffer]) -> None:
        if self._transport is not None and not self._closing:
            self._transport.writelines(buffers)

    # --- what handlers and the server ask of a connection

    def throttle(self, milliseconds: int) -> None:
        """Answer what is under way, then take nothing from this peer for so long (KIP-219)."""
        self._mute_after = max(self._mute_after, milliseconds)

    def hold(self, milliseconds: int, reason: str) -> None:
        """Take nothing from this peer at all, and close in so long: it opens connections too fast (KIP-612)."""
        assert self._transport is not None
        self._closing = True
        self._transport.pause_reading()
        self._muted = self._server.loop.call_later(milliseconds / 1000, self._let_go, reason)

    def _let_go(self, reason: str) -> None:
        self._server.complain(self, reason)
        if self._transport is not None:
            self._transport.abort()

    def _mute(self, milliseconds: int) -> None:
        self._mute_after = 0
        if self._muted is not None:
            self._muted.cancel()
        self._muted = self._server.loop.call_later(milliseconds / 1000, self._unmute)

    def _unmute(self) -> None:
        self._muted = None
        self._pump()

    def dismiss(self, reason: str) -> None:
        """Answer what is under way, then close and say why in the log."""
        self._dismissed = reason

    def authenticated(self) -> None:
        """The peer proved who it is: it may send full-sized requests from now on."""
        self._splitter.max_size = self._server.limits.frame
        self._server.authenticated(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._server.loop

    @property
    def idle(self) -> bool:
        return not self._slots and not self._queue

    def close_after_answers(self) -> None:
        """Close once what is under way has been answered and sent."""
        if self._transport is not None and not self._closing:
            self._closing = self.idle
            if self.idle:
                self._transport.close()

    def abort(self, reason: str) -> None:
        """Close now and say why in the log."""
        if self._closing:
            return
        self._closing = True
        self._server.complain(self, reason)
        if self._transport is not None:
            # What was answered before (an authentication error, say) should still reach the peer.
            self._transport.close()
            self._server.loop.call_later(5, self._transport.abort)
