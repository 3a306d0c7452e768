"""Listening without TLS: several connections are accepted in one turn of the loop.

libuv, beneath uvloop, takes one new connection from a listening socket a turn, so a fleet that connects pays for a turn
each: two calls into the system, and a pass over everything that waits for a turn's end. A socket that the loop knows
by several descriptors gives it as many connections a turn.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final, Self

A_TURN: Final = 4  # connections; what they cost keeps others waiting


async def listening(host: str, port: int, *, backlog: int, reuse_port: bool) -> list[socket.socket]:
    """Sockets that listen on every address of a host; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    wires: list[socket.socket] = []
    unknown: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                wire = socket.create_server(address, family=family, backlog=backlog, reuse_port=reuse_port)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                unknown = error  # a name may have an IPv6 address on a system without IPv6
                continue
            wires.append(wire)
            wire.setblocking(False)
    except OSError:
        for wire in wires:
            wire.close()
        raise
    if not wires and unknown is not None:
        raise unknown
    return wires


class Accepting:
    """Sockets of one listener. `close` to end."""

    def __init__(self, sockets: Sequence[socket.socket], servers: Sequence[asyncio.Server]) -> None:
        self.sockets = sockets
        self._servers = servers

    @classmethod
    async def on(
        cls, sockets: Sequence[socket.socket], make: Callable[[], asyncio.BufferedProtocol], *, backlog: int
    ) -> Self:
        """Accept there from now on. The sockets are ours."""
        loop = asyncio.get_running_loop()
        wires = [each for wire in sockets for each in (wire, *(wire.dup() for _ in range(A_TURN - 1)))]
        return cls(sockets, [await loop.create_server(make, sock=wire, backlog=backlog) for wire in wires])

    def close(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until nothing of it is left."""
        for server in self._servers:
            await server.wait_closed()
