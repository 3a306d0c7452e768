"""Reason codes and the peer's errors.

A `PeerError` is what the other side did wrong; it ends the connection in the protocol's terms. Our own bugs are
ordinary Python exceptions and never become one.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """MQTT 5 reason codes (2.4). MQTT 3 connections get the nearest thing their protocol has."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


# MQTT 3.1.1 CONNACK return codes (3.2.2.3). What has none is 3, server unavailable.
_CONNECT_RETURN_CODES = {
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
    Reason.BANNED: 5,
    Reason.BAD_AUTHENTICATION_METHOD: 5,
}


# What a CONNACK may carry (3.2.2.2), and a DISCONNECT from the server (3.14.2.1, and 2.4 for 0x8C).
_IN_CONNACK = frozenset((*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F))
_IN_DISCONNECT = frozenset((0x00, *range(0x80, 0x84), 0x87, 0x89, *range(0x8B, 0x91), *range(0x93, 0xA3)))


def connack_code(code: int) -> int:
    """The nearest reason code that a refusing CONNACK may carry."""
    if code in _IN_CONNACK:
        return code
    return Reason.SERVER_UNAVAILABLE if code == Reason.SERVER_SHUTTING_DOWN else Reason.UNSPECIFIED


def disconnect_code(code: int) -> int:
    """The nearest reason code that a DISCONNECT may carry: a client takes any other for a malformed packet."""
    if code in _IN_DISCONNECT:
        return code
    if code in (Reason.CLIENT_IDENTIFIER_NOT_VALID, Reason.BAD_USER_NAME_OR_PASSWORD, Reason.BANNED):
        return Reason.NOT_AUTHORIZED
    return Reason.SERVER_BUSY if code == Reason.SERVER_UNAVAILABLE else Reason.UNSPECIFIED


def connect_return_code(code: int) -> int:
    """The MQTT 3 CONNACK return code for an MQTT 5 reason code."""
    return 0 if code == 0 else _CONNECT_RETURN_CODES.get(Reason(code), 3)


class PeerError(Exception):
    """The peer broke the protocol; the connection ends with `code` (DISCONNECT or CONNACK, where there is one)."""

    code = Reason.PROTOCOL_ERROR

    def __init__(self, reason: str, code: Reason | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        if code is not None:
            self.code = code


class Malformed(PeerError):
    """The bytes are not a control packet."""

    code = Reason.MALFORMED_PACKET


class TooLarge(PeerError):
    """The packet is larger than this connection may send."""

    code = Reason.PACKET_TOO_LARGE


class ConnectRejected(PeerError):
    """A CONNECT that is understood and answered with a refusing CONNACK, in the dialect `protocol`."""

    def __init__(self, reason: str, code: Reason, protocol: int) -> None:
        super().__init__(reason, code)
        self.protocol = protocol
