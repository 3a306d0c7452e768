"""Networks whose attempts to connect the system drops before they cost this process anything.

Closing a connection that nobody wanted costs an accept, a transport and a close: thousands a second of them take half
a core, and the system's work for them comes on top. On Linux a listening socket may carry a small program that is asked
about each segment that comes for it (SO_ATTACH_FILTER, socket(7); classic BPF). Ours drops a SYN whose sender is shut
out: it looks as if it had been lost, so an honest client's system tries again by itself after a second, and a flood
waits for its own time-outs. Connections that are there aren't asked about, and neither are other addresses. Where there
are no such programs, or for more networks than `MOST`, connections are turned away one by one.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
import sys
from collections.abc import Collection, Iterable
from ipaddress import AddressValueError, IPv4Address
from typing import Final, Protocol

log = logging.getLogger("sluice.gateway")

MOST: Final = 50
_ATTACH: Final = 26  # SO_ATTACH_FILTER; Python has no name for it
_DETACH: Final = 27
_NETWORK: Final = 0x1_0000_0000 - 0x10_0000  # SKF_NET_OFF: from there the IP header, without it the TCP header
_BYTE, _WORD, _AND, _SHIFT, _SAME, _RETURN = 0x30, 0x20, 0x54, 0x74, 0x15, 0x06
_TAKE: Final = (_RETURN, 0, 0, 0xFFFF_FFFF)
_DROP: Final = (_RETURN, 0, 0, 0)
Step = tuple[int, int, int, int]
"""Code, how many steps to pass over if it is so, and if not, operand."""


class Listening(Protocol):
    """A socket, or what an event loop shows of one."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...


def program(networks: Collection[str]) -> list[Step]:
    """Drops the SYNs of these networks, which are written as `pace.network_of` does. At most `MOST`."""
    four, six = [], []
    for network in networks:
        try:
            four.append(int(IPv4Address(network)))
        except AddressValueError:
            if len(network) == 16:
                six.append(int(network, 16))
    dropping_four = [step for each in four for step in ((_SAME, 0, 1, each), _DROP)]
    return [
        (_BYTE, 0, 0, 13),  # the flags
        (_AND, 0, 0, 0x12),
        (_SAME, 1, 0, 0x02),  # SYN without ACK
        _TAKE,
        (_BYTE, 0, 0, _NETWORK),
        (_SHIFT, 0, 0, 4),  # the version
        (_SAME, 0, 2 + len(dropping_four), 4),
        (_WORD, 0, 0, _NETWORK + 12),
        *dropping_four,
        _TAKE,
        *(step for each in six for step in _dropping_six(each)),
        _TAKE,
    ]


def _dropping_six(network: int) -> Iterable[Step]:
    return (
        (_WORD, 0, 0, _NETWORK + 8),
        (_SAME, 0, 3, network >> 32),
        (_WORD, 0, 0, _NETWORK + 12),
        (_SAME, 0, 1, network & 0xFFFF_FFFF),
        _DROP,
    )


class Shutters:
    """Of listening sockets that stand for one thing: `shut` drops what comes from a network, until `open`."""

    def __init__(self) -> None:
        self._sockets: list[Listening] = []
        self.networks: set[str] = set()

    def watch(self, sockets: Iterable[Listening]) -> None:
        """From now on of these too."""
        if sys.platform == "linux":  # elsewhere the numbers mean other things
            self._sockets += sockets

    def shut(self, network: str) -> bool:
        """Whether the system drops its attempts from now on."""
        if not self._sockets or len(self.networks) >= MOST:
            return False
        self.networks.add(network)
        self._renew()
        return bool(self._sockets)

    def open(self, networks: Iterable[str]) -> None:
        """Take what comes from them again."""
        if self.networks.intersection(networks):
            self.networks.difference_update(networks)
            self._renew()

    def forget(self) -> None:
        """The sockets are closed."""
        self._sockets = []
        self.networks.clear()

    def _renew(self) -> None:
        try:
            for each in self._sockets:
                if self.networks:
                    _attach(each, program(self.networks))
                else:
                    each.setsockopt(socket.SOL_SOCKET, _DETACH, b"\x00" * 4)
        except OSError as error:
            log.info("the system filters no connection attempts here (%s): they are turned away one by one", error)
            self.forget()


def _attach(listening: Listening, steps: Collection[Step]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    listening.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("HP", len(steps), ctypes.addressof(code)))
