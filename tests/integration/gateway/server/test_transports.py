from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from gateway.mqtt.surroundings import Settings
from gateway.server.certificates import Certificates, NoCertificate, TlsFiles
from gateway.server.listeners import BadListener, parse_listeners
from gateway.server.server import ServerSettings
from tests.fakes.authority import Authority
from tests.fakes.mqtt_device import DISCONNECT, PINGREQ, connect, publish
from tests.integration.gateway.server.conftest import Client, Gateway, Serve, until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def talk(client: Client) -> None:
    """CONNECT, publish, ping."""
    await client.send(connect("t1"))
    assert await client.packet() == (0x20, b"\x00\x00")
    await client.send(publish("a", b"x" * 70_000, qos=1), PINGREQ)
    assert await client.packet() == (0x40, b"\x00\x01")
    assert await client.packet() == (0xD0, b"")


async def test_tcp_carries_mqtt(serve: Serve) -> None:
    gateway = await serve()
    client = await gateway.client()
    await talk(client)
    assert gateway.engine.published[0][:2] == ("t1", "a")
    session = gateway.engine.live["t1"]
    assert session.request.peer.transport == "tcp" and not session.request.peer.tls
    await client.send(DISCONNECT)
    assert await client.closed() == b""
    await until(lambda: not gateway.server.connections)


async def test_tls_carries_mqtt_and_the_client_certificate(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=authority.file)
    gateway = await serve("mqtts://127.0.0.1:0", settings=ServerSettings(tls=tls))
    client = await gateway.client("mqtts", tls=authority.client_context(authority.issue("pump-7", "device")))
    await talk(client)
    peer = gateway.engine.live["t1"].request.peer
    assert peer.tls and peer.certificate_subject == "pump-7"
    assert peer.certificate is not None
    assert x509.load_der_x509_certificate(peer.certificate).subject.rfc4514_string() == "CN=pump-7"
    client.abort()


async def test_a_required_client_certificate_is_required(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    tls = TlsFiles(certificate=certificate, key=key, client_ca=authority.file, client_required=True)
    gateway = await serve("mqtts://127.0.0.1:0", settings=ServerSettings(tls=tls))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        client = await gateway.client("mqtts", tls=authority.client_context())
        await talk(client)
    assert not gateway.engine.live


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    "said", [b"\xff" * 100, b"", b"\x16\x03\x01\x02\x00\x01"], ids=["rubbish", "nothing", "a-beginning"]
)
async def test_who_never_gets_through_tls_is_forgotten_and_slowed_down(
    serve: Serve, authority: Authority, said: bytes, proxied: bool
) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    tls = TlsFiles(certificate=certificate, key=key)
    settings = ServerSettings(tls=tls, pace=5_000.0, mqtt=Settings(connect_timeout=0.5))
    gateway = await serve("mqtts://127.0.0.1:0" + ("?proxy=1" if proxied else ""), settings=settings)
    clients = [await gateway.client("mqtts") for _ in range(250)]
    for client in clients:
        await client.send(*([proxy_header()] if proxied else []), said)
    assert not any([await client.closed() for client in clients[:1]])
    await until(lambda: not gateway.server.connections)
    gate = gateway.server.gate
    await until(lambda: gate.slowed(gateway.server.read_clock(), 10))
    [(network, _, _)] = gate.slowed(gateway.server.read_clock(), 10)
    assert network == ("203.0.113.9" if proxied else "127.0.0.1")
    for client in clients:
        client.abort()


