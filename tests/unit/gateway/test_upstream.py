"""What the bridge leans on in amqtt's client, and what it makes of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from amqtt.mqtt.constants import QOS_1
from amqtt.mqtt.protocol.client_handler import ClientProtocolHandler
from amqtt.plugins.manager import PluginManager
from amqtt.session import IncomingApplicationMessage, Session

from gateway.bridge.upstream import WAITING, _Inbox


class Handler(ClientProtocolHandler):  # type: ignore[misc]  # amqtt has no types
    """amqtt's own flow; what it would send is kept."""

    def __init__(self, inbox: Any) -> None:
        session = Session()
        session.client_id = "c"
        session.delivered_message_queue = inbox
        context = SimpleNamespace(config=None, logger=None)
        super().__init__(PluginManager("amqtt.client.plugins", context), session)
        self.sent: list[Any] = []

    async def _send_packet(self, packet: Any) -> None:
        self.sent.append(packet)


def message(qos: int = QOS_1) -> IncomingApplicationMessage:
    return IncomingApplicationMessage(7, "a/b", qos, b"x", False)


async def test_the_library_acknowledges_only_after_the_message_was_taken() -> None:
    durable = asyncio.Event()

    async def take(topic: str, payload: bytes, qos: int, retain: bool) -> None:
        await durable.wait()

    handler = Handler(_Inbox(take, lambda error: None, lambda: None))
    flow = asyncio.create_task(handler._handle_message_flow(message()))
    await asyncio.sleep(0.05)
    assert handler.sent == []
    durable.set()
    await asyncio.wait_for(flow, 60)
    assert [packet.packet_id for packet in handler.sent] == [7]


async def test_what_could_not_be_stored_is_never_acknowledged_and_ends_the_connection() -> None:
    failures: list[BaseException] = []

    async def take(topic: str, payload: bytes, qos: int, retain: bool) -> None:
        raise RuntimeError("the log is away")

    handler = Handler(_Inbox(take, failures.append, lambda: None))
    flow = asyncio.create_task(handler._handle_message_flow(message()))
    async with asyncio.timeout(60):
        while not failures:  # noqa: ASYNC110 - what is polled is a list, not an event
            await asyncio.sleep(0.01)
    assert [str(error) for error in failures] == ["the log is away"]
    assert not flow.done()
    assert handler.sent == []
    flow.cancel()
    await asyncio.wait({flow}, timeout=60)
    assert handler.sent == []


async def test_a_flood_of_qos_0_is_bounded() -> None:
    dropped: list[int] = []

    async def take(topic: str, payload: bytes, qos: int, retain: bool) -> None:
        await asyncio.Event().wait()

    inbox = _Inbox(take, lambda error: None, lambda: dropped.append(1))
    for _ in range(WAITING + 50):
        inbox.put_nowait(message(0))
    assert len(dropped) == 50
    inbox.close()
