"""Retained messages: `__sluice_retained`, compacted, in memory as a tree of MQTT topics."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator

from gateway import contract
from gateway.contract import MalformedRecord, RetainedMessage
from gateway.headers import properties_of
from gateway.mqtt.topics import Retained
from gateway.ports import Message

log = logging.getLogger("gateway.retained")


class RetainedMessages:
    """The newest retained message per topic, as the log has it."""

    def __init__(self) -> None:
        self._tree: Retained[Message] = Retained()

    @property
    def count(self) -> int:
        return self._tree.count

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take one record."""
        topic = key.decode("utf-8", "replace")
        if value is None:
            self._tree.remove(topic)
            return
        try:
            found = contract.decode(RetainedMessage, value)
            payload = base64.b64decode(found.payload)
        except (MalformedRecord, ValueError) as error:
            log.warning("the retained message of %r is unreadable and left out: %s", topic, error)
            self._tree.remove(topic)
            return
        self._tree.set(
            topic,
            Message(
                topic,
                payload,
                found.qos,
                True,
                properties=properties_of(found.properties),
                expires_at=found.expires_at,
                sender=found.client_id or None,
            ),
        )

    def current(self, message: Message) -> bool:
        """Whether this is what is retained at its topic still. Topics of the gateway's own are not kept here."""
        return message.topic.startswith("$") or self._tree.get(message.topic) is message

    def match(self, topic_filter: str, now: float) -> Iterator[Message]:
        """What a new subscription gets."""
        for message in self._tree.match(topic_filter):
            if message.expires_at is None or message.expires_at > now:
                yield message
