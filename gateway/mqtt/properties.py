"""MQTT 5 properties (2.2.2): one table says each property's type and the packets it may appear in."""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.mqtt.errors import Malformed, PeerError, Reason

# Packet types, the high nibble of the first byte; WILL stands for the will properties inside CONNECT.
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(1, 9)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(9, 16)
WILL: Final = 16

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
SUBSCRIPTION_ID_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A

_BYTE, _SHORT, _LONG, _VARINT, _BINARY, _TEXT, _PAIR = range(7)
_ACKS = (PUBACK, PUBREC, PUBREL, PUBCOMP)
_REASONS = (CONNACK, *_ACKS, SUBACK, UNSUBACK, DISCONNECT, AUTH)

# id → (type, packets)
TABLE: Final[dict[int, tuple[int, frozenset[int]]]] = {
    PAYLOAD_FORMAT: (_BYTE, frozenset((PUBLISH, WILL))),
    MESSAGE_EXPIRY: (_LONG, frozenset((PUBLISH, WILL))),
    CONTENT_TYPE: (_TEXT, frozenset((PUBLISH, WILL))),
    RESPONSE_TOPIC: (_TEXT, frozenset((PUBLISH, WILL))),
    CORRELATION_DATA: (_BINARY, frozenset((PUBLISH, WILL))),
    SUBSCRIPTION_IDENTIFIER: (_VARINT, frozenset((PUBLISH, SUBSCRIBE))),
    SESSION_EXPIRY: (_LONG, frozenset((CONNECT, CONNACK, DISCONNECT))),
    ASSIGNED_CLIENT_ID: (_TEXT, frozenset((CONNACK,))),
    SERVER_KEEP_ALIVE: (_SHORT, frozenset((CONNACK,))),
    AUTHENTICATION_METHOD: (_TEXT, frozenset((CONNECT, CONNACK, AUTH))),
    AUTHENTICATION_DATA: (_BINARY, frozenset((CONNECT, CONNACK, AUTH))),
    REQUEST_PROBLEM: (_BYTE, frozenset((CONNECT,))),
    WILL_DELAY: (_LONG, frozenset((WILL,))),
    REQUEST_RESPONSE: (_BYTE, frozenset((CONNECT,))),
    RESPONSE_INFORMATION: (_TEXT, frozenset((CONNACK,))),
    SERVER_REFERENCE: (_TEXT, frozenset((CONNACK, DISCONNECT))),
    REASON_STRING: (_TEXT, frozenset(_REASONS)),
    RECEIVE_MAXIMUM: (_SHORT, frozenset((CONNECT, CONNACK))),
    TOPIC_ALIAS_MAXIMUM: (_SHORT, frozenset((CONNECT, CONNACK))),
    TOPIC_ALIAS: (_SHORT, frozenset((PUBLISH,))),
    MAXIMUM_QOS: (_BYTE, frozenset((CONNACK,))),
    RETAIN_AVAILABLE: (_BYTE, frozenset((CONNACK,))),
    USER_PROPERTY: (_PAIR, frozenset((CONNECT, PUBLISH, WILL, SUBSCRIBE, UNSUBSCRIBE, *_REASONS))),
    MAXIMUM_PACKET_SIZE: (_LONG, frozenset((CONNECT, CONNACK))),
    WILDCARD_AVAILABLE: (_BYTE, frozenset((CONNACK,))),
    SUBSCRIPTION_ID_AVAILABLE: (_BYTE, frozenset((CONNACK,))),
    SHARED_AVAILABLE: (_BYTE, frozenset((CONNACK,))),
}
_FLAGS = frozenset((PAYLOAD_FORMAT, REQUEST_PROBLEM, REQUEST_RESPONSE))  # a byte that is 0 or 1
_NOT_ZERO = frozenset((SUBSCRIPTION_IDENTIFIER, RECEIVE_MAXIMUM, TOPIC_ALIAS, MAXIMUM_PACKET_SIZE))

_UNWANTED = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)

MOST_PROPERTIES: Final = 256  # of one packet: each user property is a header of the record, and five bytes may be one

