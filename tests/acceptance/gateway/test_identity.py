"""Who a device is, by each way to say so, on a real port of the whole product."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from gateway import passwords
from gateway.contract import DEVICES, Credential, Device
from tests.acceptance.gateway.people import Operator, operating, until
from tests.acceptance.gateway.stack import Stack
from tests.acceptance.mqtt.raw import Raw
from tests.fakes.mqtt_device import packet, publish, text
from tests.unit.gateway.test_authentication import scram_client

SECRET = "a secret of some length, shared with who signs"
METHOD = b"\x15" + text("SCRAM-SHA-256")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("identity")
    settings = folder / "jwt.json"
    settings.write_text(json.dumps({"key": SECRET, "algorithms": ["HS256"], "audience": "sluice", "issuer": "us"}))
    made = Stack(folder, SLUICE_MQTT_JWT=str(settings), SLUICE_MQTT_ANONYMOUS="0")
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def operator(stack: Stack) -> Iterator[Operator]:
    with operating(stack) as made:
        yield made


def registered(operator: Operator, name: str, *credentials: Credential) -> None:
    operator.put(DEVICES, name, Device(name=name, credentials=credentials))


def token(**claims: Any) -> bytes:
    common = {"sub": "van", "aud": "sluice", "iss": "us", "exp": time.time() + 600}
    return jwt.encode(common | claims, SECRET, algorithm="HS256").encode()


def signed_in(stack: Stack, client_id: str, user: str | None, password: bytes) -> int:
    with Raw(stack.port, client_id, username=user, password=password) as device:
        return device.connack[1]


def test_a_token_gives_what_it_says_for_as_long_as_it_says(stack: Stack) -> None:
    acl = {"publish": ["up/%u/#"], "subscribe": ["down/%u"]}
    ends = time.time() + 2.5
    device = Raw(stack.port, "van-1", username="van", password=token(exp=ends, acl=acl), keep_alive=0)
    assert device.connack[1] == 0
    assert device.subscribe(("down/van", 1), ("down/else", 1), ("#", 0)) == b"\x01\x87\x87"
    device.publish("up/van/x", b"allowed")
    device.send(publish("up/else", b"denied", qos=1, packet_id=7, properties=b""))
    assert device.next() == (0x40, b"\x00\x07\x87")
    ended = device.ended()
    assert ended is not None and ended[:1] == b"\x87", "it ends with its token"
    assert ends <= time.time() < ends + 10

    assert signed_in(stack, "van-2", None, token()) == 0
    another = jwt.encode({"sub": "van", "exp": time.time() + 600, "aud": "sluice", "iss": "us"}, "x" * 40)
    no_end = jwt.encode({"sub": "van", "aud": "sluice", "iss": "us"}, SECRET)
    unsigned = jwt.encode({"sub": "van", "aud": "sluice", "iss": "us", "exp": time.time() + 600}, "", algorithm="none")
    wrong = [token(exp=time.time() - 1), token(aud="else"), token(iss="else"), token(sub="a/b")]
    for bad in (*wrong, another.encode(), no_end.encode(), unsigned.encode()):
        assert signed_in(stack, "van-3", "van" if bad != wrong[3] else "a/b", bad) in (0x86, 0x87)
    assert signed_in(stack, "van-3", "other", token()) == 0x86, "a token is nobody else's"


def test_scram_proves_a_password_and_does_so_again_while_connected(stack: Stack, operator: Operator) -> None:
    """MQTT 5, 4.12 and 4.12.1, with a device as the console makes it."""
    secret, _ = passwords.generate()
    registered(operator, "meter", *passwords.credentials_of(secret))
    assert until(lambda: signed_in(stack, "meter", "meter", secret.encode()) == 0), "by password too"

    def challenged(device: Raw, client: Any) -> tuple[int, bytes]:
        """Answers the challenge; what comes then."""
        first, body = device.next()
        assert (first, body[0]) == (0xF0, 0x18)
        data = body[2 + len(METHOD) + 3 :]
        answer = METHOD + b"\x16" + text(client.send(data))
        device.send(packet(0xF0, b"\x18" + bytes([len(answer)]) + answer))
        return device.next()

    for password, outcome in ((secret, 0x00), ("another", 0x87)):
        client = scram_client("meter", password)
        device = Opening(stack.port, "meter", METHOD + b"\x16" + text(next(client)))
        first, body = challenged(device, client)
        assert (first, body[1]) == (0x20, outcome)
        if outcome == 0:
            assert b"\x16" in body and b"v=" in body, "the server has proved itself"
            for again, expected in ((secret, 0xF0), ("another", 0xE0)):
                client = scram_client("meter", again)
                begin = METHOD + b"\x16" + text(next(client))
                device.send(packet(0xF0, b"\x19" + bytes([len(begin)]) + begin))
                first, body = challenged(device, client)
                assert (first, body[0]) == (expected, 0x00 if expected == 0xF0 else 0x87)
        device.vanish()


class Opening(Raw):
    """A connection whose CONNECT is not answered yet."""

    def __init__(self, port: int, client_id: str, properties: bytes) -> None:
        self._answers = iter([(0x20, b"\x00\x00")])
        super().__init__(port, client_id, properties=properties)
        self._answers = iter(())

    def next(self, patience: float = 60.0) -> tuple[int, bytes]:
        for each in self._answers:
            return each
        return super().next(patience)


def test_a_persons_password_works_and_guesses_from_elsewhere_keep_nobody_out(stack: Stack, operator: Operator) -> None:
    registered(operator, "panel", passwords.from_password("correct horse"))
    assert until(lambda: signed_in(stack, "panel", "panel", b"correct horse") == 0)
    codes = [signed_in(stack, f"guess-{number}", "panel", b"wrong horse") for number in range(8)]
    assert codes[0] == 0x86 and codes[-1] == 0x9F, "guesses are slowed down"
    assert signed_in(stack, "panel", "panel", b"correct horse") == 0x9F, "and everybody from that address with them"
    elsewhere = Raw(stack.port, "panel", username="panel", password=b"correct horse", source="127.0.0.2")
    assert elsewhere.connack[1] == 0, "but the rightful owner elsewhere doesn't feel it"
    elsewhere.vanish()
