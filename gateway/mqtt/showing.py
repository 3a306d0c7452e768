"""Packets for people: frames out of a stream of bytes, and what is in them, without any secret.

Never shown: passwords, authentication data and will payloads (CONNECT and AUTH are shown by their outer form alone),
and correlation data but for its size. Payloads are cut to an excerpt. Nothing here fails: what can't be decoded is
shown by type and size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.mqtt import properties as p
from gateway.mqtt.errors import PeerError

EXCERPT: Final = 200  # bytes of a payload
KEPT: Final = 4096  # bytes of a packet that are looked at
NAMES: Final = (
    "?",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
)
_PROPERTY_NAMES: Final = {
    p.PAYLOAD_FORMAT: "payload format",
    p.MESSAGE_EXPIRY: "expiry",
    p.CONTENT_TYPE: "content type",
    p.RESPONSE_TOPIC: "response topic",
    p.SUBSCRIPTION_IDENTIFIER: "subscription",
    p.SESSION_EXPIRY: "session expiry",
    p.SERVER_KEEP_ALIVE: "keep alive",
    p.AUTHENTICATION_METHOD: "authentication method",
    p.SERVER_REFERENCE: "server",
    p.REASON_STRING: "reason",
    p.TOPIC_ALIAS: "topic alias",
}
_ACKS: Final = (p.PUBACK, p.PUBREC, p.PUBREL, p.PUBCOMP)

Shown = dict[str, Any]


class Frames:
    """Cuts a stream into packets; of a long one only the beginning is kept, whatever its length."""

    def __init__(self) -> None:
        self._head = bytearray()  # of the packet under way, fixed header included
        self._missing = 0  # bytes of it that are still to come
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """(the packet's first bytes, its whole length) of each packet that is complete now."""
        position = 0
        while position < len(data):
            if not self._missing:
                self._head.append(data[position])
                position += 1
                if len(self._head) < 2 or (self._head[-1] & 0x80 and len(self._head) < 5):
                    continue
                length, shift = 0, 0
                for byte in self._head[1:]:
                    length |= (byte & 0x7F) << shift
                    shift += 7
                self._size = len(self._head) + length
                self._missing = length
                if length:
                    continue
            else:
                taken = min(self._missing, len(data) - position)
                room = max(0, KEPT - len(self._head))
                self._head += data[position : position + min(taken, room)]
                position += taken
                self._missing -= taken
                if self._missing:
                    continue
            yield bytes(self._head), self._size
            self._head.clear()


def show(head: bytes, size: int, protocol: int) -> Shown:
    """What is in a packet, of which `head` is the beginning and `size` the length."""
    kind, flags = head[0] >> 4, head[0] & 0x0F
    start = 2
    while start < len(head) and head[start - 1] & 0x80:
        start += 1
    shown: Shown = {"type": NAMES[kind], "size": size}
    try:
        _fill(shown, kind, flags, head[start:], size - start, protocol)
    except (PeerError, IndexError, ValueError):
        shown["partly"] = True
    return shown


def _fill(shown: Shown, kind: int, flags: int, body: bytes, length: int, protocol: int) -> None:
    end = len(body)
    if kind == p.PUBLISH:
        _publish(shown, flags, body, length, protocol)
    elif kind in _ACKS:
        shown["id"] = body[0] << 8 | body[1]
        if end > 2:
            _code(shown, body[2])
            _properties(shown, body, 3, kind)
    elif kind in (p.SUBSCRIBE, p.UNSUBSCRIBE):
        shown["id"] = body[0] << 8 | body[1]
        position = _properties(shown, body, 2, kind) if protocol == 5 else 2
        filters: list[str] = []
        shown["filters"] = filters
        while position < end:
            name, position = p.read_text(body, position, end)
            if kind == p.SUBSCRIBE:
                name += f" (QoS {body[position] & 3})"
                position += 1
            filters.append(name)
    elif kind in (p.SUBACK, p.UNSUBACK):
        shown["id"] = body[0] << 8 | body[1]
        position = _properties(shown, body, 2, kind) if protocol == 5 else 2
        shown["codes"] = [f"0x{code:02x}" for code in body[position:]]
    elif kind in (p.DISCONNECT, p.AUTH):
        if end:
            _code(shown, body[0])
            _properties(shown, body, 1, kind)
    elif kind == p.CONNACK:
        _code(shown, body[1])


def _publish(shown: Shown, flags: int, body: bytes, length: int, protocol: int) -> None:
    qos = flags >> 1 & 3
    shown |= {"qos": qos, "dup": bool(flags & 8), "retain": bool(flags & 1)}
    topic, position = p.read_text(body, 0, len(body))
    shown["topic"] = topic
    if qos:
        shown["id"] = body[position] << 8 | body[position + 1]
        position += 2
    if protocol == 5:
        position = _properties(shown, body, position, p.PUBLISH)
    shown["payload_size"] = length - position
    shown["payload"] = excerpt(body[position : position + EXCERPT])


def excerpt(data: bytes) -> str:
    """Readable text as it is, anything else in hexadecimal."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:
            return data[: EXCERPT // 2].hex(" ")
        text = data[: error.start].decode()  # a character was cut in two
    if all(character.isprintable() or character in "\t\r\n" for character in text):
        return text
    return data[: EXCERPT // 2].hex(" ")


def _code(shown: Shown, code: int) -> None:
    if code:
        shown["codes"] = [f"0x{code:02x}"]


def _properties(shown: Shown, body: bytes, position: int, kind: int) -> int:
    if position >= len(body):
        return position
    found, position = p.read_properties(body, position, len(body), kind)
    told = {
        _PROPERTY_NAMES[identifier]: str(value)[:EXCERPT]
        for identifier, value in found.items()
        if identifier in _PROPERTY_NAMES
    }
    if p.CORRELATION_DATA in found:
        told["correlation data"] = f"{len(found[p.CORRELATION_DATA])} bytes"
    told |= {f"user: {name[:100]}": value[:EXCERPT] for name, value in found.get(p.USER_PROPERTY, ())[:20]}
    if told:
        shown["properties"] = told
    return position
