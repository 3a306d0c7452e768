"""The consumer protocol inside JoinGroup and SyncGroup: what clients embed there, read only as far as needed.

A client may put anything into these bytes; what does not parse counts as no subscription at all.
"""

from __future__ import annotations

from broker.wire import codec

SUBSCRIPTION = "ConsumerProtocolSubscription"
ASSIGNMENT = "ConsumerProtocolAssignment"
ConsumerProtocolAssignment = codec.struct(ASSIGNMENT)
ConsumerProtocolTopic = codec.struct(f"{ASSIGNMENT}.TopicPartition")

_HIGHEST = 3


def decode_embedded(name: str, data: bytes) -> codec.Struct | None:
    """A versioned struct (int16 version, then the message), or None where the bytes are no such thing."""
    if len(data) < 2:
        return None
    version = int.from_bytes(data[:2], "big", signed=True)
    if version < 0:
        return None
    try:
        return codec.decode(name, min(version, _HIGHEST), memoryview(data)[2:])
    except codec.Malformed:
        return None


def encode_embedded(message: codec.Struct, version: int) -> bytes:
    """The versioned form of the message."""
    return version.to_bytes(2, "big") + codec.encode(message, version)


def embedded_version(data: bytes) -> int:
    """The version the bytes are in, as far as it is known here."""
    return max(0, min(int.from_bytes(data[:2], "big", signed=True), _HIGHEST)) if len(data) >= 2 else 0


def subscribed_topics(metadata: bytes) -> frozenset[str]:
    """Topics a member of the consumer protocol has subscribed to."""
    parsed = decode_embedded(SUBSCRIPTION, metadata)
    return frozenset() if parsed is None else frozenset(parsed.topics)
