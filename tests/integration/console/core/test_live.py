"""The live socket: who may open it, what it sends, and when it ends."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.auth import AuthMiddlewareStack
from django.test import Client

from console.accounts.models import User
from console.accounts.permissions import Role
from console.live import consumer as live
from console.live.consumer import LiveConsumer
from console.live.hub import hub
from console.live.origin import KnownOrigins
from console.snapshot import Group, Picture, Topic, Totals, held

ORIGIN = "http://localhost:8000"
APPLICATION = KnownOrigins(AuthMiddlewareStack(LiveConsumer.as_asgi()), frozenset({ORIGIN}))
FIRST = Picture(
    at=1000,
    totals=Totals(in_rate=1.5, lag=3),
    topics={"a": Topic(name="a", messages=1), "b": Topic(name="b", messages=2)},
    groups={"g": Group(name="g", lag=3)},
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FRAME_SECONDS", 0.01)
    monkeypatch.setattr(live, "RECHECK_SECONDS", 0.2)
    monkeypatch.setattr(held, "_listeners", [hub.heard])
    held.replace_with(FIRST)


class Page(ApplicationCommunicator):  # type: ignore[misc]  # untyped base
    """A browser's end of the socket."""

    async def connect(self) -> tuple[bool, int | None]:
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(30)
        return answer["type"] == "websocket.accept", answer.get("code")

    async def send_to(self, text: str) -> None:
        await self.send_input({"type": "websocket.receive", "text": text})

    async def receive_from(self) -> str:
        answer = await self.receive_output(30)
        assert answer["type"] == "websocket.send", answer
        return str(answer["text"])

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(30)


def socket(client: Client | None, origin: str | None = ORIGIN) -> Page:
    cookie = client.cookies["sluice_session"].value if client else ""
    headers = [(b"cookie", f"sluice_session={cookie}".encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    return Page(APPLICATION, {"type": "websocket", "path": "/ws/live/", "headers": headers, "subprotocols": []})


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Runs an async body after the (synchronous) database fixtures."""
    return async_to_sync(test)


@pytest.mark.parametrize("origin", [None, "null", "https://elsewhere.example", "http://localhost:8000.evil.example"])
def test_a_foreign_missing_or_null_origin_is_refused(origin: str | None, signed_in: Callable[..., Client]) -> None:
    @in_loop
    async def scene() -> None:
        connected, code = await socket(client, origin).connect()
        assert (connected, code) == (False, 4403)

    client = signed_in(Role.ADMIN)
    scene()


@pytest.mark.usefixtures("database")
def test_nobody_opens_it_without_signing_in() -> None:
    @in_loop
    async def scene() -> None:
        connected, code = await socket(None).connect()
        assert (connected, code) == (False, 4401)

    scene()


def test_only_what_is_watched_and_changed_is_sent(signed_in: Callable[..., Client]) -> None:
    @in_loop
    async def scene() -> None:
        watchers = len(hub)
        page = socket(client)
        assert (await page.connect())[0]
        first = json.loads(await page.receive_from())
        assert first["cluster"]["in"] == 1.5
        assert first["rows"] == {}
        await page.send_to(json.dumps({"watch": ["topic/a", "group/g", "topic/none"]}))
        second = json.loads(await page.receive_from())
        assert second["rows"]["topic/a"]["messages"] == 1
        assert second["rows"]["group/g"]["lag"] == 3
        assert second["rows"]["topic/none"] is None
        changed = {"a": Topic(name="a", messages=5), "b": Topic(name="b", messages=9)}
        held.replace_with(Picture(at=2000, topics=changed, groups=FIRST.groups))
        third = json.loads(await page.receive_from())
        assert third["at"] == 2000
        assert third["rows"]["topic/a"] == {"messages": 5}
        assert "topic/b" not in third["rows"]
        held.replace_with(Picture(at=3000))
        fourth = json.loads(await page.receive_from())
        assert fourth["rows"]["topic/a"] is None
        await page.disconnect()
        assert len(hub) == watchers

    client = signed_in(Role.VIEWER)
    scene()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"watch": "topic/a"}', '{"watch": [1]}', '{"drop": []}', "[" * 5000, "x" * 70000]
)
def test_what_is_not_a_message_of_this_socket_ends_it(text: str, signed_in: Callable[..., Client]) -> None:
    @in_loop
    async def scene() -> None:
        page = socket(client)
        assert (await page.connect())[0]
        await page.receive_from()
        await page.send_to(text)
        ended = await page.receive_output()
        assert (ended["type"], ended["code"]) == ("websocket.close", 4400)

    client = signed_in(Role.VIEWER)
    scene()


@pytest.mark.parametrize("how", ["signs out", "is made inactive", "gets another password"])
def test_it_ends_when_its_person(how: str, signed_in: Callable[..., Client]) -> None:
    def lose() -> None:
        user = User.objects.get()
        if how == "signs out":
            client.post("/sign-out/")
        elif how == "is made inactive":
            user.is_active = False
            user.save()
        else:
            user.set_password("something else entirely")
            user.save()

    @in_loop
    async def scene() -> None:
        page = socket(client)
        assert (await page.connect())[0]
        await page.receive_from()
        await sync_to_async(lose)()
        ended = await page.receive_output(30)
        while ended["type"] == "websocket.send":
            ended = await page.receive_output(30)
        assert (ended["type"], ended["code"]) == ("websocket.close", 4401)

    client = signed_in(Role.VIEWER)
    scene()


def test_a_slow_page_skips_frames_and_gets_the_newest(
    signed_in: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    @in_loop
    async def scene() -> None:
        page = socket(client)
        assert (await page.connect())[0]
        await page.receive_from()
        for at in range(2000, 2100):
            held.replace_with(Picture(at=at))
        frames = [json.loads(await page.receive_from())]
        while frames[-1]["at"] != 2099:
            frames.append(json.loads(await page.receive_from()))
        assert len(frames) <= 3
        await page.disconnect()

    monkeypatch.setattr(live, "FRAME_SECONDS", 0.2)
    client = signed_in(Role.VIEWER)
    scene()
