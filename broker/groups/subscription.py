"""The consumer protocol inside JoinGroup and SyncGroup: what clients embed there, read only as far as needed.

A client may put anything into these bytes; what does not parse counts as no subscription at all.
"""

from __future__ import annotations

from broker.wire import codec

_HIGHEST = 3


def decode_embedded(name: str, data: bytes) -> codec.Struct | None:
    """A versioned struct (int16 version, then the message), or None where the bytes are no such thing."""
    if len(data) < 2:
        return None
    version = int.from_bytes(data[:2], "big", signed=True)
    if version < 0:
        return None
    if version <= _HIGHEST:
        try:
            return codec.decode(name, version, memoryview(data)[2:])
        except codec.Malformed:
            return None
    return None


def encode_embedded(message: codec.Struct, version: int) -> bytes:
    """The versioned form of the message."""
    return version.to_bytes(2, "big") + codec.encode(message, version)


def subscribed_topics(metadata: bytes) -> frozenset[str]:
    """Topics a member of the consumer protocol has subscribed to."""
    parsed = decode_embedded("ConsumerProtocolSubscription", metadata)
    return frozenset() if parsed is None else frozenset(parsed.topics)