async def test_tls_waits_for_its_turn_and_only_then_shakes_hands(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    settings = ServerSettings(tls=TlsFiles(certificate=certificate, key=key), pace=2.0)
    gateway = await serve("mqtts://127.0.0.1:0", settings=settings)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    clients = await asyncio.gather(*(gateway.client("mqtts", tls=authority.client_context()) for _ in range(6)))
    assert loop.time() - begun > 0.4, "four at once, and the sixth half a second later"
    for number, client in enumerate(clients):
        await client.send(connect(f"t{number}"))
        assert await client.packet() == (0x20, b"\x00\x00")
        client.abort()


async def test_a_new_certificate_is_used_without_dropping_anybody(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("old", "gateway")
    gateway = await serve(
        "mqtts://127.0.0.1:0", settings=ServerSettings(tls=TlsFiles(certificate=certificate, key=key))
    )
    before = await gateway.client("mqtts", tls=authority.client_context())
    await talk(before)
    authority.issue("new", "gateway")
    async with asyncio.timeout(30):
        while await subject_shown(gateway, authority) != "new":  # noqa: ASYNC110 - a handshake is asked, not an event
            await asyncio.sleep(0.05)
    await before.send(PINGREQ)
    assert await before.packet() == (0xD0, b"")
    before.abort()


async def subject_shown(gateway: Gateway, authority: Authority) -> str:
    client = await gateway.client("mqtts", tls=authority.client_context())
    found = client.writer.get_extra_info("peercert")
    client.abort()
    return str(found["subject"][0][0][1])


def test_half_of_a_new_pair_leaves_the_old_one_in_use(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = authority.issue("old", "gateway")
    certificates = Certificates(TlsFiles(certificate=certificate, key=key))
    old = certificate.read_bytes()
    authority.issue("new", "gateway")
    new = certificate.read_bytes()
    certificate.write_bytes(old)
    assert not certificates.reload_if_changed() and "is not used" in caplog.text
    assert name_shown(certificates, authority) == "old"
    certificate.write_bytes(new + b"\n")
    assert certificates.reload_if_changed() and name_shown(certificates, authority) == "new"
    assert not certificates.reload_if_changed()
    key.unlink()
    assert not certificates.reload_if_changed() and name_shown(certificates, authority) == "new"


def name_shown(certificates: Certificates, authority: Authority) -> str:
    """The subject that a handshake in memory presents."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    client = authority.client_context().wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert()
    assert found is not None
    return str(found["subject"][0][0][1])  # type: ignore[index]  # a tuple of tuples of pairs


async def test_a_tls_listener_without_a_certificate_does_not_start(serve: Serve) -> None:
    with pytest.raises(NoCertificate):
        await serve("mqtts://127.0.0.1:0")


# -- PROXY v2 ----------------------------------------------------------------------------------------------------


def proxy_header(*, command: int = 1, family: int = 0x11, addresses: bytes | None = None, fields: bytes = b"") -> bytes:
    if addresses is None:
        addresses = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + (5555).to_bytes(2, "big") + (1883).to_bytes(2, "big")
    rest = addresses + fields
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([0x20 | command, family]) + len(rest).to_bytes(2, "big") + rest


async def test_a_proxy_header_gives_the_devices_address_and_name(serve: Serve) -> None:
    gateway = await serve("mqtt://127.0.0.1:0?proxy=1")
    client = await gateway.client()
    name = b"\x22\x00\x06pump-7"
    secure = b"\x20" + (5 + len(name)).to_bytes(2, "big") + b"\x03\x00\x00\x00\x00" + name
    await client.send(proxy_header(fields=secure))
    await talk(client)
    peer = gateway.engine.live["t1"].request.peer
    assert (peer.address, peer.tls, peer.certificate_subject) == ("203.0.113.9:5555", True, "pump-7")
    client.abort()


async def test_a_proxy_header_may_arrive_with_the_rest_or_in_pieces(serve: Serve) -> None:
    gateway = await serve("mqtt://127.0.0.1:0?proxy=1")
    together = await gateway.client()
    await together.send(proxy_header() + connect("together"))
    assert (await together.packet())[0] == 0x20
    pieces = await gateway.client()
    six = bytes.fromhex("20010db8000000000000000000000001") * 2 + b"\x15\xb3\x07\x5b"
    for byte in proxy_header(family=0x21, addresses=six) + connect("pieces"):
        await pieces.send(bytes([byte]))
    assert (await pieces.packet())[0] == 0x20
    assert gateway.engine.live["pieces"].request.peer.address == "[2001:db8::1]:5555"
    local = await gateway.client()
    await local.send(proxy_header(command=0, family=0, addresses=b"") + connect("local"))
    assert (await local.packet())[0] == 0x20
    for client in (together, pieces, local):
        client.abort()


@pytest.mark.parametrize(("networks", "believed"), [(("127.0.0.0/8",), True), (("10.0.0.0/8", "::1/128"), False)])
async def test_only_trusted_proxies_are_believed(serve: Serve, networks: tuple[str, ...], believed: bool) -> None:
    gateway = await serve("mqtt://127.0.0.1:0?proxy=1", settings=ServerSettings(trusted_proxies=networks))
    client = await gateway.client()
    await client.send(proxy_header() + connect("behind"))
    if believed:
        assert (await client.packet())[0] == 0x20
    else:
        assert await client.closed() == b""
        assert not gateway.engine.live
    client.abort()


@pytest.mark.parametrize(
    "header",
    [
        connect("liar"),
        proxy_header()[:12] + b"\x11" + proxy_header()[13:],
        proxy_header(family=0x31),
        proxy_header(addresses=b"\x01\x02"),
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff",
        proxy_header(fields=b"\x20\x00\xff"),
    ],
)
async def test_a_listener_behind_a_proxy_takes_nothing_without_a_header(serve: Serve, header: bytes) -> None:
    gateway = await serve("mqtt://127.0.0.1:0?proxy=1")
    client = await gateway.client()
    await client.send(header)
    await client.closed()
    assert not gateway.engine.live
    await until(lambda: not gateway.server.connections)


async def test_tls_behind_a_proxy_header(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    tls = TlsFiles(certificate=certificate, key=key)
    gateway = await serve("mqtts://127.0.0.1:0?proxy=1", settings=ServerSettings(tls=tls))
    client = await gateway.client("mqtts")
    await client.send(proxy_header())
    await client.writer.start_tls(authority.client_context())
    await talk(client)
    peer = gateway.engine.live["t1"].request.peer
    assert peer.tls and peer.address == "203.0.113.9:5555"
    client.abort()


# -- WebSocket ---------------------------------------------------------------------------------------------------

KEY = base64.b64encode(bytes(range(16)))


def upgrade(path: bytes = b"/mqtt", *, protocol: bytes = b"mqtt", more: bytes = b"") -> bytes:
    return (
        b"GET " + path + b" HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + KEY
        + b"\r\nSec-WebSocket-Protocol: "
        + protocol
        + b"\r\n"
        + more
        + b"\r\n"
    )


def frame(payload: bytes, *, opcode: int = 2, final: bool = True, masked: bool = True) -> bytes:
    first = (0x80 if final else 0) | opcode
    length = len(payload)
    bit = 0x80 if masked else 0
    if length < 126:
        head = bytes([first, bit | length])
    elif length < 65_536:
        head = bytes([first, bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + length.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


async def read_frame(client: Client) -> tuple[int, bytes]:
    async with asyncio.timeout(60):
        first, length = await client.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await client.reader.readexactly(2), "big")
        return first & 0x0F, await client.reader.readexactly(length)


async def upgraded(serve_result: object, client: Client) -> None:
    await client.send(upgrade())
    async with asyncio.timeout(60):
        answer = await client.reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Protocol: mqtt\r\n" in answer


async def test_websocket_carries_mqtt_whatever_the_frame_borders(serve: Serve) -> None:
    gateway = await serve("ws://127.0.0.1:0/mqtt")
    client = await gateway.client("ws")
    await upgraded(gateway, client)
    stream = connect("web") + publish("a", b"x" * 300, qos=1) + PINGREQ
    await client.send(frame(stream[:5], final=False), frame(b"hello", opcode=9), frame(stream[5:9], opcode=0))
    assert await read_frame(client) == (10, b"hello")
    for byte in frame(stream[9:]):
        await client.send(bytes([byte]))
    received = b""
    while len(received) < 10:
        opcode, payload = await read_frame(client)
        assert opcode == 2
        received += payload
    assert received == b"\x20\x02\x00\x00\x40\x02\x00\x01\xd0\x00"
    assert gateway.engine.live["web"].request.peer.transport == "ws"
    await client.send(frame(b"\x03\xe8", opcode=8))
    assert await read_frame(client) == (8, b"\x03\xe8")
    assert await client.closed() == b""
    assert gateway.engine.endings[-1][0] == "web"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (upgrade(b"/other"), b"404"),
        (upgrade(protocol=b"chat"), b"400"),
        (upgrade().replace(b"Version: 13", b"Version: 8"), b"426"),
        (upgrade().replace(KEY, b"short"), b"400"),
        (upgrade(more=b"X: " + b"y" * 9000 + b"\r\n"), b"431"),
        (b"POST /mqtt HTTP/1.1\r\n\r\n", b"400"),
        (connect("raw"), b"400"),
        (upgrade(more=b"no colon\r\n"), b"400"),
    ],
)
async def test_what_is_no_upgrade_gets_an_http_answer(serve: Serve, request_: bytes, status: bytes) -> None:
    gateway = await serve("ws://127.0.0.1:0/mqtt")
    client = await gateway.client("ws")
    await client.send(request_)
    answer = await client.closed()
    assert answer.split(b" ")[1] == status
    await until(lambda: not gateway.server.connections)


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"text", opcode=1),
        frame(connect("x"), masked=False),
        frame(b"", opcode=3),
        frame(b"x", opcode=0),
        frame(b"x" * 126, opcode=9),
        frame(b"x", opcode=9, final=False),
        b"\xc2\x80\x00\x00\x00\x00",
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
        frame(b"a", final=False) + frame(b"b", final=False),
    ],
    ids=["text", "unmasked", "opcode", "continuation", "long-ping", "cut-ping", "reserved-bits", "huge", "interleaved"],
)
async def test_a_broken_websocket_frame_closes_with_a_close_frame(serve: Serve, sent: bytes) -> None:
    gateway = await serve("ws://127.0.0.1:0/mqtt")
    client = await gateway.client("ws")
    await upgraded(gateway, client)
    await client.send(sent)
    rest = await client.closed()
    assert rest[:2] == b"\x88\x02"
    await until(lambda: not gateway.server.connections)
    assert not gateway.engine.live


async def test_secure_websocket(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("gateway", "gateway")
    tls = TlsFiles(certificate=certificate, key=key)
    gateway = await serve("wss://127.0.0.1:0/mqtt", settings=ServerSettings(tls=tls))
    client = await gateway.client("wss", tls=authority.client_context())
    await upgraded(gateway, client)
    await client.send(frame(connect("wss")))
    assert await read_frame(client) == (2, b"\x20\x02\x00\x00")
    assert gateway.engine.live["wss"].request.peer.tls
    client.abort()


# -- addresses ---------------------------------------------------------------------------------------------------


def test_listeners_are_read_from_text() -> None:
    first, second = parse_listeners("mqtt://127.0.0.1, wss://[::]:9000/path?proxy=1")
    assert (first.port, first.tls, first.websocket, first.loopback) == (1883, False, False, True)
    assert (second.host, second.port, second.path, second.proxy, second.loopback) == ("::", 9000, "/path", True, False)
    assert str(second) == "wss://[::]:9000/path"
    plain, secure = parse_listeners("http://127.0.0.1,https://10.0.0.1:443?proxy=1")
    assert (plain.port, plain.http, plain.tls, str(plain)) == (8085, True, False, "http://127.0.0.1:8085")
    assert (secure.http, secure.tls, secure.proxy, str(secure)) == (True, True, True, "https://10.0.0.1:443")


@pytest.mark.parametrize("text", ["ftp://x:1", "mqtt://", "mqtt://h:99999", "127.0.0.1:1883", "mqtt://h:1?prxy=1"])
def test_a_listener_that_makes_no_sense_is_named(text: str) -> None:
    with pytest.raises(BadListener, match=text.split("?", maxsplit=1)[0].split("//")[0]):
        parse_listeners(text)
