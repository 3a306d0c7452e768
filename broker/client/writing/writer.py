"""The producer of an event loop: `queues` with connections, metadata and time.

For those who write much and wait for nothing: everything happens on the loop's thread. Messages handed over leave in
one request to each broker before `send_all` returns, and an answer's outcomes are told from within the read that
brought it. (`producing` is librdkafka's: for threads, transactions and compression.)

Idempotent, acks=all. After an outcome that is unknown the writer has ended (`fatal`): make another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from math import inf

from broker.client.administration.connection import Connection
from broker.client.errors import ClientError, TimedOut, Unreachable, from_code
from broker.client.outgoing import Sending
from broker.client.settings import Settings
from broker.client.writing import requests
from broker.client.writing.batches import Batch
from broker.client.writing.node import Node
from broker.client.writing.queues import Queues, Request
from broker.wire import codec
from broker.wire.codec import Malformed, Struct

log = logging.getLogger("broker.client")

METADATA, INIT_PRODUCER_ID = 3, 22
REFRESH = 300.0  # seconds after which partitions that were added are noticed, as with other clients
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # between attempts to learn where to send
CONTROL_TIMEOUT = 10.0  # for an answer to such
REQUEST_TIMEOUT = 30.0
TICK = 1.0


class Writer:
    """`attach` it to the running loop; then `batch`. For that loop's thread alone."""

    def __init__(
        self,
        settings: Settings,
        *,
        delivery_timeout: float = 30.0,
        queue_messages: int = 200_000,
        queue_bytes: int = 256 << 20,
    ) -> None:
        """`delivery_timeout`: seconds after which a message's outcome counts as unknown."""
        self._settings = settings
        self._request_timeout = min(delivery_timeout, REQUEST_TIMEOUT)
        self._queues = Queues(delivery_timeout=delivery_timeout, most=queue_messages, most_bytes=queue_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._nodes: dict[tuple[str, int], Node] = {}
        self._brokers: dict[int, Node] = {}
        self._control: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._learned = asyncio.Event()
        self._emptied = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._telling = False
        self._closed = False
        self._ticker: asyncio.TimerHandle | None = None
        self.last_error: ClientError | None = None
        """The newest passing trouble (a broker that is down, ...), for status pages."""

    @property
    def fatal(self) -> ClientError | None:
        """Set once the writer can do nothing any more; make another."""
        return self._queues.fatal

    def __len__(self) -> int:
        """Messages without an outcome."""
        return self._queues.messages

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, on this loop."""
        self._loop = loop
        self._control = loop.create_task(self._learn())
        self._wanted.set()
        self._ticker = loop.call_later(TICK, self._tick)

    # --- sending

    def batch(self, done: Callable[[Batch], None]) -> Batch:
        """A batch whose `done` is called on the loop."""
        return Batch(self._take, done)

    def _take(self, owner: Batch, messages: Sequence[Sending]) -> int:
        loop = self._loop
        assert loop is not None, "attach it first"
        taken = self._queues.take(owner, messages, loop.time(), int(time.time() * 1000))
        self._flush()
        return taken

    def _flush(self) -> None:
        """Send what can be sent, and see to what prevents it."""
        self._send()
        if self._queues.pending and not self._telling and self._loop is not None:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _send(self) -> None:
        loop, queues = self._loop, self._queues
        if loop is None or self._closed:
            return
        now = loop.time()
        for request in queues.requests(now, self._able):
            self._post(request)
        if queues.stale:
            self._wanted.set()
        due = queues.due(now)
        if due is not None and due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = loop.call_later(max(0.001, due - now), self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, inf
        self._flush()

    def _able(self, broker: int) -> bool:
        node = self._brokers.get(broker)
        if node is None:
            self._queues.stale = True
            return False
        if node.connection is None:
            node.open()
            return False
        return node.quiet_until <= (self._loop.time() if self._loop is not None else 0.0)

    def _post(self, request: Request) -> None:
        node = self._brokers[request.broker]
        connection = node.connection
        assert connection is not None
        version = connection.version(requests.PRODUCE, requests.NEWEST)
        body = requests.encode(request, version, int(self._request_timeout * 1000))
        node.post(request, requests.PRODUCE, version, body, lambda answer: self._heard(node, request, version, answer))

    def _heard(self, node: Node, request: Request, version: int, answer: memoryview | ClientError) -> None:
        loop, queues = self._loop, self._queues
        if loop is None or self._closed:
            return
        if not isinstance(answer, ClientError):
            try:
                answers, throttle = requests.decode(version, answer)
            except Malformed as error:
                answer = Unreachable(str(error))
                node.abort(f"an answer that is none: {error}")
        now = loop.time()
        if isinstance(answer, ClientError):
            self._trouble(answer)
            queues.lost(request, now)
        else:
            if throttle:
                node.quiet_until = now + throttle / 1000
                loop.call_later(throttle / 1000, self._flush)
            queues.answered(request, answers, now)
        self._send()
        self._tell()

    def _tell(self) -> None:
        self._telling = False
        while self._queues.pending:
            try:
                self._queues.tell()
            except Exception:  # whoever heard of it must not keep the others from hearing of theirs
                log.exception("an outcome could not be told")
        if not self._queues.messages and not self._emptied.is_set():
            self._emptied.set()

    def _trouble(self, error: ClientError) -> None:
        if self._closed:
            return
        if self.last_error is None or str(self.last_error) != str(error):
            log.warning("trouble with the cluster: %s", error)
        self.last_error = error

    def _unreachable(self, error: ClientError) -> None:
        self._queues.stale = True  # the broker may be elsewhere by now
        self._trouble(error)

    # --- time

    def _tick(self) -> None:
        loop = self._loop
        if loop is None or self._closed:
            return
        self._ticker = loop.call_later(TICK, self._tick)
        if not len(self):
            return
        now = loop.time()
        for node in list(self._nodes.values()):
            if node.overdue(now, self._request_timeout):
                node.abort(f"no answer within {self._request_timeout:g} s")
        self._queues.expire(now)
        self._flush()

    # --- where to send

    async def _learn(self) -> None:
        """Keep up to date who leads what."""
        troubles = 0
        while True:
            try:
                async with asyncio.timeout(REFRESH):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            self._queues.stale = False
            try:
                connection = await self._any()
                if self._queues.producer_id < 0:
                    await self._register(connection)
                await self._ask(connection)
            except ClientError as error:
                self._trouble(error)
                self._queues.stale = True
            except Exception:  # a mistake of ours must not end this for ever
                log.exception("nothing could be learned of the cluster")
                self._queues.stale = True
            self._learned.set()
            self._flush()
            troubles = troubles + 1 if self._queues.stale else 0
            await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(troubles, 10)))

    async def _any(self) -> Connection:
        """A connection to whichever broker answers."""
        for node in self._nodes.values():
            if node.connection is not None:
                return node.connection
        problem: ClientError = Unreachable("no address")
        for address in dict.fromkeys([*self._settings.addresses, *(node.address for node in self._brokers.values())]):
            node = self._node(address)
            node.open()
            await node.settled()
            found = node.connection
            if found is not None:
                return found
            problem = self.last_error or problem
        raise problem

    def _node(self, address: tuple[str, int]) -> Node:
        found = self._nodes.get(address)
        if found is None:
            assert self._loop is not None
            found = self._nodes[address] = Node(
                self._settings, address, loop=self._loop, opened=self._flush, troubled=self._unreachable
            )
        return found

    async def _call(self, connection: Connection, key: int, newest: int, oldest: int, request: Struct) -> Struct:
        try:
            return await connection.exchange(key, connection.version(key, newest, oldest), request, CONTROL_TIMEOUT)
        except TimedOut:
            connection.abort("it does not answer")  # another broker may
            raise

    async def _register(self, connection: Connection) -> None:
        request = codec.struct("InitProducerIdRequest")(transactional_id=None, transaction_timeout_ms=60_000)
        answer = await self._call(connection, INIT_PRODUCER_ID, 5, 0, request)
        if answer.error_code:
            raise from_code(answer.error_code)
        self._queues.producer_id, self._queues.epoch = answer.producer_id, answer.producer_epoch

    async def _ask(self, connection: Connection) -> None:
        """Metadata of every topic that was ever written to: a cluster that makes topics by their use makes it."""
        make = codec.struct("MetadataRequest.MetadataRequestTopic")
        request = codec.struct("MetadataRequest")(
            topics=[make(name=name) for name in self._queues.topics], allow_auto_topic_creation=True
        )
        answer = await self._call(connection, METADATA, 12, 4, request)
        self._brokers = {each.node_id: self._node((each.host, each.port)) for each in answer.brokers}
        now = asyncio.get_running_loop().time()
        for topic in answer.topics:
            leaders = {each.partition_index: each.leader_id for each in topic.partitions}
            self._queues.learn(topic.name, topic.error_code, leaders, now)
        self._let_go()

    def _let_go(self) -> None:
        """Of addresses that no broker has any more."""
        kept = {node.address for node in self._brokers.values()} | set(self._settings.addresses)
        for address in [address for address in self._nodes if address not in kept]:
            node = self._nodes[address]
            if not node.under_way:
                del self._nodes[address]
                node.close()

    async def partitions(self, topic: str, timeout: float = 5.0) -> int:
        """How many partitions the topic has; a cluster that makes topics by their use makes it. Raises ClientError."""
        self._queues.want(topic)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = self._queues.partitions(topic, asyncio.get_running_loop().time())
                    if isinstance(found, ClientError):
                        raise found
                    if found:
                        return found
                    self._learned.clear()
                    self._wanted.set()
                    await self._learned.wait()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TimedOut(f"nothing was heard of {topic} within {timeout:g} s") from None

    # --- the end

    async def close(self, timeout: float) -> int:
        """Wait for outcomes, and let go; how many messages are left without one when the time is up."""
        if len(self):
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._emptied.wait()
        return self.drop()

    def drop(self) -> int:
        """Let go now; how many messages had no outcome. They fail."""
        left = len(self)
        self._closed = True
        self._queues.end(TimedOut("the producer was closed"))
        self._tell()
        for handle in (self._timer, self._ticker):
            if handle is not None:
                handle.cancel()
        if self._control is not None:
            self._control.cancel()
        for node in self._nodes.values():
            node.close()
        return left
