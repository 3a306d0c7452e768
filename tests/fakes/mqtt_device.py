"""A device made of bytes: packets spelled out by hand (not by our codec), and sessions driven without sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.mqtt.session import Session
from gateway.mqtt.surroundings import Moment, Settings
from gateway.ports import Peer
from tests.fakes.gateway_engine import MemoryEngine, Rules

PEER = Peer(address="127.0.0.1:4711", listener="mqtt://127.0.0.1:1883", transport="tcp")


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, digit = divmod(number, 128)
        out += bytes([digit | (0x80 if number else 0)])
        if not number:
            return out


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + varint(len(body)) + body


def connect(
    client_id: str = "d1",
    *,
    version: int = 4,
    clean: bool = True,
    keep_alive: int = 60,
    username: str | None = None,
    password: bytes | None = None,
    will: tuple[str, bytes, int, bool] | None = None,
    will_properties: bytes = b"",
    properties: bytes = b"",
) -> bytes:
    flags = (2 if clean else 0) | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    if will is not None:
        flags |= 4 | will[2] << 3 | (0x20 if will[3] else 0)
    body = text("MQIsdp" if version == 3 else "MQTT") + bytes([version, flags]) + keep_alive.to_bytes(2, "big")
    if version == 5:
        body += varint(len(properties)) + properties
    body += text(client_id)
    if will is not None:
        if version == 5:
            body += varint(len(will_properties)) + will_properties
        body += text(will[0]) + text(will[1])
    if username is not None:
        body += text(username)
    if password is not None:
        body += text(password)
    return packet(0x10, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    *,
    qos: int = 0,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
    properties: bytes | None = None,
) -> bytes:
    """`properties` None: MQTT 3; bytes (perhaps empty): MQTT 5."""
    body = text(topic)
    if qos:
        body += packet_id.to_bytes(2, "big")
    if properties is not None:
        body += varint(len(properties)) + properties
    return packet(0x30 | (8 if dup else 0) | qos << 1 | retain, body + payload)


def subscribe(*filters: tuple[str, int], packet_id: int = 1, properties: bytes | None = None) -> bytes:
    body = packet_id.to_bytes(2, "big")
    if properties is not None:
        body += varint(len(properties)) + properties
    return packet(0x82, body + b"".join(text(name) + bytes([options]) for name, options in filters))


def unsubscribe(*filters: str, packet_id: int = 1, properties: bytes | None = None) -> bytes:
    body = packet_id.to_bytes(2, "big")
    if properties is not None:
        body += varint(len(properties)) + properties
    return packet(0xA2, body + b"".join(text(name) for name in filters))


def ack(first: int, packet_id: int, *rest: int) -> bytes:
    return packet(first, packet_id.to_bytes(2, "big") + bytes(rest))


PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"


def split(data: bytes) -> list[tuple[int, bytes]]:
    """(first byte, body) of each packet; the last one must be complete."""
    found, position = [], 0
    while position < len(data):
        first = data[position]
        length = shift = 0
        position += 1
        while True:
            byte = data[position]
            position += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        assert position + length <= len(data), "the gateway wrote an incomplete packet"
        found.append((first, data[position : position + length]))
        position += length
    return found


@dataclass
class RecordingLink:
    """What the session writes and asks for."""

    out: bytearray = field(default_factory=bytearray)
    writes: list[bytes] = field(default_factory=list)
    writable: bool = True
    closed: bool = False
    reading: bool = True
    wakes: list[float] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after the close"
        assert data, "an empty write"
        self.out += data
        self.writes.append(data)

    def close(self, *, spoken: bool) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def wake_after(self, seconds: float) -> None:
        self.wakes.append(seconds)


class Device:
    """One connection to a session under test."""

    def __init__(
        self,
        engine: MemoryEngine | None = None,
        *,
        rules: Rules | None = None,
        manual: bool = False,
        settings: Settings | None = None,
        moment: Moment | None = None,
    ) -> None:
        self.moment = moment or Moment(1000.0, 1_700_000_000.0)
        self.engine = engine or MemoryEngine(rules, manual=manual, clock=lambda: self.moment.wall)
        self.link = RecordingLink()
        self.session = Session(self.engine, self.link, settings or Settings(), self.moment, PEER)

    def send(self, *packets: bytes) -> Device:
        for data in packets:
            if not self.link.closed:
                self.session.receive(data)
        return self

    def received(self) -> list[tuple[int, bytes]]:
        """The packets that came since the last call."""
        data = bytes(self.link.out)
        self.link.out.clear()
        return split(data)

    def connected(self, client_id: str = "d1", **options: object) -> Device:
        """CONNECT, and swallow the CONNACK."""
        self.send(connect(client_id, **options))  # type: ignore[arg-type]  # passed on as they are
        if self.engine.manual:
            self.engine.settle_all()
        first, body = self.received()[0]
        assert first == 0x20 and body[1] == 0, f"refused with {body.hex()}"
        return self

    def pass_time(self, seconds: float) -> None:
        self.moment.monotonic += seconds
        self.moment.wall += seconds
        self.session.tick()
        self.engine.due(self.moment.wall)
