"""Listening with TLS: a connection shakes hands when its turn has come, and not before.

A handshake costs a millisecond or two. An event loop that listens with TLS makes one for whoever connects; so these
connections are accepted here, the gate is asked, and only then the loop gets the socket. Who is accepted and has to
wait, or is shaking hands, is a socket and a task; there are `MOST` of them at a time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from gateway.server.gate import Gate

log = logging.getLogger("sluice.gateway")

MOST: Final = 5_000
AT_ONCE: Final = 100  # accepted in one turn of the loop
PAUSE: Final = 1.0  # seconds until it is tried again when the system has no descriptors


class Securing:
    """Sockets of one listener. `close` to end."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make: Callable[[], asyncio.BufferedProtocol],
        *,
        gate: Gate,
        context: Callable[[], ssl.SSLContext],
        timeout: float,
        clock: Callable[[], float],
        failed: Callable[[str, str], None],
    ) -> None:
        """`context` is asked for each handshake; `timeout`: seconds for one; `failed(address, why)` hears of each that
        came to nothing."""
        self.sockets = list(sockets)
        self._loop = asyncio.get_running_loop()
        self._make = make
        self._gate = gate
        self._context = context
        self._timeout = timeout
        self._clock = clock
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch()

    def _watch(self) -> None:
        for wire in self.sockets:
            self._loop.add_reader(wire.fileno(), self._accept, wire)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                wire, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted now: %s", error)
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(PAUSE, self._again, listening)
                return
            address = address_of(peer)
            now = self._clock()
            if len(self._tasks) >= MOST or self._gate.closed(address, now):
                wire.close()
                continue
            wait = self._gate.wait(address, now)
            if wait is None:
                wire.close()
                continue
            wire.setblocking(False)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._secure(wire, address, wait))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _again(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def _secure(self, wire: socket.socket, address: str, wait: float) -> None:
        try:
            if wait:
                await asyncio.sleep(wait)
            await self._loop.connect_accepted_socket(
                self._make, wire, ssl=self._context(), ssl_handshake_timeout=self._timeout
            )
        except (OSError, ssl.SSLError) as error:
            wire.close()
            self._failed(address, str(error) or type(error).__name__)
        except asyncio.CancelledError:
            wire.close()
            raise

    def close(self) -> None:
        """Listen no more, and let go of who is shaking hands."""
        for wire in self.sockets:
            self._loop.remove_reader(wire.fileno())
            wire.close()
        self.sockets = []
        for task in self._tasks:
            task.cancel()


def address_of(peer: object) -> str:
    """What `getpeername` says as "host:port"."""
    if not isinstance(peer, tuple) or len(peer) < 2:
        return "unknown"
    return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
