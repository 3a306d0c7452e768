"""A conversation in memory: a door whose answers the test decides, a link that keeps what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import h11

from gateway.http.conversation import Conversation, Settings
from gateway.http.port import Publication, Visitor
from gateway.mqtt.surroundings import Moment
from gateway.ports import ConnectRequest, Fate, Identity, Limits, Peer, Receipt, Refused, settled
from gateway.receipts import refused

PEER = Peer(address="192.0.2.7:4711", listener="http://127.0.0.1:8085", transport="http")


class MemoryDoor:
    """`users`: name → password; with "" in it, anonymous use is fine. `manual`: receipts are settled by the test."""

    def __init__(self, *, manual: bool = False) -> None:
        self.users: dict[str, bytes] = {"": b"", "dev": b"secret"}
        self.limits = Limits(packet_size=1000)
        self.denied: set[str] = set()
        self.fate = Fate()
        self.available = True
        self.epoch = 0
        self.manual = manual
        self.knocks: list[ConnectRequest] = []
        self.published: list[tuple[str, Publication, bytes]] = []
        self.open: list[tuple[Receipt[Any], Any]] = []

    def visit(self, knock: ConnectRequest) -> Receipt[Visitor]:
        self.knocks.append(knock)
        name = knock.username or ""
        if self.users.get(name) != (knock.password or b""):
            return self._later(Refused(0x86, "unknown user name or wrong password"))
        visitor = Visitor(name, Identity(name=name, username=name or None, limits=self.limits), epoch=self.epoch)
        return self._later(visitor)

    def still_holds(self, visitor: Visitor) -> bool:
        return visitor.epoch == self.epoch

    def publish(self, visitor: Visitor, publication: Publication, payload: bytes) -> Receipt[Fate]:
        if publication.topic in self.denied:
            return refused(Refused(0x87, "not allowed"))
        self.published.append((visitor.client_id, publication, payload))
        return self._later(self.fate)

    def _later(self, outcome: Any) -> Receipt[Any]:
        if not self.manual:
            return refused(outcome) if isinstance(outcome, Exception) else settled(outcome)
        receipt: Receipt[Any] = Receipt()
        self.open.append((receipt, outcome))
        return receipt

    def settle(self) -> None:
        """The oldest open receipt settles."""
        receipt, outcome = self.open.pop(0)
        if isinstance(outcome, Exception):
            receipt.fail(outcome)
        else:
            receipt.settle(outcome)


class MemoryLink:
    def __init__(self) -> None:
        self.written = bytearray()
        self.writable = True
        self.reading = True
        self.closed: bool | None = None  # whether the last word was spoken
        self.wakes: list[float] = []

    def write(self, data: bytes) -> None:
        assert self.closed is None, "nothing is said after the end"
        self.written += data

    def close(self, *, spoken: bool) -> None:
        assert self.closed is None, "closed twice"
        self.closed = spoken

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def wake_after(self, seconds: float) -> None:
        self.wakes.append(seconds)


class Talk:
    """`say` bytes, read `answers`: (status, headers, body)."""

    def __init__(self, door: MemoryDoor | None = None, **settings: Any) -> None:
        self.door = door or MemoryDoor()
        self.link = MemoryLink()
        self.moment = Moment(100.0, 1_800_000_000.0)
        self.reports: list[tuple[str, ...]] = []
        self.conversation = Conversation(
            self.door,
            self.link,
            replace(Settings(), **settings),
            self.moment,
            PEER,
            lambda *each: self.reports.append(each),
        )

    def say(self, *pieces: bytes) -> Talk:
        for piece in pieces:
            self.conversation.receive(piece)
            self.wake()
        return self

    def wake(self) -> None:
        """Let pass what it wants to be woken after."""
        while self.link.wakes and not self.conversation.closed:
            self.moment.monotonic += self.link.wakes.pop(0)
            self.conversation.rate_recovered()

    def wait(self, seconds: float) -> Talk:
        self.moment.monotonic += seconds
        self.conversation.tick()
        return self

    def answers(self, *methods: bytes) -> list[tuple[int, dict[str, str], Any]]:
        """Everything written, read by h11 as a client."""
        found = []
        data = bytes(self.link.written)
        while data:
            client = h11.Connection(h11.CLIENT)
            method = methods[len(found)] if len(found) < len(methods) else b"POST"
            client.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
            client.send(h11.EndOfMessage())
            client.receive_data(data)
            if self.link.closed is not None:
                client.receive_data(b"")
            status, headers, body = 0, {}, b""
            while True:
                event = client.next_event()
                if isinstance(event, h11.Response):
                    status = event.status_code
                    headers = {}
                    for name, value in event.headers:
                        before = headers.get(name.decode())
                        headers[name.decode()] = (before + ", " if before else "") + value.decode()
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.InformationalResponse):
                    found.append((event.status_code, {}, None))
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise AssertionError(f"half an answer: {data!r}")
            found.append((status, headers, json.loads(body) if body else None))
            data = client.trailing_data[0]
        return found

    def answer(self, method: bytes = b"POST") -> tuple[int, dict[str, str], Any]:
        (found,) = self.answers(method)
        return found

    def statuses(self) -> list[int]:
        return [status for status, _, _ in self.answers()]


def post(target: str, body: bytes = b"", *headers: str, chunked: bool = False) -> bytes:
    """A request in bytes."""
    lines = [f"POST {target} HTTP/1.1", "Host: gateway", *headers]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
