"""A client made of bytes on a real port: what it sends and gets is spelled out, not made by a library or our codec."""

from __future__ import annotations

import socket
import time
from types import TracebackType

from tests.fakes.mqtt_device import connect, packet, publish, subscribe, unsubscribe

PATIENCE = 60.0


class Closed(Exception):
    """The gateway closed the connection."""


class Raw:
    """One connection; `connack` is the body of the answer to its CONNECT."""

    def __init__(
        self, port: int, client_id: str, *, version: int = 5, source: str = "127.0.0.1", **options: object
    ) -> None:
        self.version = version
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))
        self.send(connect(client_id, version=version, **options))  # type: ignore[arg-type]  # passed on as they are
        self.connack = b""
        first, self.connack = self.next()
        assert first == 0x20, hex(first)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.vanish()

    @property
    def present(self) -> bool:
        """Session present."""
        return self.connack[0] == 1

    def send(self, *data: bytes) -> None:
        self._socket.sendall(b"".join(data))

    def vanish(self) -> None:
        """Close without a DISCONNECT."""
        self._socket.close()

    def disconnect(self, code: int = 0, properties: bytes = b"") -> None:
        body = bytes([code, len(properties)]) + properties if self.version == 5 else b""
        self.send(packet(0xE0, body))
        assert self.ended() is not None, "the gateway does not close after a DISCONNECT"

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Closed
            data += part
        return data

    def next(self, patience: float = PATIENCE) -> tuple[int, bytes]:
        """(first byte, body) of the next packet. Raises Closed, or TimeoutError."""
        self._socket.settimeout(patience)
        first = self._read(1)[0]
        self._socket.settimeout(PATIENCE)
        length = shift = 0
        while True:
            byte = self._read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self._read(length)

    def packets(self) -> list[tuple[int, bytes]]:
        """What came so far: all that is before the answer to a ping."""
        self.send(b"\xc0\x00")
        found = []
        while (each := self.next())[0] != 0xD0:
            found.append(each)
        return found

    def ended(self) -> bytes | None:
        """Waits for the end: the body of the DISCONNECT before it, or b"" if there was none. None: it does not end."""
        last = b""
        try:
            while True:
                first, body = self.next()
                if first == 0xE0:
                    last = body
        except Closed:
            return last
        except TimeoutError:
            return None

    def subscribe(self, *filters: tuple[str, int], properties: bytes = b"", packet_id: int = 1) -> bytes:
        """The reason codes."""
        v5 = self.version == 5
        self.send(subscribe(*filters, packet_id=packet_id, properties=properties if v5 else None))
        first, body = self.next()
        assert first == 0x90, hex(first)
        return body[3:] if v5 else body[2:]

    def unsubscribe(self, *filters: str, packet_id: int = 1) -> bytes:
        self.send(unsubscribe(*filters, packet_id=packet_id, properties=b"" if self.version == 5 else None))
        first, body = self.next()
        assert first == 0xB0, hex(first)
        return body[3:]

    def publish(self, topic: str | bytes, payload: bytes = b"", *, properties: bytes = b"", **options: object) -> None:
        """With QoS 1 unless `options` say otherwise, and then until it is acknowledged."""
        options = {"qos": 1, **options}
        v5 = self.version == 5
        self.send(publish(topic, payload, properties=properties if v5 else None, **options))  # type: ignore[arg-type]
        if options["qos"] == 1:
            first, body = self.next()
            assert first == 0x40 and (len(body) == 2 or body[2] < 0x80), (hex(first), body)
        elif options["qos"] == 2:
            first, body = self.next()
            assert first == 0x50 and (len(body) == 2 or body[2] < 0x80), (hex(first), body)
            self.send(packet(0x62, body[:2]))
            assert self.next()[0] == 0x70

    def arrival(self, patience: float = PATIENCE) -> Arrival:
        """The next PUBLISH, not acknowledged."""
        first, body = self.next(patience)
        return Arrival(first, body, self.version)

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        until = time.monotonic() + seconds
        try:
            self.next(max(0.01, until - time.monotonic()))
        except TimeoutError:
            return True
        return False


class Arrival:
    """A PUBLISH. `properties` are the bytes of its property block."""

    def __init__(self, first: int, body: bytes, version: int) -> None:
        assert first >> 4 == 3, f"not a PUBLISH: {first:02x} {body!r}"
        self.dup, self.qos, self.retain = bool(first & 8), first >> 1 & 3, bool(first & 1)
        at = 2 + int.from_bytes(body[:2], "big")
        self.topic = body[2:at]
        self.packet_id = 0
        if self.qos:
            self.packet_id = int.from_bytes(body[at : at + 2], "big")
            at += 2
        self.properties = b""
        if version == 5:
            length = body[at]
            assert length < 128
            self.properties = body[at + 1 : at + 1 + length]
            at += 1 + length
        self.payload = body[at:]

    @property
    def ack(self) -> bytes:
        """PUBACK or PUBREC."""
        return packet(0x40 if self.qos == 1 else 0x50, self.packet_id.to_bytes(2, "big"))

    @property
    def pubcomp(self) -> bytes:
        return packet(0x70, self.packet_id.to_bytes(2, "big"))
