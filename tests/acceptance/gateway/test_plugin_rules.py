"""amqtt plugins decide in a running gateway, about connections and about topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.acceptance.gateway.people import Device311, operating, until
from tests.acceptance.gateway.stack import Stack


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[Stack]:
    users = tmp_path / "users"
    users.write_text("".join(f"{name}:{PasswordHasher().hash('right')}\n" for name in ("alice", "admin")))
    plugins = tmp_path / "plugins.json"
    plugins.write_text(
        json.dumps(
            {
                "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(users)},
                "amqtt.plugins.topic_checking.TopicTabooPlugin": {},
            }
        )
    )
    stack = Stack(tmp_path, SLUICE_MQTT_PLUGINS=str(plugins))
    try:
        yield stack.start()
    finally:
        stack.stop()


def test_plugins_decide_who_connects_and_what_is_published_subscribed_and_received(ruled: Stack) -> None:
    assert Device311(ruled, "x", "alice", "wrong").reason not in (0, None)
    assert Device311(ruled, "w", "alice", "right", will=("prohibited", b"denied")).reason not in (0, None)
    alice = Device311(ruled, "alice", "alice", "right", clean=False)
    admin = Device311(ruled, "admin", "admin", "right")
    assert (alice.reason, admin.reason) == (0, 0)
    assert alice.subscribe("prohibited", "fine") == [0x80, 1]
    assert alice.subscribe("#") == [1] and admin.subscribe("#") == [1]
    alice.publish("prohibited", b"denied")
    alice.publish("fine", b"one")
    alice.publish("prohibited", b"denied")
    alice.publish("fine", b"two", qos=2)
    admin.publish("top-secret", b"for admin")
    admin.publish("fine", b"end")
    assert until(lambda: ("fine", b"end") in admin.received and ("fine", b"end") in alice.received)
    assert alice.received == [("fine", b"one"), ("fine", b"two"), ("fine", b"end")]
    assert ("top-secret", b"for admin") in admin.received
    with operating(ruled) as operator:
        assert [each.value for each in operator.records("mqtt.messages")].count(b"denied") == 0
    alice.close()
    assert not Device311(ruled, "alice", "alice", "right", clean=False).session_present
