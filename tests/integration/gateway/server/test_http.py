"""HTTP on real ports: plain, with TLS and a client certificate, behind a PROXY header, and hostile peers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.http.conversation import Settings as HttpSettings
from gateway.server.listeners import parse_listeners
from gateway.server.server import NoDoor, Server, ServerSettings
from tests.fakes.authority import Authority
from tests.fakes.gateway_engine import MemoryEngine
from tests.integration.gateway.server.conftest import Serve, until
from tests.integration.gateway.server.test_transports import proxy_header
from tests.unit.gateway.http.talking import MemoryDoor, post

IMPATIENT = HttpSettings(head=1.0, body=2.0, idle=1.0)


class Served:
    def __init__(self, server: Server, door: MemoryDoor, port: int) -> None:
        self.server = server
        self.door = door
        self.port = port

    async def say(self, data: bytes, **more: Any) -> bytes:
        """Everything that comes back until the end, which the request asks for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **more)
        writer.write(data)
        async with asyncio.timeout(30):
            found = await reader.read()
        writer.close()
        return found


@pytest.fixture
async def listen() -> AsyncIterator[Any]:
    servers: list[Server] = []

    async def start(text: str = "http://127.0.0.1:0", **settings: Any) -> Served:
        door = MemoryDoor()
        server = Server(MemoryEngine(), ServerSettings(**settings), door=door)
        servers.append(server)
        (bound,) = await server.start(parse_listeners(text))
        return Served(server, door, bound.port)

    yield start
    for server in servers:
        with contextlib.suppress(TimeoutError):
            await server.stop(closing=0.2)


LAST = "Connection: close"


async def test_tcp_carries_http(listen: Any) -> None:
    served = await listen()
    found = await served.say(post("/topics/a", b"x" * 900) + post("/topics/b", b"y", LAST))
    assert found.count(b"HTTP/1.1 200 ") == 2
    assert [payload for _, _, payload in served.door.published] == [b"x" * 900, b"y"]
    await until(lambda: not served.server.connections)
    assert served.server.counters()["accepted"] == 1
    served.server.account()
    assert served.server.totals.received == 2


async def test_tls_carries_http_and_the_client_certificate(listen: Any, tmp_path: Path) -> None:
    from gateway.server.certificates import TlsFiles

    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway", "gateway")
    served = await listen(
        "https://127.0.0.1:0", tls=TlsFiles(certificate=certificate, key=key, client_ca=authority.file)
    )
    context = authority.client_context(authority.issue("pump-7", "device"))
    found = await served.say(post("/topics/a", b"x" * 900, LAST), ssl=context)
    assert b"HTTP/1.1 200 " in found
    peer = served.door.knocks[0].peer
    assert peer.tls and peer.certificate_subject == "pump-7" and peer.transport == "http"


async def test_a_proxy_header_gives_the_address(listen: Any) -> None:
    served = await listen("http://127.0.0.1:0?proxy=1")
    assert b"HTTP/1.1 200 " in await served.say(proxy_header() + post("/topics/a", b"x", LAST))
    assert served.door.knocks[0].peer.address == "203.0.113.9:5555"


async def test_a_server_without_a_door_has_no_http_listener(serve: Serve) -> None:
    with pytest.raises(NoDoor):
        await serve("http://127.0.0.1:0")


async def test_silent_dripping_and_forgetful_peers_go_away(listen: Any) -> None:
    served = await listen(http=IMPATIENT)
    peers = []
    for first in (b"", b"POST /topics/a HT", post("/topics/a", b"x" * 900)[:-1], post("/topics/a", b"x")):
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(first)
            peers.append((reader, writer))
    await until(lambda: not served.server.connections)
    for reader, writer in peers:
        writer.close()
        with contextlib.suppress(OSError):
            await reader.read()
    assert served.server.refusals.by_reason["http-slow"] == 150


async def test_rubbish_loses_its_own_connection_and_nothing_else(listen: Any) -> None:
    served = await listen(http=IMPATIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    chance = random.Random(3)
    sample = post("/topics/a", b"payload " * 20, "Sluice-Message-Id: 7")

    async def one() -> None:
        broken = bytearray(sample)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(broken))
            broken[place : place + chance.randint(0, 5)] = chance.randbytes(chance.randint(0, 5))
        mine, out = await asyncio.open_connection("127.0.0.1", served.port)
        out.write(bytes(broken) if chance.random() < 0.7 else chance.randbytes(300))
        with contextlib.suppress(OSError, TimeoutError):
            if chance.random() < 0.5:  # what it said is read before it goes
                out.write_eof()
                await asyncio.wait_for(mine.read(), 60)
            else:
                await asyncio.wait_for(mine.read(1000), 0.05)
        out.transport.abort()

    for _ in range(6):
        await asyncio.gather(*(one() for _ in range(50)))
        writer.write(post("/topics/honest", b"still here"))
        assert b"200 OK" in await reader.readuntil(b"}")
    await until(lambda: len(served.server.connections) == 1)
    assert served.server.refusals.by_reason["http-malformed"] > 30
    writer.close()


async def test_a_stopping_server_answers_what_is_under_way(listen: Any) -> None:
    served = await listen()
    served.door.manual = True
    _, idle = await asyncio.open_connection("127.0.0.1", served.port)
    asking = asyncio.create_task(served.say(post("/topics/a", b"x")))
    await until(lambda: served.door.open)
    served.door.settle()
    await until(lambda: served.door.published)
    stopping = asyncio.create_task(served.server.stop(closing=20))
    await asyncio.sleep(0)
    served.door.settle()
    assert b"200 OK" in await asking
    await stopping
    idle.close()


async def test_connections_of_one_address_wait_for_their_turn_and_all_are_served(listen: Any) -> None:
    served = await listen(pace=5.0)
    answers = await asyncio.gather(*(served.say(post("/topics/a", b"x", LAST)) for _ in range(13)))
    assert all(each.startswith(b"HTTP/1.1 200 ") for each in answers)


async def test_of_too_many_connections_from_one_address_the_last_are_turned_away(listen: Any) -> None:
    served = await listen(pace=1.0, patience=0.5)

    async def answered() -> bool:
        try:
            return bool(await served.say(post("/topics/a", b"x", LAST)))
        except OSError:
            return False

    answers = await asyncio.gather(*(answered() for _ in range(40)))
    turned_away = served.server.turned_away
    assert 0 < turned_away == answers.count(False) == served.server.refusals.by_reason["address-rate"]


async def test_what_is_no_http_counts_against_its_address(listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await listen(pace=5_000.0)
    spoiled: list[str] = []
    monkeypatch.setattr(served.server.http_gate, "spoiled", lambda address, _: spoiled.append(address))
    for _ in range(3):
        await served.say(b"\xff\xff\xff\r\n\r\n")
    assert [address.rpartition(":")[0] for address in spoiled] == ["127.0.0.1"] * 3
    assert served.server.refusals.by_reason["http-malformed"] == 3
    assert (await served.say(post("/topics/a", b"x", LAST))).startswith(b"HTTP/1.1 200 ")
