"""What is handed to a producer, and what comes back of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.client.errors import ClientError, TimedOut

OutgoingHeaders = list[tuple[str, str | bytes | None]]

PlacedAt = Callable[[str, int, int, int, int], None]
"""Called with topic, partition, offset and timestamp (epoch milliseconds) of a message that is durable, and 1. Messages
that follow upon each other in a partition and were given the same object are told of together: the place of the first,
and how many they are."""

Sending = tuple[str, bytes | None, bytes | None, OutgoingHeaders | None, PlacedAt | None, int]
"""Topic, value, key, headers, who wants to know the place, and the partition (-1: the key's)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One message of a batch that was not acknowledged."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    error: ClientError

    @property
    def unknown(self) -> bool:
        """Whether the log may hold the message all the same."""
        return isinstance(self.error, TimedOut)
