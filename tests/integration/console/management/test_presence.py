"""The monitor keeps the table of clients in step with the gateways' topic."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from console import kafka
from console.devices import presence as table
from console.devices.models import Presence as Row
from console.monitor.presence import Presence
from console.outbox.delivery import _ensure
from gateway import contract

from .conftest import Broker


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_clients_come_and_go_in_the_table_and_strangers_are_forgotten(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread's writes are collected: the test's transaction is not visible to another connection."""
    kept: dict[str, contract.Presence | None] = {}
    forgotten: list[set[str]] = []
    monkeypatch.setattr(table, "keep", kept.update)
    monkeypatch.setattr(table, "forget_others", lambda known: forgotten.append(set(known)))
    _ensure(contract.PRESENCE)
    one = contract.Presence(client_id="one", online=True, since=time.time(), gateway="g")
    two = contract.Presence(client_id="two", online=False, since=time.time(), gateway="g", reason="gone")
    for each in (one, two):
        kafka.send(contract.PRESENCE, contract.encode(each), each.client_id.encode(), partition=0)
    kafka.send(contract.PRESENCE, b"not json", b"broken", partition=0)
    follower = Presence()
    follower.start()
    try:
        until(lambda: follower.online == 1)
        assert forgotten == [{"one", "two"}]
        three = contract.Presence(client_id="three", online=True, since=time.time(), gateway="g")
        kafka.send(contract.PRESENCE, contract.encode(three), b"three", partition=0)
        kafka.send(contract.PRESENCE, None, b"one", partition=0)
        until(lambda: kept.get("three") == three and kept.get("one", one) is None)
        assert follower.online == 1
    finally:
        follower.stop()
    assert not Row.objects.exists()
