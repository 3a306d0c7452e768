"""What downlink routes retain: the message becomes the retained one of its MQTT topic.

Every gateway reads every record of a downlink topic, and one of them shall store it: the one that cares for the
record's partition, as for sessions, so that what comes from one partition stays in order. The others remember what
they have not seen stored, and should the one that cared die, whoever cares then stores it.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gateway import contract
from gateway.contract import RETAINED, RetainedMessage
from gateway.delivering.retained import RetainedMessages
from gateway.ports import Message, Receipt

PATIENCE = 10.0  # seconds for the gateway that cares to store it
FORGOTTEN = 120.0  # seconds after which the newest is not waited for any more: somebody else has written there since
MOST = 10_000  # topics that are waited for

Write = Callable[[str, bytes | None, bytes | None], Receipt[Any]]


class Keeping:
    """`take` for each message, in the order of its partition; `sweep` now and then."""

    def __init__(
        self, retained: RetainedMessages, write: Write, cares: Callable[[str], bool], clock: Callable[[], float]
    ) -> None:
        """`cares`: whether something of this name is in this gateway's care."""
        self._retained = retained
        self._write = write
        self._cares = cares
        self._clock = clock
        self._waiting: OrderedDict[str, tuple[float, Message]] = OrderedDict()

    def take(self, message: Message) -> None:
        self._waiting.pop(message.topic, None)
        if self._cares(_place(message)):
            self._store(message)
            return
        self._waiting[message.topic] = self._clock(), message
        if len(self._waiting) > MOST:
            self._waiting.popitem(last=False)

    def sweep(self) -> None:
        now = self._clock()
        for topic, (since, message) in list(self._waiting.items()):
            if self._retained.has(topic, message.origin, message.payload) or now > since + FORGOTTEN:
                del self._waiting[topic]
            elif now > since + PATIENCE and self._cares(_place(message)):
                del self._waiting[topic]
                self._store(message)

    def _store(self, message: Message) -> None:
        value = None
        if message.payload:
            value = contract.encode(
                RetainedMessage(
                    topic=message.topic,
                    payload=base64.b64encode(message.payload).decode(),
                    qos=message.qos,
                    expires_at=message.expires_at,
                    origin=message.origin,
                )
            )
        self._write(RETAINED, value, message.topic.encode()).waiters.append(_Stored(self, message))

    def stored(self, message: Message, receipt: Receipt[Any]) -> None:
        """It is durable, or has to be tried again unless something newer came."""
        if receipt.failure is not None and message.topic not in self._waiting:
            self._waiting[message.topic] = self._clock(), message


class _Stored:
    """Waits for the outcome of one."""

    __slots__ = ("_keeping", "_message")

    def __init__(self, keeping: Keeping, message: Message) -> None:
        self._keeping = keeping
        self._message = message

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        self._keeping.stored(self._message, receipt)


def _place(message: Message) -> str:
    topic, partition, _ = message.origin
    return f"{topic}/{partition}"
