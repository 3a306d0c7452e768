"""Messages of the Kafka protocol: classes, decoders and encoders made from the schema on first use.

How to use it (conventions others build on):

- `codec.struct("FetchResponse")` is the class of a message, `codec.struct("FetchResponse.PartitionData")` that of
  a struct inside it (`<message>.<struct name in Kafka's definition>`; depth doesn't matter, names are unique within
  a message). Classes are slotted and mutable, made once, the same for every version.
- Constructors take keywords only. Fields left out get the schema's default: 0, False, "", b"", [], a zero uuid
  (16 zero bytes), a default struct, or None where the schema says null. A *tagged struct* field that isn't there
  (Fetch's `current_leader`, `diverging_epoch`, `snapshot_id`) is None, in constructors and after decoding.
- Field names are snake_case of Kafka's: `ThrottleTimeMs` -> `throttle_time_ms`, `TopicId` -> `topic_id`.
- Values: ints; `bool`; `str`; `bytes` (any bytes-like on encode); uuid = 16 `bytes`; `float`; list of these; None
  where nullable. A `records` field decodes to a `memoryview` into the frame (no copy) and encodes from any
  bytes-like object or from a *list of* bytes-like objects (written one after another, e.g. slices of a segment).
  A memoryview must be of single bytes.
- A class knows every field of every version. Encoding writes the fields the version has and drops the others;
  decoding gives fields the version lacks their default. So a handler fills in everything it knows, once, for all
  versions (e.g. both `topic` and `topic_id`).
- In an array of structs an element may be `bytes` instead of a struct: an element encoded before, for this very
  version, with `codec.encode(element, version)`. It is copied as it is (cached metadata, empty fetch partitions).
- Unknown tagged fields are checked for length and dropped: a broker forwards no requests. Known tagged fields are
  written only when they differ from their default.
- Equality and repr go by value, over all fields.

Errors: `Malformed` is the peer's doing (bytes that don't parse); `schema.UnsupportedVersion` asks for a version the
definitions don't have; `TypeError` (`encoder.NullNotAllowed`), `struct.error`, `AttributeError` out of `encode` are
bugs of ours (None where the version is not nullable, an int out of range).
"""

import struct as packing
from typing import Any, TypeAlias

from broker.wire import decoder, encoder, schema
from broker.wire.classes import Struct, struct

__all__ = ["Buffer", "Malformed", "Struct", "decode", "encode", "encode_vectored", "struct"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Malformed(ValueError):
    """Bytes that are no message of the named type and version."""


def encode(message: Struct, version: int) -> bytes:
    """The message's bytes, without header and length prefix. Also for a struct in a message."""
    out: list[Any] = []
    write = message._encoders.get(version) or _encoder(message, version)
    write(message, out, [])
    return b"".join(out)


def encode_vectored(message: Struct, version: int) -> list[Buffer]:
    """The message as buffers to be written one after another; large `records` are passed on uncopied."""
    out: list[Any] = []
    cuts: list[int] = []
    write = message._encoders.get(version) or _encoder(message, version)
    write(message, out, cuts)
    if not cuts:
        return [b"".join(out)]
    buffers: list[Buffer] = []
    start = 0
    for cut in cuts:
        if cut > start:
            buffers.append(b"".join(out[start:cut]))
        buffers.append(out[cut])
        start = cut + 1
    if start < len(out):
        buffers.append(b"".join(out[start:]))
    return buffers


def decode(name: str, version: int, data: Buffer, *, exact: bool = True) -> Struct:
    """The message `name` of `version` that fills `data` exactly; raises `Malformed`.

    With `exact` false, bytes after the message are ignored.

    A returned `records` field is a view of `data`; everything else is copied.
    """
    known = _decoders.get((name, version)) or _decoder(name, version)
    read, views = known
    if views:
        data = memoryview(data)
    elif data.__class__ is not bytes:
        data = bytes(data)
    end = len(data)
    try:
        message, position = read(data, 0, end)
    except (IndexError, ValueError, packing.error) as error:
        raise Malformed(f"{name} v{version}: {error}") from None
    if exact and position != end:
        raise Malformed(f"{name} v{version}: {end - position} bytes left over")
    found: Struct = message
    return found


_decoders: dict[tuple[str, int], tuple[decoder.Decoder, bool]] = {}


def _decoder(name: str, version: int) -> tuple[decoder.Decoder, bool]:
    _check(name, version)
    made = decoder.make(name, version), decoder.views(name.partition(".")[0])
    _decoders[name, version] = made
    return made


def _encoder(message: Struct, version: int) -> encoder.Encoder:
    _check(message._message, version)
    made = message._encoders[version] = encoder.make(message._message, version)
    return made


def _check(name: str, version: int) -> None:
    if version not in schema.message(name).versions:
        raise schema.UnsupportedVersion(f"{name} has no version {version}")
