"""Devices that sign in with an X.509 certificate, against the running product."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.contract import DEVICES
from gateway.policy import Policy
from tests.acceptance.gateway.people import Device311, Operator, operating, until
from tests.acceptance.gateway.stack import Stack
from tests.fakes.authority import Authority
from tests.ports import free_port


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def operator(tmp_path: Path, authority: Authority, port: int) -> Iterator[Operator]:
    certificate, key = authority.issue("localhost", "server")
    stack = Stack(
        tmp_path,
        SLUICE_TLS_CERTIFICATE=str(certificate),
        SLUICE_TLS_KEY=str(key),
        SLUICE_TLS_CLIENT_CA=str(authority.file),
        SLUICE_MQTT_ANONYMOUS="0",
    )
    stack.environ["SLUICE_MQTT_LISTENERS"] = f"mqtt://127.0.0.1:{stack.port},mqtts://127.0.0.1:{port}"
    try:
        with operating(stack.start()) as made:
            yield made
    finally:
        stack.stop()


def test_a_certificate_is_the_device_of_its_subject_and_of_no_other(
    operator: Operator, authority: Authority, port: int, tmp_path: Path
) -> None:
    mine, strangers = authority.issue("pump-7.example", "pump"), authority.issue("nobody.example", "nobody")
    (tmp_path / "elsewhere").mkdir()
    forged = Authority(tmp_path / "elsewhere").issue("pump-7.example", "forged")
    operator.device("pump-7", subject="pump-7.example", policies=("own",))
    secret = operator.device("valve-1", policies=("own",))
    operator.policy("own", publish=("up/%u/#",), subscribe=("down/%u/#",))

    def connect(pair: tuple[Path, Path] | None, client_id: str = "x", user: str = "", password: str = "") -> Device311:
        context = authority.client_context(pair)
        return Device311(operator.stack, client_id, user, password, port=port, tls=context)

    assert until(lambda: connect(mine, "pump-7").reason == 0)
    pump = connect(mine, "pump-7")
    assert pump.reason == 0 and pump.subscribe("down/pump-7/x", "down/valve-1/x") == [1, 0x80]
    pump.publish("up/pump-7/a", b"mine")
    pump.publish("up/valve-1/a", b"denied")
    assert until(lambda: [each.value for each in operator.records("mqtt.messages")] == [b"mine"])
    assert dict(operator.records("mqtt.messages")[0].headers)["mqtt.username"] == b"pump-7"
    assert connect(strangers).reason not in (0, None), "a certificate of nobody's subject was let in"
    assert connect(None).reason not in (0, None), "no credential at all was let in"
    assert connect(forged).reason is None, "a certificate of another authority was let in"
    assert connect(mine, user="valve-1").reason not in (0, None), "a certificate opened another device's name"
    assert connect(mine, user="pump-7").reason == 0
    assert connect(strangers, "valve-1", "valve-1", secret).reason == 0, "the password of a device counts"
    operator.put(DEVICES, "pump-7", None)
    assert until(lambda: connect(mine).reason not in (0, None)), "a removed device's certificate was let in"


def test_a_renewed_server_certificate_is_used_without_dropping_devices(
    operator: Operator, authority: Authority, port: int
) -> None:
    operator.put("__sluice_policies", "all", Policy(name="all", publish=("#",), everyone=True))
    pair = authority.issue("pump-7.example", "pump")
    operator.device("pump-7", subject="pump-7.example")
    assert until(lambda: Device311(operator.stack, "p", port=port, tls=authority.client_context(pair)).reason == 0)
    before = Device311(operator.stack, "before", port=port, tls=authority.client_context(pair))
    renewed, key = authority.issue("localhost", "renewed")
    os.replace(key, authority.folder / "server.key")
    os.replace(renewed, authority.folder / "server.crt")

    def shown() -> int:
        context = authority.client_context(pair)
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as wire:
            return int((wire.getpeercert() or {})["serialNumber"], 16)

    expected = authority.serial(authority.folder / "server.crt")
    assert until(lambda: shown() == expected)
    before.publish("still/here", b"x")
    assert not before.gone.is_set()
