"""How much may be retained."""

from __future__ import annotations

from base64 import b64encode

from gateway import contract
from gateway.delivering.retained import RetainedMessages


def keep(messages: RetainedMessages, topic: str, payload: bytes) -> None:
    record = contract.RetainedMessage(topic=topic, payload=b64encode(payload).decode(), qos=0, client_id="c")
    messages.apply(topic.encode(), contract.encode(record) if payload else None)


def test_retained_topics_are_so_many_and_no_more() -> None:
    messages = RetainedMessages(2, 1_000)
    for topic in ("a", "b"):
        assert messages.room(topic, 1)
        keep(messages, topic, b"x")
    assert not messages.room("c", 1) and messages.room("a", 1), "a topic that has one may have another"
    keep(messages, "a", b"")
    assert messages.room("c", 1)


def test_retained_bytes_are_so_many_and_no_more() -> None:
    messages = RetainedMessages(100, 10)
    keep(messages, "a", b"x" * 6)
    assert messages.room("b", 4) and not messages.room("b", 5)
    assert messages.room("a", 10) and not messages.room("a", 11)
    keep(messages, "a", b"x")
    assert messages.room("b", 9)
    messages.apply(b"a", b"rubbish")
    assert messages.room("b", 10)