Properties = dict[int, Any]  # USER_PROPERTY: list of pairs; SUBSCRIPTION_IDENTIFIER: list of numbers


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5) and the position behind it; at most four bytes."""
    value = shift = 0
    while True:
        if position >= end:
            raise Malformed("a variable byte integer is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise Malformed("a variable byte integer is longer than needed")
            return value, position
        shift += 7
        if shift > 21:
            raise Malformed("a variable byte integer has more than four bytes")


def varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    if value < 0x10000000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21))
    raise ValueError(f"{value} does not fit a variable byte integer")


def read_binary(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Two bytes of length, then so many bytes."""
    start = position + 2
    if start > end:
        raise Malformed("a length is cut short")
    stop = start + (data[position] << 8 | data[position + 1])
    if stop > end:
        raise Malformed("a string is longer than its packet")
    return data[start:stop], stop


def text_of(raw: bytes) -> str:
    """UTF-8 as MQTT has it (1.5.4): no surrogates, no NUL; control and non-characters are refused as well (a MAY)."""
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not UTF-8") from None
    # what is printable holds none of them, and that is known a hundred times sooner
    if not value.isprintable() and _UNWANTED.search(value) is not None:
        raise Malformed("a string holds NUL, a control character or a Unicode non-character")
    return value


def read_text(data: bytes, position: int, end: int) -> tuple[str, int]:
    raw, position = read_binary(data, position, end)
    return text_of(raw), position


def text(value: str) -> bytes:
    return binary(value.encode())


def binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError("longer than 65,535 bytes")
    return len(value).to_bytes(2, "big") + value


def _read_value(kind: int, data: bytes, position: int, end: int) -> tuple[Any, int]:
    if kind == _TEXT:
        return read_text(data, position, end)
    if kind == _BINARY:
        return read_binary(data, position, end)
    if kind == _VARINT:
        return read_varint(data, position, end)
    if kind == _PAIR:
        name, position = read_text(data, position, end)
        value, position = read_text(data, position, end)
        return (name, value), position
    size = {_BYTE: 1, _SHORT: 2, _LONG: 4}[kind]
    if position + size > end:
        raise Malformed("a property is cut short")
    return int.from_bytes(data[position : position + size], "big"), position + size


def read_properties(data: bytes, position: int, end: int, packet: int) -> tuple[Properties, int]:
    """The property block that starts at `position` in a packet of type `packet`, and the position behind it."""
    length, position = read_varint(data, position, end)
    stop = position + length
    if stop > end:
        raise Malformed("the properties are longer than their packet")
    found: Properties = {}
    left = MOST_PROPERTIES
    while position < stop:
        if not left:
            raise PeerError(f"more than {MOST_PROPERTIES} properties in one packet", Reason.QUOTA_EXCEEDED)
        left -= 1
        identifier, position = read_varint(data, position, stop)
        entry = TABLE.get(identifier)
        if entry is None:
            raise Malformed(f"property 0x{identifier:02x} does not exist")
        kind, packets = entry
        if packet not in packets:
            raise PeerError(f"property 0x{identifier:02x} does not belong here")
        value, position = _read_value(kind, data, position, stop)
        if identifier in _FLAGS and value > 1:
            raise PeerError(f"property 0x{identifier:02x} must be 0 or 1")
        if identifier in _NOT_ZERO and value == 0:
            raise PeerError(f"property 0x{identifier:02x} must not be 0")
        if identifier == USER_PROPERTY or (identifier == SUBSCRIPTION_IDENTIFIER and packet == PUBLISH):
            found.setdefault(identifier, []).append(value)
        elif identifier in found:
            raise PeerError(f"property 0x{identifier:02x} appears twice")
        else:
            found[identifier] = value
    return found, stop


def _value(identifier: int, kind: int, value: Any) -> bytes:
    head = bytes((identifier,))
    if kind == _TEXT:
        return head + text(value)
    if kind == _BINARY:
        return head + binary(value)
    if kind == _VARINT:
        return head + varint(value)
    if kind == _PAIR:
        return head + text(value[0]) + text(value[1])
    return head + int(value).to_bytes({_BYTE: 1, _SHORT: 2, _LONG: 4}[kind], "big")


def property_fields(properties: Properties) -> bytes:
    """Encoded properties without the length in front of them. Lists become repeated properties."""
    parts = []
    for identifier, value in properties.items():
        kind = TABLE[identifier][0]
        if isinstance(value, list):
            parts += [_value(identifier, kind, item) for item in value]
        else:
            parts.append(_value(identifier, kind, value))
    return b"".join(parts)


def property_block(properties: Properties) -> bytes:
    fields = property_fields(properties)
    return varint(len(fields)) + fields
