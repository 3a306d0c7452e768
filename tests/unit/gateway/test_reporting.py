"""The numbers of devices that moved reach the report, whatever is done with their connections meanwhile."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.http.conversation import Conversation
from gateway.operations.reporting import Reporter
from gateway.operations.tap import TappedSession
from gateway.policy import Rights
from gateway.ports import settled
from gateway.publishing.traffic import Traffic
from gateway.sessions.connected import Connection as EngineConnection
from tests.unit.gateway.parts import FakeSession

RIGHTS = Rights((), "pump", "", unrestricted=True)


@pytest.fixture
def written() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def reporter(written: list[dict[str, Any]]) -> Reporter:
    def write(topic: str, value: bytes | None, key: bytes | None) -> Any:
        written.append(json.loads(value or b""))
        return settled(None)

    return Reporter(gateway="g", traffic=Traffic(), write=write, clock=lambda: 5.0)


def connection() -> Any:
    session: Any = FakeSession("pump")
    session.state = EngineConnection("", RIGHTS, 1.0, None)
    numbers = {"received_messages": 7, "refused_messages": 0, "sent_messages": 2, "dropped_messages": 0}
    for name, value in numbers.items():
        setattr(session, name, value)
    session.in_flight = session.waiting = 0
    return SimpleNamespace(session=session, received_bytes=70, sent_bytes=20)


def test_a_device_that_is_watched_from_one_moment_to_the_next_is_told_of_and_so_are_the_others(
    reporter: Reporter, written: list[dict[str, Any]]
) -> None:
    one = connection()
    reporter.moved([one])
    one.session = TappedSession(one.session, lambda data: None)
    assert reporter.report()
    reporter.moved([one])
    assert reporter.report()
    assert [record["devices"]["pump"][1] for record in written] == [7, 7]


def test_a_publisher_by_http_is_no_device_of_the_report(reporter: Reporter) -> None:
    conversation: Any = object.__new__(Conversation)
    conversation.state = None
    reporter.moved([SimpleNamespace(session=conversation), SimpleNamespace(session=None)])  # type: ignore[list-item]  # stand-ins
    assert not reporter.report()
