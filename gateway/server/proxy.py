"""PROXY protocol v2 headers (haproxy's proxy-protocol.txt, section 2.2): bytes in, the device's address out.

Sixteen fixed bytes say how long the rest is; `remaining` tells how many bytes to read next, so that a reader never
takes a byte of what follows the header (TLS, WebSocket or MQTT).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED: Final = 16
MAX_REST: Final = 4096
_TYPE_SSL: Final = 0x20
_SUBTYPE_CN: Final = 0x22
_CLIENT_CERT_CONN: Final = 0x02


class BadProxyHeader(Exception):
    """What came is not a PROXY v2 header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """`address` is None for LOCAL connections (the proxy's own health checks). `common_name`: of a verified
    client certificate at the proxy."""

    address: str | None
    tls: bool = False
    common_name: str | None = None


def remaining(fixed: bytes) -> int:
    """How many bytes follow the first sixteen. Raises `BadProxyHeader`."""
    if fixed[:12] != SIGNATURE:
        raise BadProxyHeader("no PROXY v2 signature")
    if fixed[12] >> 4 != 2 or fixed[12] & 0x0F > 1:
        raise BadProxyHeader("unknown PROXY version or command")
    length = fixed[14] << 8 | fixed[15]
    if length > MAX_REST:
        raise BadProxyHeader(f"a PROXY header of {length} bytes")
    return length


def parse(fixed: bytes, rest: bytes) -> ProxyHeader:
    """The header, from its sixteen fixed bytes and the `remaining` ones. Raises `BadProxyHeader`."""
    if fixed[12] & 0x0F == 0:
        return ProxyHeader(address=None)
    family = fixed[13]
    if family == 0x11:
        size = 12
    elif family == 0x21:
        size = 36
    else:
        raise BadProxyHeader(f"unsupported address family 0x{family:02x}")
    if len(rest) < size:
        raise BadProxyHeader("the addresses are cut short")
    if family == 0x11:
        address = ".".join(str(byte) for byte in rest[:4]) + f":{rest[8] << 8 | rest[9]}"
    else:
        address = f"[{IPv6Address(rest[:16])}]:{rest[32] << 8 | rest[33]}"
    tls, common_name = False, None
    for kind, value in _fields(rest[size:]):
        if kind == _TYPE_SSL and len(value) >= 5:
            tls = bool(value[0] & 0x01)
            verified = value[0] & _CLIENT_CERT_CONN and value[1:5] == b"\x00\x00\x00\x00"
            for inner, text in _fields(value[5:]):
                if inner == _SUBTYPE_CN and verified:
                    common_name = _name(text)
    return ProxyHeader(address=address, tls=tls, common_name=common_name)


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadProxyHeader("the common name is not UTF-8") from None


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 0
    while position + 3 <= len(data):
        length = data[position + 1] << 8 | data[position + 2]
        value = data[position + 3 : position + 3 + length]
        if len(value) != length:
            raise BadProxyHeader("a field is cut short")
        found.append((data[position], value))
        position += 3 + length
    return found
