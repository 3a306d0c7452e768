"""A device in few lines of MQTT 3.1.1, independent of the gateway's own codec; it knows what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Sequence

from tests.acceptance.gateway.doors import Door, Reader, Writer


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (128 if length else 0))
        if not length:
            return bytes(head) + body


def connect(client_id: str, *, clean: bool = True, user: str = "", password: str = "", will: bytes = b"") -> bytes:
    """`will`: (topic, payload) as already encoded strings."""
    flags = (2 if clean else 0) | (0xC0 if user else 0) | (4 if will else 0)
    body = text("MQTT") + bytes([4, flags]) + (60).to_bytes(2, "big") + text(client_id) + will
    if user:
        body += text(user) + text(password)
    return packet(0x10, body)


class Lost(Exception):
    """The connection is gone."""


class Wire:
    """Packets over one connection."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, door: int | Door) -> Wire:
        """`door`: a port is that of plain MQTT."""
        try:
            return cls(*await (Door(door) if isinstance(door, int) else door).open())
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Lost(str(error)) from error

    async def read(self) -> tuple[int, bytes]:
        try:
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return first, await self.reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Lost(str(error)) from error

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()


RESTLESS = 1 / 400  # of the answers that it gets, how many make a restless device leave


def close_all(wires: deque[Wire], but: int) -> None:
    """The oldest ones, but for so many."""
    while len(wires) > but:
        with contextlib.suppress(OSError):
            wires.popleft().close()


class Publisher:
    """Publishes numbered messages with a window until told to stop, reconnecting whenever the connection is lost, and
    sends again what had no acknowledgement. `acknowledged` are payloads; `disorder` counts acknowledgements that
    didn't come in PUBLISH order; `pause` are seconds of rest before each answer is looked at. `elsewhere` are doors it
    may connect to as well; `restless` makes it leave its connection open now and then and take itself over by another.
    `forgotten` counts sessions that were to be kept and were not."""

    def __init__(
        self,
        port: int | Door,
        client_id: str,
        *,
        qos: int = 1,
        window: int = 16,
        clean: bool = True,
        pause: float = 0.0,
        elsewhere: Sequence[int | Door] = (),
        restless: random.Random | None = None,
    ) -> None:
        self._pause = pause
        self._elsewhere = elsewhere
        self._restless = restless
        self._left: deque[Wire] = deque()
        self.port = port
        self.client_id = client_id
        self.qos = qos
        self.window = window
        self.clean = clean
        self.acknowledged: list[bytes] = []
        self.disorder = 0
        self.connections = self.takeovers = self.forgotten = 0
        self.stopping = False
        self._number = 0
        self._unfinished: deque[tuple[int, bytes]] = deque()
        self._released: deque[int] = deque()
        self._packet_id = 0

    async def run(self, limit: int | None = None) -> None:
        """Until `stopping` or `limit` messages are acknowledged."""
        while not self._enough(limit):
            try:
                await self._connection(limit)
            except Lost:
                await asyncio.sleep(0.05)
        close_all(self._left, 0)

    def _enough(self, limit: int | None) -> bool:
        if self.stopping and not self._unfinished and not self._released:
            return True
        return limit is not None and len(self.acknowledged) >= limit

    async def _connection(self, limit: int | None) -> None:
        dice = self._restless
        wire = await Wire.open(dice.choice([self.port, *self._elsewhere]) if dice is not None else self.port)
        leaving = False
        try:
            wire.write(connect(self.client_id, clean=self.clean))
            first, body = await asyncio.wait_for(wire.read(), 180)
            if first != 0x20 or body[1]:
                raise Lost(f"refused: {body!r}")
            self.forgotten += bool(self.connections and not self.clean and not body[0])
            self.connections += 1
            for packet_id in self._released:
                wire.write(packet(0x62, packet_id.to_bytes(2, "big")))
            for packet_id, payload in self._unfinished:
                self._send(wire, packet_id, payload, dup=8)
            while not self._enough(limit):
                while not self.stopping and len(self._unfinished) + len(self._released) < self.window:
                    self._packet_id = self._packet_id % 65535 + 1
                    payload = b"%s/%d" % (self.client_id.encode(), self._number)
                    self._number += 1
                    self._unfinished.append((self._packet_id, payload))
                    self._send(wire, self._packet_id, payload)
                if self.stopping and not self._unfinished and not self._released:
                    return
                await asyncio.sleep(self._pause)
                self._answer(wire, *await asyncio.wait_for(wire.read(), 180))
                if dice is not None and dice.random() < RESTLESS:
                    leaving = True
                    self.takeovers += 1
                    raise Lost("left for another connection")
        finally:
            if leaving:
                self._left.append(wire)
                close_all(self._left, 3)
            else:
                close_all(deque([wire]), 0)

    def _send(self, wire: Wire, packet_id: int, payload: bytes, dup: int = 0) -> None:
        body = text(f"t/{self.client_id}") + packet_id.to_bytes(2, "big") + payload
        wire.write(packet(0x30 | dup | self.qos << 1, body))

    def _answer(self, wire: Wire, first: int, body: bytes) -> None:
        packet_id = int.from_bytes(body[:2], "big")
        if first in (0x40, 0x50):
            if not self._unfinished or self._unfinished[0][0] != packet_id:
                self.disorder += 1
                return
            _, payload = self._unfinished.popleft()
            self.acknowledged.append(payload)
            if first == 0x50:
                self._released.append(packet_id)
                wire.write(packet(0x62, packet_id.to_bytes(2, "big")))
        elif first == 0x70:
            with contextlib.suppress(ValueError):
                self._released.remove(packet_id)


