"""The port between the HTTP door and the engine: who somebody is, and what became of a message.

As in `gateway.ports`: calls happen on the loop's thread, never block, and answer by receipts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gateway.ports import ConnectRequest, Fate, Identity, PublishProperties, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a request asks to have published, but for its body. `message_id` is among `properties` already."""

    topic: str
    qos: int = 1
    retain: bool = False
    message_id: str = ""
    properties: PublishProperties | None = None


class Visitor:
    """Somebody who has proved who they are, on one connection. Stands for a session in the engine, to which `state` and
    `epoch` (when it was proved) belong."""

    __slots__ = ("client_id", "epoch", "identity", "state")

    def __init__(self, client_id: str, identity: Identity, state: Any = None, epoch: int = 0) -> None:
        self.client_id = client_id
        self.identity = identity
        self.state = state
        self.epoch = epoch


class Door(Protocol):
    """What the engine does for HTTP."""

    @property
    def available(self) -> bool:
        """Whether a message would be taken now."""

    def visit(self, knock: ConnectRequest) -> Receipt[Visitor]:
        """Who is it? Fails with `Refused`. The request's client id is not looked at."""

    def still_holds(self, visitor: Visitor) -> bool:
        """Whether nothing has changed since the visit that could make another of it."""

    def publish(self, visitor: Visitor, publication: Publication, payload: bytes) -> Receipt[Fate]:
        """Settles when what was asked for is durable (QoS 0: at once). Fails with `Refused`, of which nothing was
        stored, or with `NotAcknowledged`, when the outcome is unknown."""
