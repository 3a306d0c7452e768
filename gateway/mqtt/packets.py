"""The packet codec: MQTT 3.1, 3.1.1 and 5 as dialects of one engine.

`protocol` is the protocol level of the connection: 3, 4 or 5. Level 5 adds properties and reason codes, 3 relaxes a
few rules 3.1.1 made strict. PUBLISH frames, by far the most, are decoded in `publishing`; everything else is here.
Decoders get the body of one complete packet as bytes, and refuse what does not fill it exactly; filters, of which
there may be many, are decoded as they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.mqtt import properties as p
from gateway.mqtt.errors import ConnectRejected, Malformed, PeerError, Reason, connect_return_code
from gateway.mqtt.properties import Properties, binary, property_block, read_binary, read_properties, read_text, varint
from gateway.ports import PublishProperties

PINGRESP = b"\xd0\x00"
MOST_FILTERS = 2_000  # of one SUBSCRIBE or UNSUBSCRIBE: what one packet makes us do has an end
_NAMES = {b"MQTT": (4, 5), b"MQIsdp": (3,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WillFields:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    protocol: int
    clean_start: bool
    keep_alive: int
    client_id: str
    will: WillFields | None
    username: str | None
    password: bytes | None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    packet_id: int
    filters: Iterator[tuple[str, int]]  # filter, options byte; decoded as they are asked for
    identifier: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    packet_id: int
    filters: Iterator[str]  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    code: int
    session_expiry: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate:
    code: int
    method: str | None
    data: bytes | None


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + varint(len(body)) + body


def _filled(position: int, end: int) -> None:
    if position != end:
        raise Malformed("the packet is longer than its contents")


# -- from the peer -----------------------------------------------------------------------------------------------


def decode_connect(data: bytes) -> Connect:
    """CONNECT (3.1). Raises `ConnectRejected` for what is answered by a CONNACK."""
    end = len(data)
    name, position = read_binary(data, 0, end)
    if position >= end:
        raise Malformed("CONNECT is cut short")
    level = data[position] & 0x7F  # bridges of other brokers set the top bit
    if name not in _NAMES:
        raise Malformed("not MQTT")
    if level not in _NAMES[name] or data[position] & 0x80:
        raise ConnectRejected("unsupported protocol level", Reason.UNSUPPORTED_PROTOCOL_VERSION, 4)
    if position + 4 > end:
        raise Malformed("CONNECT is cut short")
    flags = data[position + 1]
    keep_alive = data[position + 2] << 8 | data[position + 3]
    position += 4
    _check_connect_flags(flags, level)
    found: Properties = {}
    if level == 5:
        found, position = read_properties(data, position, end, p.CONNECT)
        if p.AUTHENTICATION_DATA in found and p.AUTHENTICATION_METHOD not in found:
            raise PeerError("authentication data without a method")
    client_id, position = read_text(data, position, end)
    will = None
    if flags & 0x04:
        will, position = _read_will(data, position, end, flags, level)
    username = password = None
    if flags & 0x80:
        username, position = read_text(data, position, end)
    if flags & 0x40:
        password, position = read_binary(data, position, end)
    _filled(position, end)
    return Connect(
        protocol=level,
        clean_start=bool(flags & 0x02),
        keep_alive=keep_alive,
        client_id=client_id,
        will=will,
        username=username,
        password=password,
        properties=found,
    )


def _check_connect_flags(flags: int, level: int) -> None:
    if flags & 0x01 and level != 3:  # 3.1 leaves it open
        raise Malformed("the reserved connect flag is set")
    if flags & 0x04:
        if flags & 0x18 == 0x18:
            raise Malformed("will QoS 3")
    elif flags & 0x38:
        raise Malformed("will QoS or retain without a will")
    if flags & 0xC0 == 0x40 and level != 5:
        raise Malformed("a password without a user name")


def _read_will(data: bytes, position: int, end: int, flags: int, level: int) -> tuple[WillFields, int]:
    found: Properties = {}
    if level == 5:
        found, position = read_properties(data, position, end, p.WILL)
    topic, position = read_text(data, position, end)
    payload, position = read_binary(data, position, end)
    will = WillFields(topic=topic, payload=payload, qos=flags >> 3 & 3, retain=bool(flags & 0x20), properties=found)
    return will, position


def _read_packet_id(data: bytes, end: int) -> int:
    if end < 2:
        raise Malformed("the packet identifier is missing")
    packet_id = data[0] << 8 | data[1]
    if packet_id == 0:
        raise PeerError("packet identifier 0")
    return packet_id


def decode_subscribe(data: bytes, protocol: int) -> Subscribe:
    end = len(data)
    packet_id = _read_packet_id(data, end)
    position, identifier = 2, None
    if protocol == 5:
        found, position = read_properties(data, position, end, p.SUBSCRIBE)
        identifier = found.get(p.SUBSCRIPTION_IDENTIFIER)
    if position >= end:
        raise PeerError("SUBSCRIBE without a filter")
    return Subscribe(packet_id=packet_id, filters=_read_filters(data, position, end, protocol), identifier=identifier)


def _read_filters(data: bytes, position: int, end: int, protocol: int) -> Iterator[tuple[str, int]]:
    reserved = 0xC0 if protocol == 5 else 0xFC
    for _ in range(MOST_FILTERS):
        name, position = read_text(data, position, end)
        if position >= end:
            raise Malformed("the subscription options are missing")
        options = data[position]
        position += 1
        if options & 0x03 == 3 or options & reserved or options & 0x30 == 0x30:
            raise Malformed("reserved subscription options")
        yield name, options
        if position >= end:
            return
    raise PeerError("too many filters in one SUBSCRIBE", Reason.QUOTA_EXCEEDED)


def decode_unsubscribe(data: bytes, protocol: int) -> Unsubscribe:
    end = len(data)
    packet_id = _read_packet_id(data, end)
    position = 2
    if protocol == 5:
        _, position = read_properties(data, position, end, p.UNSUBSCRIBE)
    if position >= end:
        raise PeerError("UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id=packet_id, filters=_read_names(data, position, end))


def _read_names(data: bytes, position: int, end: int) -> Iterator[str]:
    for _ in range(MOST_FILTERS):
        name, position = read_text(data, position, end)
        yield name
        if position >= end:
            return
    raise PeerError("too many filters in one UNSUBSCRIBE", Reason.QUOTA_EXCEEDED)


_ACK_CODES = {
    p.PUBACK: frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)),
    p.PUBREC: frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)),
    p.PUBREL: frozenset((0x00, 0x92)),
    p.PUBCOMP: frozenset((0x00, 0x92)),
}


def decode_acknowledgement(kind: int, data: bytes, protocol: int) -> tuple[int, int]:
    """PUBACK, PUBREC, PUBREL or PUBCOMP: packet id and reason code."""
    end = len(data)
    packet_id = _read_packet_id(data, end)
    if end == 2:
        return packet_id, 0
    if protocol != 5:
        raise Malformed("the packet is longer than its contents")
    code = data[2]
    if code not in _ACK_CODES[kind]:
        raise Malformed(f"reason code 0x{code:02x} does not belong here")
    if end > 3:
        _, position = read_properties(data, 3, end, kind)
        _filled(position, end)
    return packet_id, code


_DISCONNECT_CODES = frozenset((0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99))


def decode_disconnect(data: bytes, protocol: int) -> Disconnect:
    end = len(data)
    if end == 0:
        return Disconnect(code=0)
    if protocol != 5:
        raise Malformed("the packet is longer than its contents")
    code = data[0]
    if code not in _DISCONNECT_CODES:
        raise Malformed(f"reason code 0x{code:02x} does not belong here")
    found: Properties = {}
    if end > 1:
        found, position = read_properties(data, 1, end, p.DISCONNECT)
        _filled(position, end)
    if p.SERVER_REFERENCE in found:
        raise PeerError("a client can't refer to another server")
    return Disconnect(code=code, session_expiry=found.get(p.SESSION_EXPIRY), reason=found.get(p.REASON_STRING, ""))


def decode_auth(data: bytes) -> Authenticate:
    end = len(data)
    if end == 0:
        raise PeerError("AUTH without an authentication method")
    code = data[0]
    if code not in (0x18, 0x19):
        raise PeerError(f"AUTH with reason code 0x{code:02x} from a client")
    found: Properties = {}
    if end > 1:
        found, position = read_properties(data, 1, end, p.AUTH)
        _filled(position, end)
    if p.AUTHENTICATION_METHOD not in found:
        raise PeerError("AUTH without an authentication method")
    return Authenticate(code=code, method=found[p.AUTHENTICATION_METHOD], data=found.get(p.AUTHENTICATION_DATA))


def publish_properties(found: Properties) -> PublishProperties | None:
    """What travels with the message; None when that is nothing. Raises `Malformed` for an impossible response topic."""
    if not found:
        return None
    response = found.get(p.RESPONSE_TOPIC)
    if response is not None and (not response or "+" in response or "#" in response):
        raise PeerError("the response topic is not a topic name", Reason.PROTOCOL_ERROR)
    result = PublishProperties(
        payload_format=found.get(p.PAYLOAD_FORMAT),
        message_expiry=found.get(p.MESSAGE_EXPIRY),
        content_type=found.get(p.CONTENT_TYPE),
        response_topic=response,
        correlation_data=found.get(p.CORRELATION_DATA),
        user=tuple(found.get(p.USER_PROPERTY, ())),
    )
    return None if result == _NOTHING else result


_NOTHING = PublishProperties()


# -- to the peer -------------------------------------------------------------------------------------------------


def encode_connack(protocol: int, session_present: bool, code: int, properties: Properties | None = None) -> bytes:
    if protocol != 5:  # 3.1 has no session present flag
        return bytes((0x20, 2, session_present and not code and protocol == 4, connect_return_code(code)))
    return packet(0x20, bytes((session_present and not code, code)) + property_block(properties or {}))


def encode_acknowledgement(kind: int, packet_id: int, code: int, protocol: int, reason: str = "") -> bytes:
    """PUBACK, PUBREC, PUBREL (with its fixed flags) or PUBCOMP."""
    first = kind << 4 | (2 if kind == p.PUBREL else 0)
    body = packet_id.to_bytes(2, "big")
    if protocol == 5 and code:
        body += bytes((code,))
        if reason:
            body += property_block({p.REASON_STRING: reason})
    return packet(first, body)


def encode_suback(packet_id: int, codes: list[int], protocol: int) -> bytes:
    body = packet_id.to_bytes(2, "big")
    if protocol == 5:
        return packet(0x90, body + b"\x00" + bytes(codes))
    if protocol == 4:
        return packet(0x90, body + bytes(code if code < 3 else 0x80 for code in codes))
    return packet(0x90, body + bytes(code if code < 3 else 0 for code in codes))  # 3.1 can't refuse


def encode_unsuback(packet_id: int, codes: list[int], protocol: int) -> bytes:
    body = packet_id.to_bytes(2, "big")
    return packet(0xB0, body + b"\x00" + bytes(codes) if protocol == 5 else body)


def encode_disconnect(code: int, properties: Properties | None = None) -> bytes:
    """DISCONNECT from the server; MQTT 5 only."""
    if not properties:
        return bytes((0xE0, 1, code)) if code else b"\xe0\x00"
    return packet(0xE0, bytes((code,)) + property_block(properties))


def encode_auth(code: int, method: str, data: bytes | None) -> bytes:
    properties: Properties = {p.AUTHENTICATION_METHOD: method}
    if data is not None:
        properties[p.AUTHENTICATION_DATA] = data
    return packet(0xF0, bytes((code,)) + property_block(properties))


def message_fields(properties: PublishProperties, expiry: int | None) -> bytes:
    """The property fields that travel with a message; `expiry` is what is left of its message expiry interval."""
    parts = []
    if properties.payload_format is not None:
        parts.append(bytes((p.PAYLOAD_FORMAT, properties.payload_format)))
    if expiry is not None:
        parts.append(bytes((p.MESSAGE_EXPIRY,)) + expiry.to_bytes(4, "big"))
    if properties.content_type is not None:
        parts.append(bytes((p.CONTENT_TYPE,)) + p.text(properties.content_type))
    if properties.response_topic is not None:
        parts.append(bytes((p.RESPONSE_TOPIC,)) + p.text(properties.response_topic))
    if properties.correlation_data is not None:
        parts.append(bytes((p.CORRELATION_DATA,)) + binary(properties.correlation_data))
    parts += [bytes((p.USER_PROPERTY,)) + p.text(name) + p.text(value) for name, value in properties.user]
    return b"".join(parts)