class Keeper:
    """A device with a persistent session that subscribes once and is then now online, now offline, at any of the ports;
    sometimes it takes itself over. `received` are the payloads it was given, each QoS 2 message once by the rules of a
    receiver; `forgotten` counts connections that found no session; `log` has a line per connection."""

    def __init__(
        self, ports: Sequence[int | Door], client_id: str, filters: Sequence[str], *, qos: int, dice: random.Random
    ) -> None:
        self.ports = ports
        self.client_id = client_id
        self.received: list[bytes] = []
        self.connections = self.takeovers = self.forgotten = 0
        self.settling = False  # it stays online now
        self.log: list[str] = []
        self._filters = filters
        self._qos = qos
        self._dice = dice
        self._unreleased: set[int] = set()
        self._left: deque[Wire] = deque()
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with contextlib.suppress(Lost):
                    await self._connection()
                await asyncio.sleep(0.05 if self.settling else self._dice.choice([0.0, 0.1, 0.5, 2.0]))
        finally:
            close_all(self._left, 0)

    async def _connection(self) -> None:
        port = self._dice.choice(self.ports)
        wire = await Wire.open(port)
        stay = self._dice.uniform(0.2, 3.0)
        try:
            wire.write(connect(self.client_id, clean=False))
            first, body = await asyncio.wait_for(wire.read(), 180)
            if first != 0x20 or body[1]:
                raise Lost(f"refused: {body!r}")
            self.connections += 1
            at = port if isinstance(port, int) else f"{port.way} {port.port}"
            self.log.append(f"{time.time():.3f} at {at}, session present {body[0]}, {len(self.received)} received")
            if not body[0]:
                self.forgotten += self.subscribed.is_set()
                self._unreleased.clear()
            if not self.subscribed.is_set():
                wanted = b"".join(text(each) + bytes([self._qos]) for each in self._filters)
                wire.write(packet(0x82, b"\x00\x01" + wanted))
            until = asyncio.get_running_loop().time() + stay
            while self.settling or not self.subscribed.is_set() or asyncio.get_running_loop().time() < until:
                try:
                    self._take(wire, *await asyncio.wait_for(wire.read(), 0.5 if not self.settling else 5.0))
                except TimeoutError:
                    raise Lost("quiet, or in the middle of a packet") from None
        finally:
            if self._dice.random() < 0.3 and not self.settling:
                self.takeovers += 1
                self._left.append(wire)
                close_all(self._left, 3)
            else:
                close_all(deque([wire]), 0)

    def _take(self, wire: Wire, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == 0x90:
            self.subscribed.set()
        elif kind == 0x60:
            self._unreleased.discard(int.from_bytes(body[:2], "big"))
            wire.write(packet(0x70, body[:2]))
        elif kind == 0x30:
            after = 2 + int.from_bytes(body[:2], "big")
            packet_id = int.from_bytes(body[after : after + 2], "big")
            if first & 4:
                if packet_id not in self._unreleased:
                    self._unreleased.add(packet_id)
                    self.received.append(body[after + 2 :])
                wire.write(packet(0x50, body[after : after + 2]))
            else:
                self.received.append(body[after + 2 :])
                wire.write(packet(0x40, body[after : after + 2]))
