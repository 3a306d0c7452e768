"""One connection to an upstream broker, through amqtt's client.

amqtt hands a QoS 1 message to its session's queue, awaits that, and only then writes the PUBACK. So a queue whose `put`
returns when the log holds the message makes the acknowledgement mean what it should; a message that could not be stored
is never acknowledged, and the upstream, whose session is persistent, sends it again. For QoS 2 the library writes
PUBREC first: that would lose messages in a crash, so subscriptions ask for QoS 1 at most.

The library does not notice an upstream that has fallen silent, nor tell a lost connection from a cancellation: both are
seen to here. A contract test holds what this module leans on.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from amqtt.client import MQTTClient
from amqtt.contexts import ClientConfig, ConnectionConfig
from amqtt.errors import AMQTTError, ClientError, CodecError, MQTTError, NoDataError, ProtocolHandlerError

from gateway.bridges import Bridge

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 10.0
CLOSE_SECONDS = 2.0
RETURN_CODES = {
    1: "the upstream doesn't speak MQTT 3.1.1",
    2: "the upstream refuses the client id",
    3: "the upstream is not available",
    4: "the upstream refuses user name and password",
    5: "the upstream refuses: not authorised",
}

# amqtt's errors have no common base
FAILURES = (
    AMQTTError,
    ClientError,
    CodecError,
    MQTTError,
    NoDataError,
    ProtocolHandlerError,
    OSError,
    TimeoutError,
)

Take = Callable[[str, bytes, int, bool], Awaitable[None]]
"""(topic, payload, QoS, retained): returns when the message is durable, raises when it isn't."""


class Disconnected(Exception):
    """There is no connection (any more); the text says why."""


class _Inbox:
    """Stands for amqtt's queue of delivered messages; see the module."""

    def __init__(self, take: Take, failed: Callable[[BaseException], None]) -> None:
        self._take = take
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, message: Any) -> None:
        try:
            await self._take(message.topic, bytes(message.data), message.qos or 0, bool(message.retain))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(error)
            await asyncio.get_running_loop().create_future()  # never acknowledge; the connection's end cancels this

    def put_nowait(self, message: Any) -> None:
        """QoS 0: nobody waits."""
        task = asyncio.get_running_loop().create_task(self.put(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def qsize(self) -> int:
        return 0

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


class _Client(MQTTClient):  # type: ignore[misc]  # amqtt has no types
    def __init__(self, bridge: Bridge, password: str, inbox: _Inbox, config: ClientConfig) -> None:
        super().__init__(client_id=bridge.client_id, config=config)
        self._bridge = bridge
        self._password = password
        self._inbox = inbox

    def _init_session(self, *arguments: Any, **named: Any) -> Any:
        session = super()._init_session(*arguments, **named)
        session.username = self._bridge.username or None
        session.password = self._password or None
        session.delivered_message_queue = self._inbox
        return session


class Upstream:
    """`open`, then `publish` until `lost` is done; `close` always."""

    def __init__(self, bridge: Bridge, password: str, take: Take) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._bridge = bridge
        self._inbox = _Inbox(take, lambda error: self._end(f"a message could not be stored: {error}"))
        self._folder = tempfile.TemporaryDirectory(prefix="bridge-")
        connection = ConnectionConfig(uri=f"{'mqtts' if bridge.tls else 'mqtt'}://{_host(bridge)}:{bridge.port}")
        if bridge.ca:
            authority = Path(self._folder.name) / "ca.pem"
            authority.write_text(bridge.ca, encoding="ascii")
            connection.cafile = authority
        config = ClientConfig(
            keep_alive=bridge.keep_alive,
            ping_delay=1,
            auto_reconnect=False,
            cleansession=False,
            connection_timeout=int(CONNECT_SECONDS),
            connection=connection,
            plugins={},
        )
        self._client = _Client(bridge, password, self._inbox, config)
        self._watch: asyncio.Task[None] | None = None

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)

    async def open(self) -> None:
        """Connect and subscribe; raises Disconnected."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._client.connect()
                await self._subscribe(self._bridge.inbound)
        except FAILURES as error:
            raise Disconnected(_reason(error)) from error
        except asyncio.CancelledError:
            if self._current_is_cancelled():
                raise
            raise Disconnected("the upstream closed the connection") from None
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def _subscribe(self, filters: Sequence[str]) -> None:
        if not filters:
            return
        codes = await self._client.subscribe([(each, self._bridge.qos) for each in filters])
        refused = [each for each, code in zip(filters, codes, strict=False) if code > 2]
        if refused:
            raise Disconnected(f"the upstream refuses the subscription to {', '.join(refused)}")

    async def _keep_watch(self) -> None:
        """Notice an end, and an upstream that doesn't answer any more."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while not self.lost.done():
            await asyncio.sleep(0.2)
            if not self._client.session.transitions.is_connected():
                self._end("the upstream closed the connection")
            elif loop.time() - heard > self._bridge.keep_alive / 2:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await self._client.ping()
                except FAILURES as error:
                    self._end(f"the upstream does not answer: {_reason(error)}")
                heard = loop.time()

    async def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """Returns once the upstream has acknowledged (QoS 0: once it is written); raises Disconnected."""
        try:
            await self._client.publish(topic, payload, qos=self._bridge.qos, retain=retain)
        except FAILURES as error:
            raise Disconnected(_reason(error)) from error
        except asyncio.CancelledError:
            if self._current_is_cancelled():
                raise
            raise Disconnected("the connection was lost before the acknowledgement") from None
        if self.lost.done():
            raise Disconnected(self.lost.result())

    @staticmethod
    def _current_is_cancelled() -> bool:
        """Whether somebody cancelled *us*: amqtt cancels what waits when a connection ends."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def close(self) -> None:
        """Let go of everything, however far it got."""
        self._end("closed")
        if self._watch is not None:
            self._watch.cancel()
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.disconnect()
        handler = self._client._handler
        if handler is not None:
            with contextlib.suppress(*FAILURES, AttributeError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await handler.stop()
        if self._client._disconnect_task is not None:
            self._client._disconnect_task.cancel()
        self._inbox.close()
        self._folder.cleanup()


def _host(bridge: Bridge) -> str:
    return f"[{bridge.host}]" if ":" in bridge.host else bridge.host


def _reason(error: BaseException) -> str:
    code = getattr(error, "return_code", None)
    if code in RETURN_CODES:
        return RETURN_CODES[code]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
