"""Who a connection is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import contract, passwords
from gateway.config import BadSettings, Settings
from gateway.contract import BANS, DEVICES, Ban, Credential, Device, DeviceLimits
from gateway.counters import Counters
from gateway.identity.authentication import FREE_GUESSES, Authenticator
from gateway.ports import Challenge, ConnectRequest, Identity, Refused
from gateway.receipts import wait
from gateway.registry import Registry
from gateway.why import Why
from tests.unit.gateway.parts import request


class Door:
    def __init__(self, executor: ThreadPoolExecutor, **environ: str) -> None:
        self.now = 1000.0
        self.registry = Registry()
        settings = Settings.from_env({"SLUICE_MQTT_LISTENERS": "mqtt://127.0.0.1:1883,mqtt://0.0.0.0:1884", **environ})
        self.authenticator = Authenticator(
            settings, self.registry, Counters(), clock=lambda: self.now, executor=executor
        )

    def device(self, name: str, *credentials: Credential, **options: object) -> None:
        record = Device(name=name, credentials=credentials, **options)  # type: ignore[arg-type]  # the test's business
        self.registry.apply(DEVICES, name.encode(), contract.encode(record))

    async def knock(self, connect: ConnectRequest) -> Identity:
        found = await wait(self.authenticator.authenticate(connect))
        assert isinstance(found, Identity)
        return found

    async def refused(self, connect: ConnectRequest) -> int:
        with pytest.raises(Refused) as caught:
            await self.knock(connect)
        return caught.value.code

    async def why(self, connect: ConnectRequest) -> str:
        with pytest.raises(Refused) as caught:
            await self.knock(connect)
        return caught.value.why


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def door(executor: ThreadPoolExecutor) -> Door:
    return Door(executor)


async def test_a_loopback_listener_lets_anonymous_clients_in_and_no_other_does(door: Door) -> None:
    assert (await door.knock(request())).name == ""
    assert (await door.knock(request(username="", password=b""))).name == ""
    assert await door.refused(request(listener="mqtt://0.0.0.0:1884")) == 0x86


async def test_anonymous_use_can_be_switched_off(executor: ThreadPoolExecutor) -> None:
    assert await Door(executor, SLUICE_MQTT_ANONYMOUS="0").refused(request()) == 0x86
    with pytest.raises(BadSettings):
        Door(executor, SLUICE_MQTT_ANONYMOUS="1")
    insecure = Door(executor, SLUICE_MQTT_ANONYMOUS="1", SLUICE_INSECURE="1")
    assert (await insecure.knock(request(listener="mqtt://0.0.0.0:1884"))).name == ""


async def test_a_generated_secret_and_a_persons_password_are_known(door: Door) -> None:
    secret, fast = passwords.generate()
    door.device("d1", fast, passwords.from_password("a long password"))
    for password in (secret.encode(), b"a long password"):
        assert (await door.knock(request(username="d1", password=password))).name == "d1"
    assert await door.refused(request(username="d1", password=b"another password")) == 0x86
    assert await door.refused(request(username="d1")) == 0x86
    assert await door.refused(request(username="d2", password=secret.encode())) == 0x86


async def test_a_device_without_credentials_cannot_sign_in(door: Door) -> None:
    door.device("d1")
    assert await door.refused(request(username="d1", password=b"")) == 0x86


async def test_a_disabled_device_is_refused(door: Door) -> None:
    secret, credential = passwords.generate()
    door.device("d1", credential, enabled=False)
    assert await door.refused(request(username="d1", password=secret.encode())) == 0x87


async def test_a_device_keeps_to_its_client_id_and_others_keep_off_it(door: Door) -> None:
    secret, credential = passwords.generate()
    door.device("d1", credential, client_id="meter")
    other, other_credential = passwords.generate()
    door.device("d2", other_credential)
    assert (await door.knock(request("meter", "d1", secret.encode()))).name == "d1"
    assert await door.refused(request("c1", "d1", secret.encode())) == 0x85
    assert await door.refused(request("meter", "d2", other.encode())) == 0x85
    assert await door.refused(request("meter")) == 0x85
    assert await door.refused(request("d2")) == 0x85


async def test_a_refusal_says_why_in_a_word_that_stays(door: Door) -> None:
    secret, credential = passwords.generate()
    door.device("bound", credential, client_id="meter")
    door.device("off", credential, enabled=False)
    door.device("a/b", credential)
    assert await door.why(request(username="nobody", password=b"x")) == Why.CREDENTIALS
    assert await door.why(request(listener="mqtt://0.0.0.0:1884")) == Why.NO_CREDENTIALS
    assert await door.why(request("c1", "bound", secret.encode())) == Why.CLIENT_ID_BOUND
    assert await door.why(request("meter")) == Why.CLIENT_ID_TAKEN
    assert await door.why(request("c1", "off", secret.encode())) == Why.DISABLED
    assert await door.why(request("c1", "a/b", secret.encode())) == Why.NAME
    door.registry.apply(BANS, b"client:c9", contract.encode(Ban(kind="client", value="c9", reason="noisy")))
    assert await door.why(request("c9")) == Why.BANNED


async def test_a_certificates_subject_is_a_device(door: Door) -> None:
    door.device("d1", subject="meter-7.example")
    assert (await door.knock(request(subject="meter-7.example"))).name == "d1"
    assert (await door.knock(request(subject="unknown"))).name == ""


@pytest.mark.parametrize("name", ["a/b", "a+", "#"])
async def test_a_name_that_would_change_a_policys_shape_is_refused(door: Door, name: str) -> None:
    secret, credential = passwords.generate()
    door.device(name, credential)
    assert await door.refused(request(username=name, password=secret.encode())) == 0x87


async def test_the_banned_are_refused_whatever_they_know(door: Door) -> None:
    secret, credential = passwords.generate()
    door.device("d1", credential)
    for ban in (Ban(kind="user", value="d1"), Ban(kind="client", value="c9"), Ban(kind="address", value="10.0.0.1")):
        door.registry.apply(BANS, ban.key.encode(), contract.encode(ban))
    assert await door.refused(request(username="d1", password=secret.encode())) == 0x8A
    assert await door.refused(request("c9")) == 0x8A
    assert await door.refused(request(address="10.0.0.1:99")) == 0x8A


async def test_guessing_is_slowed_down_where_it_comes_from_and_nowhere_else(door: Door) -> None:
    secret, credential = passwords.generate()
    door.device("d1", credential)
    guess = request(username="d1", password=b"guess", address="10.0.0.9:1")
    codes = [await door.refused(guess) for _ in range(FREE_GUESSES + 1)]
    assert codes == [0x86] * FREE_GUESSES + [0x9F]
    right = request(username="d1", password=secret.encode(), address="10.0.0.9:2")
    assert await door.refused(right) == 0x9F
    elsewhere = request(username="d1", password=secret.encode(), address="10.0.0.8:1")
    assert (await door.knock(elsewhere)).name == "d1"
    door.now += 1.5
    assert (await door.knock(right)).name == "d1"


async def test_limits_are_the_devices_own_or_the_gateways(executor: ThreadPoolExecutor) -> None:
    door = Door(executor, SLUICE_MQTT_IN_FLIGHT="7", SLUICE_MQTT_QUEUE="9", SLUICE_MQTT_SESSION_EXPIRY="60")
    secret, credential = passwords.generate()
    door.device("d1", credential, limits=DeviceLimits(messages_rate=5.0, queue=3, sessions=2))
    limits = (await door.knock(request(username="d1", password=secret.encode()))).limits
    assert (limits.in_flight, limits.queue, limits.messages_rate) == (7, 3, 5.0)
    assert (limits.sessions, limits.session_expiry) == (2, 60)
    assert (await door.knock(request())).limits.sessions == 20_000


async def test_a_slow_check_does_not_hold_the_loop_up(door: Door) -> None:
    door.device("d1", passwords.from_password("a long password"))
    receipt = door.authenticator.authenticate(request(username="d1", password=b"a long password"))
    assert not receipt.settled
    await asyncio.wait_for(wait(receipt), 60)


def test_settings_that_are_not_safe_or_not_possible_are_refused(tmp_path: Path) -> None:
    for environ in (
        {"SLUICE_MQTT_LISTENERS": "mqtts://127.0.0.1:8883"},
        {"SLUICE_MQTT_LISTENERS": "coap://127.0.0.1:80"},
        {"SLUICE_MQTT_LISTENERS": "https://127.0.0.1:443"},
        {"SLUICE_MQTT_PACKET_SIZE": "many"},
        {"SLUICE_MQTT_IN_FLIGHT": "0"},
    ):
        with pytest.raises(BadSettings):
            Settings.from_env(environ)


def scram_client(username: str, password: str, nonce: bytes = b"clientnonce1") -> Any:
    """A client's half of SCRAM-SHA-256: yields its messages, is sent the server's."""
    bare = b"n=%b,r=%b" % (username.encode(), nonce)
    server_first = yield b"n,," + bare
    fields = dict(each.split(b"=", 1) for each in server_first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = b"c=biws,r=" + fields[b"r"]
    signed = b",".join((bare, server_first, without_proof))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    yield without_proof + b",p=" + base64.b64encode(proof)


@pytest.mark.parametrize(
    ("username", "password", "known"), [("d1", "right", True), ("d1", "wrong", False), ("d2", "right", False)]
)
async def test_enhanced_authentication_proves_the_password_without_sending_it(
    door: Door, username: str, password: str, known: bool
) -> None:
    door.device("d1", passwords.scram_from("right"))
    client = scram_client(username, password)
    connect = replace(request(), authentication_method="SCRAM-SHA-256", authentication_data=next(client))
    challenge = await wait(door.authenticator.authenticate(connect))
    assert isinstance(challenge, Challenge)
    receipt = door.authenticator.answer(challenge.exchange, client.send(challenge.data))
    if known:
        identity = await wait(receipt)
        assert identity.name == "d1" and identity.authentication_data.startswith(b"v=")
    else:
        assert isinstance(receipt.failure, Refused)


async def test_an_unknown_authentication_method_is_refused(door: Door) -> None:
    assert await door.refused(replace(request(), authentication_method="X", authentication_data=b"")) == 0x8C


class Vouching:
    """A verifier that takes a password for a name."""

    async def verify(self, connect: ConnectRequest) -> Identity | None:
        return Identity(name=(connect.password or b"").decode())


async def test_a_ban_and_a_disabled_device_hold_for_the_name_that_a_token_or_a_certificate_says(
    executor: ThreadPoolExecutor,
) -> None:
    door = Door(executor)
    door.authenticator._verifiers = [Vouching()]
    door.device("meter", subject="meter-7.example")
    door.device("off", enabled=False)
    assert (await door.knock(request("c1", password=b"app"))).name == "app"
    assert (await door.knock(request("meter", subject="meter-7.example"))).name == "meter"
    assert await door.refused(request("c1", password=b"off")) == 0x87
    for name in ("app", "meter"):
        ban = Ban(kind="user", value=name)
        door.registry.apply(BANS, ban.key.encode(), contract.encode(ban))
    assert await door.refused(request("c1", password=b"app")) == 0x8A
    assert await door.refused(request("meter", subject="meter-7.example")) == 0x8A
    assert (await door.knock(request("c1", password=b"other"))).name == "other"
