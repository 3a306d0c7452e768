"""Accepting connections on the loop that the gateway runs on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
import uvloop

from gateway.server.accepting import Accepting, listening

CLIENTS = 8


class Counted(asyncio.BufferedProtocol):
    def __init__(self, made: list[Counted]) -> None:
        made.append(self)
        self._buffer = bytearray(1)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer


def test_several_connections_are_accepted_in_one_turn_of_the_loop() -> None:
    async def turns() -> list[int]:
        made: list[Counted] = []
        sockets = await listening("127.0.0.1", 0, backlog=CLIENTS, reuse_port=False)
        address = sockets[0].getsockname()
        accepting = await Accepting.on(sockets, lambda: Counted(made), backlog=CLIENTS)
        counts: list[int] = []
        with contextlib.ExitStack() as clients:
            for _ in range(CLIENTS):  # the system takes them; the loop has no turn meanwhile
                clients.enter_context(socket.create_connection(address))
            async with asyncio.timeout(60):
                while len(made) < CLIENTS:
                    before = len(made)
                    await asyncio.sleep(0)
                    counts.append(len(made) - before)
        accepting.close()
        await accepting.wait_closed()
        return counts

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        counts = runner.run(turns())
    assert sum(counts) == CLIENTS
    assert max(counts) > 1, counts


def test_a_family_that_the_system_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.create_server

    def create(address: tuple[str, int], *, family: int, **options: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return made(address, family=family, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(socket, "create_server", create)

    known, found = socket.getaddrinfo, ["::1", "127.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [each for host in found for each in known(host, 0)])

    async def listen() -> None:
        for wire in await listening("host", 0, backlog=1, reuse_port=False):
            wire.close()

    asyncio.run(listen())
    found.pop()
    with pytest.raises(OSError, match="no IPv6"):
        asyncio.run(listen())


def test_an_address_that_is_taken_leaves_no_socket_open() -> None:
    async def twice() -> None:
        sockets = await listening("127.0.0.1", 0, backlog=1, reuse_port=False)
        try:
            with pytest.raises(OSError):
                await listening("127.0.0.1", sockets[0].getsockname()[1], backlog=1, reuse_port=False)
        finally:
            for wire in sockets:
                wire.close()

    asyncio.run(twice())
