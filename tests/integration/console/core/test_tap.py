"""Watching a device's packets, from the socket through the gateway to the device; who may, and how it ends."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from django.test import Client

from console.accounts.models import User
from console.accounts.permissions import Role
from console.audit.models import Entry
from console.live import tap
from console.live.origin import KnownOrigins
from console.live.tap import TapConsumer
from tests.integration.console.core.conftest import ROOT, eventually
from tests.integration.console.core.test_live import OPEN, ORIGIN, Page, in_loop
from tests.ports import free_port

APPLICATION = KnownOrigins(AuthMiddlewareStack(TapConsumer.as_asgi()), frozenset({ORIGIN}))


class Gateway:
    """`python -m gateway` beside the session's broker, to be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        self._log = data / "gateway.out"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self._environ = environ | {
            "SLUICE_DATA": str(data),
            "SLUICE_MQTT_LISTENERS": f"mqtt://127.0.0.1:{self.port}",
            "SLUICE_GATEWAY_NAME": "tapped",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        began = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway"], cwd=ROOT, env=self._environ, stdout=output, stderr=output
            )
        eventually(lambda: b"message=ready" in self._log.read_bytes()[began:])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def gateway(broker: str, data_folder: Path) -> Iterator[Gateway]:
    made = Gateway(data_folder)
    made.start()
    yield made
    made.kill()


def device(gateway: Gateway, client_id: str) -> paho.Client:
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id)
    made.connect("127.0.0.1", gateway.port)
    made.loop_start()
    eventually(made.is_connected)
    return made


def socket(client: Client) -> Page:
    headers = [
        (b"cookie", f"sluice_session={client.cookies['sluice_session'].value}".encode()),
        (b"origin", ORIGIN.encode()),
    ]
    page = Page(APPLICATION, {"type": "websocket", "path": "/ws/tap/", "headers": headers, "subprotocols": []})
    OPEN.append(page)
    return page


async def told(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await page.receive_from())
    return found


async def seen(page: Page, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Rows until one is wanted."""
    rows: list[dict[str, Any]] = []
    while not any(map(wanted, rows)):
        rows += (await told(page)).get("rows", ())
    return rows


async def watching(client: Client, client_id: str, seconds: float = 60) -> Page:
    page = socket(client)
    assert (await page.connect())[0]
    await page.send_to(json.dumps({"tap": {"client": client_id, "seconds": seconds}}))
    assert "began" in await told(page)
    return page


def changes(client_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [(entry.action, entry.after) for entry in Entry.objects.filter(name=client_id).order_by("id")]


def test_an_operator_sees_a_device_s_packets_and_both_ends_are_audited(
    gateway: Gateway, signed_in: Callable[..., Client], unique: str
) -> None:
    @in_loop
    async def scene() -> None:
        page = await watching(operator, unique)
        await seen(page, lambda row: row["type"] == "connected")
        pump.publish("plant/7", b"21.5", qos=1)
        rows = await seen(page, lambda row: row["type"] == "PUBACK")
        published = next(row for row in rows if row["type"] == "PUBLISH")
        assert (published["way"], published["topic"], published["payload"]) == ("in", "plant/7", "21.5")
        await page.send_to(json.dumps({"stop": {}}))
        while "ended" not in (last := await told(page)):
            pass
        assert last["ended"] == "stopped"

    operator = signed_in(Role.OPERATOR)
    pump = device(gateway, unique)
    scene()
    found = eventually(lambda: len(changes(unique)) == 2 and changes(unique))
    assert [action for action, _ in found] == ["client.tap", "client.tap.stop"]
    assert found[0][1]["seconds"] == 60
    assert found[1][1]["rows"] >= 2
    pump.disconnect()


def test_it_ends_when_its_time_is_up_and_when_the_gateway_is_killed(
    gateway: Gateway, signed_in: Callable[..., Client], unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "SILENCE_SECONDS", 3.0)

    @in_loop
    async def scene() -> None:
        short = await watching(client, unique, seconds=1)
        while "ended" not in (last := await told(short)):
            pass
        assert last["ended"] == "time"
        page = await watching(client, unique)
        await told(page)
        await sync_to_async(gateway.kill)()
        while "ended" not in (last := await told(page)):
            pass
        assert last["ended"] == "silence"

    client = signed_in(Role.ADMIN)
    try:
        scene()
    finally:
        gateway.start()
    assert eventually(lambda: [action for action, _ in changes(unique)].count("client.tap.stop") == 2)


def test_a_viewer_may_not_and_a_lost_role_ends_it(
    gateway: Gateway, signed_in: Callable[..., Client], unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "RENEW_SECONDS", 0.3)

    @in_loop
    async def scene() -> None:
        connected, code = await socket(viewer).connect()
        assert (connected, code) == (False, 4401)
        page = await watching(operator, unique)
        await User.objects.filter(role=Role.OPERATOR).aupdate(role=Role.VIEWER)
        while "ended" not in (last := await told(page)):
            pass
        assert last["ended"] == "access"

    viewer, operator = signed_in(Role.VIEWER), signed_in(Role.OPERATOR)
    scene()
    assert eventually(lambda: "client.tap.stop" in [action for action, _ in changes(unique)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tap": 1}', '{"tap": {"client": "", "seconds": 5}}', '{"stop": {}}',
                                  '{"tap": {"client": "x", "seconds": 601}}', '{"watch": []}'])  # fmt: skip
def test_what_is_no_message_of_it_ends_the_socket(signed_in: Callable[..., Client], text: str) -> None:
    @in_loop
    async def scene() -> None:
        page = socket(client)
        assert (await page.connect())[0]
        await page.send_to(text)
        answer = await page.receive_output(30)
        assert (answer["type"], answer["code"]) == ("websocket.close", 4400)

    client = signed_in(Role.OPERATOR)
    scene()


def test_the_page_is_there_for_who_may_and_names_the_client(signed_in: Callable[..., Client]) -> None:
    address = "/clients/pump~2F7/tap/"
    page = signed_in(Role.OPERATOR).get(address).content.decode()
    assert 'data-client="pump/7"' in page
    assert signed_in(Role.VIEWER).get(address).status_code == 403


def test_the_gateway_that_holds_a_session_says_what_it_is_subscribed_to_and_what_waits_longest(
    gateway: Gateway, signed_in: Callable[..., Client], unique: str
) -> None:
    def told() -> str:
        return viewer.get(f"/clients/{unique}/session/").content.decode()

    viewer = signed_in(Role.VIEWER)
    pump = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=unique, clean_session=False)
    pump.connect("127.0.0.1", gateway.port)
    pump.loop_start()
    eventually(pump.is_connected)
    pump.subscribe([(f"{unique}/#", 1), ("<b>/x", 0)])
    page = eventually(lambda: (text := told()) and f"{unique}/#" in text and text)
    assert "&lt;b&gt;/x" in page
    assert "Waits longest" not in page
    pump.disconnect()
    pump.loop_stop()
    other = device(gateway, f"{unique}-other")
    other.publish(f"{unique}/first", b"1", qos=1).wait_for_publish(60)
    other.publish(f"{unique}/second", b"2", qos=1).wait_for_publish(60)
    page = eventually(lambda: "Waits longest" in (text := told()) and "2 queued" in text and text)
    assert f"{unique}/first" in page
    assert re.search(r"/topics/mqtt.messages/messages/\d+/\d+/", page)
    assert f"{unique}/second" not in page
    assert "No gateway answered" in viewer.get("/clients/nobody-at-all/session/").content.decode()
    other.disconnect()
