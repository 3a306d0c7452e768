"""Messages of the Kafka protocol: classes, decoders and encoders made from the schema on first use.

How to use it (conventions others build on):

- `codec.struct("FetchResponse")` is the class of a message, `codec.struct("FetchResponse.PartitionData")` that of
  a struct inside it (`<message>.<struct name in Kafka's definition>`; depth doesn't matter, names are unique within
  a message). Classes are slotted and mutable, made once, the same for every version; ask for them at module level:
  `FetchResponse = codec.struct("FetchResponse")`.
- Constructors take keywords only. Fields left out get the schema's default: 0, False, "", b"", [], a zero uuid
  (16 zero bytes), a default struct, or None where the schema says null.
- Field names are snake_case of Kafka's: `ThrottleTimeMs` -> `throttle_time_ms`, `TopicId` -> `topic_id`.
- Values: ints; `bool`; `str`; `bytes` (type `bytes`; any bytes-like on encode); uuid = 16 `bytes`; `float`; list of
  these; None where nullable. A `records` field decodes to a `memoryview` into the frame (no copy) and encodes from
  any bytes-like object or from a *list of* bytes-like objects (written one after another, e.g. slices of a segment).
- A class knows every field of every version. Encoding writes the fields the version has and drops the others;
  decoding gives fields the version lacks their default. So a handler fills in everything it knows, once, for all
  versions (e.g. both `topic` and `topic_id`).
- In an array of structs an element may be `bytes` instead of a struct: an element encoded before, for this very
  version, with `codec.encode(element, version)`. It is copied as it is (cached metadata, empty fetch partitions).
- Unknown tagged fields are checked for length and dropped. Known tagged fields are written only when they differ
  from their default.
- Equality and repr go by value, over all fields.

Errors: `Malformed` is the peer's doing (bytes that don't parse); `schema.UnsupportedVersion` asks for a version the
definitions don't have; `TypeError`, `struct.error`, `AttributeError` out of `encode` are bugs of ours (a string where
an int belongs, None where the version is not nullable, an int out of range).
"""

from typing import TYPE_CHECKING, Any, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class Malformed(ValueError):
    """Bytes that are no message of the named type and version."""


class Struct:
    """Base of every generated message class."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


def struct(name: str) -> type[Struct]:
    """The class of a message (`"FetchResponse"`) or of a struct in it (`"FetchResponse.PartitionData"`)."""
    raise NotImplementedError


def encode(message: Struct, version: int) -> bytes:
    """The message's bytes, without header and length prefix."""
    raise NotImplementedError


def encode_vectored(message: Struct, version: int) -> list[Buffer]:
    """The message as buffers to be written one after another; `records` are passed on uncopied."""
    raise NotImplementedError


def decode(name: str, version: int, data: Buffer) -> Struct:
    """The message `name` of `version` that fills `data` exactly; raises `Malformed`."""
    raise NotImplementedError
