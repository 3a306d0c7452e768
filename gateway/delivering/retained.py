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

Origin = tuple[str, int, int]


class RetainedMessages:
    """The newest retained message per topic, as the log has it."""

    def __init__(self, most: int = 200_000, most_bytes: int = 256 << 20) -> None:
        """There is room for `most` messages of `most_bytes` of payload together."""
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self.changes = 0
        self._origins: dict[str, Origin] = {}  # of those that came by a downlink route, the newest
        self._tree: Retained[tuple[int, Message]] = Retained()  # which of the changes it was

    @property
    def count(self) -> int:
        return self._tree.count

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take one record."""
        topic = key.decode("utf-8", "replace")
        if value is None:
            self._left(self._tree.remove(topic))
            self._origins.pop(topic, None)
            return
        try:
            found = contract.decode(RetainedMessage, value)
            payload = base64.b64decode(found.payload)
        except (MalformedRecord, ValueError) as error:
            log.warning("the retained message of %r is unreadable and left out: %s", topic, error)
            self._left(self._tree.remove(topic))
            return
        message = Message(
            topic,
            payload,
            found.qos,
            True,
            properties=properties_of(found.properties),
            expires_at=found.expires_at,
            sender=found.client_id or None,
        )
        if found.origin:
            self._origins[topic] = (found.origin[0], found.origin[1], found.origin[2])
        self.changes += 1
        self._bytes += len(payload)
        self._left(self._tree.set(topic, (self.changes, message)))

    def _left(self, found: tuple[int, Message] | None) -> None:
        if found is not None:
            self._bytes -= len(found[1].payload)

    def room(self, topic: str, size: int) -> bool:
        """Whether one of this size may be retained at this topic."""
        found = self._tree.get(topic)
        if found is not None:
            return self._bytes + size - len(found[1].payload) <= self._most_bytes
        return self._tree.count < self._most and self._bytes + size <= self._most_bytes

    def has(self, topic: str, origin: Origin, payload: bytes) -> bool:
        """Whether a downlink's message, or a newer one of its partition, was stored; an empty one takes away."""
        if not payload:
            return self._tree.get(topic) is None
        known = self._origins.get(topic)
        return known is not None and known[:2] == origin[:2] and known[2] >= origin[2]

    def current(self, message: Message) -> bool:
        """Whether this is what is retained at its topic still. Topics of the gateway's own are not kept here."""
        found = self._tree.get(message.topic)
        return message.topic.startswith("$") or (found is not None and found[1] is message)

    def seek(self, topic_filter: str, now: float, until: int) -> Iterator[Message | None]:
        """What a new subscription gets of what was there when `changes` was `until`, with a None now and then
        (`mqtt.topics.Retained.seek`). What came since comes as a message of its own."""
        for found in self._tree.seek(topic_filter):
            if found is None:
                yield None
            elif found[0] <= until and (found[1].expires_at is None or found[1].expires_at > now):
                yield found[1]
