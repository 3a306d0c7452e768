"""Hand-written stand-ins for what the engine's parts are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.client import Failure
from broker.client.errors import ClientError, QueueFull
from gateway.ports import ConnectRequest, Identity, Limits, Message, Peer, Session, Will


class FakeBatch:
    """As `broker.client.Batch`; outcomes are decided by the test."""

    def __init__(self, producer: FakeProducer, done: Callable[[Any], None]) -> None:
        self.producer = producer
        self.done = done
        self.records: list[tuple[str, bytes | None, bytes | None, Any]] = []
        self.failures: list[Failure] = []
        self.sealed = False
        self.finished = False

    def send(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Any = None) -> None:
        if self.producer.full:
            raise QueueFull("full")
        self.records.append((topic, value, key, headers))

    def send_all(self, messages: Any) -> int:
        taken = 0
        for topic, value, key, headers, _, _ in messages:
            if self.producer.full:
                break
            self.records.append((topic, value, key, headers))
            taken += 1
        return taken

    def seal(self) -> None:
        self.sealed = True
        if not self.records:
            self.finish()

    def finish(self, *failures: tuple[int, ClientError]) -> None:
        """Every record is durable, save those of these numbers."""
        for number, error in failures:
            topic, value, key, _ = self.records[number]
            self.failures.append(Failure(topic, 0, key, value, error))
        self.finished = True
        self.done(self)


class FakeProducer:
    def __init__(self) -> None:
        self.batches: list[FakeBatch] = []
        self.full = False
        self.fatal: ClientError | None = None
        self.closed = False

    def __len__(self) -> int:
        return sum(len(batch.records) for batch in self.batches if not batch.finished)

    def attach(self, loop: Any) -> None:
        pass

    def batch(self, done: Callable[[Any], None]) -> FakeBatch:
        made = FakeBatch(self, done)
        self.batches.append(made)
        return made

    async def close(self, timeout: float) -> int:
        return self.drop()

    def drop(self) -> int:
        self.closed = True
        return 0


class FakeLoop:
    """Runs what is called soon when told to, and what is called later when its time has come."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.later: list[tuple[float, Callable[..., Any], tuple[Any, ...], FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.soon.append((call, arguments))

    def call_later(self, delay: float, call: Callable[..., Any], *arguments: Any) -> FakeTimer:
        timer = FakeTimer()
        self.later.append((self.now + delay, call, arguments, timer))
        return timer

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for call, arguments in soon:
            call(*arguments)

    def pass_time(self, seconds: float = 3600.0) -> None:
        self.now += seconds
        later, self.later = self.later, []
        for due, call, arguments, timer in later:
            if due > self.now:
                self.later.append((due, call, arguments, timer))
            elif not timer.cancelled:
                call(*arguments)


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def request(
    client_id: str = "c1",
    username: str | None = None,
    password: bytes | None = None,
    *,
    clean: bool = True,
    expiry: int = 0,
    will: Will | None = None,
    address: str = "127.0.0.1:4711",
    listener: str = "mqtt://127.0.0.1:1883",
    subject: str | None = None,
) -> ConnectRequest:
    return ConnectRequest(
        client_id=client_id,
        assigned=False,
        protocol=5,
        clean_start=clean,
        keep_alive=60,
        session_expiry=expiry,
        username=username,
        password=password,
        will=will,
        peer=Peer(address=address, listener=listener, transport="tcp", certificate_subject=subject),
    )


class FakeSession(Session):
    """A connected session with room for `capacity` messages."""

    def __init__(self, client_id: str = "c1", principal: str = "", *, capacity: int = 1000, expiry: int = 0) -> None:
        self.client_id = client_id
        self.identity = Identity(name=principal, username=principal or None, limits=Limits(queue=5))
        self.request = request(client_id, expiry=expiry, clean=not expiry)
        self.state: Any = None
        self.capacity = capacity
        self.taken: list[tuple[Message, int, bool]] = []
        self.closed: int | None = None
        self.subscriptions: dict[str, Any] = {}

    @property
    def durable(self) -> bool:
        return self.request.session_expiry > 0

    @property
    def room(self) -> int:
        return self.capacity - len(self.taken)

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        if not self.room:
            return False
        self.taken.append((message, qos, retain))
        return True

    def close(self, code: int, reason: str = "", *, server_reference: str = "") -> None:
        self.closed = code

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message, _, _ in self.taken]

    def receipt_settled(self, receipt: Any) -> None:
        pass
