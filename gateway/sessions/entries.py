"""What `__sluice_inbox` holds: the messages that persistent sessions have not finished, as entries and as records.

Two kinds of records, both keyed by client id and the number of an entry (numbers rise with every message a session
takes):

- a *chunk* is up to `CHUNK` entries of one session, written together and named after the first. A header line (JSON:
  how many, how many bytes, the newest origin per partition, ...) is followed by the entries (JSON), so that counting
  what a session has needs no look at the entries;
- a *single* is one entry that is under way, with its packet id: of QoS 2, which must be durable before it is sent, and
  then says `done` until the tail's checkpoint has passed it; of QoS 1, when a device leaves in the middle of what a
  chunk has. It stands for the entry of its number, whatever a chunk says.

An entry has all of its message but perhaps the payload: one longer than `INLINE` bytes stays where it is in the log and
is referred to by its origin (topic, partition, offset).

Pure: knows neither log nor clock.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from gateway.contract import VERSION, MalformedRecord
from gateway.headers import properties_object, properties_of
from gateway.ports import Message

CHUNK = 256  # entries
CHUNK_BYTES = 64 << 10  # of payload; one message may be larger
INLINE = 1024  # bytes of payload that are cheaper to copy than to look up again; reasoned, not measured
CHUNKS = 2  # the version of chunk records
_SUFFIX = b"\x00+"
_FRAGMENT = -1  # where a message keeps its encoded form

Origin = tuple[str, int, int]
"""(topic, partition, offset) of the record that a message is."""


class Entry:
    """One message in a session's inbox. `number` orders entries."""

    __slots__ = (
        *("chunk", "done", "identifiers", "message", "number"),
        *("packet_id", "qos", "released", "retain", "single", "size"),
    )

    def __init__(
        self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...], *, number: int = 0
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.number = number
        self.size = len(message.payload)
        self.chunk: Chunk | None = None  # the record that has it
        self.single = False  # it has a record of its own
        self.packet_id = 0
        self.released = False
        self.done = False


class Chunk:
    """A chunk record whose entries are in memory. `entries` are those that it shall have; it is `stale` when the record
    has more. `unread`: how many times it was written that the local copy hasn't seen. A chunk that is born `under_way`
    has packet ids, another never."""

    __slots__ = ("entries", "number", "stale", "under_way", "unread")

    def __init__(self, number: int, entries: dict[int, Entry], *, under_way: bool = False) -> None:
        self.number = number
        self.entries = entries
        self.under_way = under_way
        self.stale = False
        self.unread = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What can be known of a chunk without its entries. `top`: the highest number. `size`: bytes of payload. `last`:
    the newest origin of each partition. `expires`: epoch seconds when the last of them expires, 0 if any never does.
    `under_way`: they have packet ids."""

    count: int
    top: int
    size: int
    last: tuple[Origin, ...] = ()
    expires: float = 0.0
    under_way: bool = False
    claim: int = 0


# --- keys


def single_key(client_id: str, number: int) -> bytes:
    return f"{client_id}\x00{number:016x}".encode()


def chunk_key(client_id: str, number: int) -> bytes:
    return single_key(client_id, number) + _SUFFIX


def keys_of(client_id: str) -> tuple[bytes, bytes]:
    """The range, from and up to but without, that all keys of a client lie in."""
    return client_id.encode() + b"\x00", client_id.encode() + b"\x01"


def parse_key(key: bytes) -> tuple[str, int, bool]:
    """(client id, number, whether a chunk); raises MalformedRecord."""
    is_chunk = key.endswith(_SUFFIX)
    client_id, separator, number = (
        (key[: -len(_SUFFIX)] if is_chunk else key).decode("utf-8", "replace").rpartition("\x00")
    )
    try:
        if separator and client_id and "\x00" not in client_id:
            return client_id, int(number, 16), is_chunk
    except ValueError:
        pass
    raise MalformedRecord(f"inbox key {key!r}")


# --- messages


def _object(message: Message, *, whole: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"topic": message.topic, "message_qos": message.qos}
    if not whole and message.origin is not None and len(message.payload) > INLINE:
        found["size"] = len(message.payload)
    else:
        found["payload"] = base64.b64encode(message.payload).decode()
    optional = {
        "origin": list(message.origin) if message.origin is not None else None,
        "properties": properties_object(message.properties),
        "expires_at": message.expires_at,
        "sender": message.sender,
    }
    return found | {name: value for name, value in optional.items() if value}


_TEXT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: it costs more than it does


def _encode(found: Any) -> bytes:
    return _TEXT(found).encode()


def _fragment(message: Message) -> bytes:
    """The message's part of an entry, encoded once however many sessions take it."""
    if message.frames is None:
        message.frames = {}
    found = message.frames.get(_FRAGMENT)
    if found is None:
        found = message.frames[_FRAGMENT] = _encode(_object(message, whole=False))
    return bytes(found)


def _origin(found: Any) -> Origin | None:
    return None if found is None else (str(found[0]), int(found[1]), int(found[2]))


def _message(found: dict[str, Any], retain: bool) -> tuple[Message, int]:
    """(the message, the size of its payload or -1 when it has it)."""
    missing = "payload" not in found
    message = Message(
        found["topic"],
        b"" if missing else base64.b64decode(found["payload"]),
        int(found["message_qos"]),
        retain,
        properties=properties_of(found.get("properties") or {}),
        expires_at=found.get("expires_at"),
        sender=found.get("sender"),
        origin=_origin(found.get("origin")),
    )
    return message, int(found["size"]) if missing else -1


# --- chunks


def split(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Runs of entries that fit into a chunk each; those under way apart from those that wait."""
    found: list[list[Entry]] = []
    size = 0
    for entry in entries:
        if (
            not found
            or len(found[-1]) >= CHUNK
            or size + entry.size > CHUNK_BYTES
            or bool(entry.packet_id) != bool(found[-1][-1].packet_id)
        ):
            found.append([])
            size = 0
        found[-1].append(entry)
        size += entry.size
    return found


def encode_chunk(number: int, entries: Sequence[Entry], claim: int = 0, *, under_way: bool = False) -> bytes:
    """The chunk of this number, which is at most the first entry's. `under_way`: with packet ids, and, since
    they are needed as soon as their gateway starts, with all payloads."""
    last: dict[tuple[str, int], int] = {}
    size, expires = 0, 0.0
    for entry in entries:
        origin, end = entry.message.origin, entry.message.expires_at
        if origin is not None and origin[2] >= last.get(origin[:2], -1):
            last[origin[:2]] = origin[2]
        size += entry.size
        expires = max(expires, end) if end is not None and expires >= 0 else -1.0
    header = {
        "v": CHUNKS,
        "claim": claim,
        "n": len(entries),
        "top": entries[-1].number,
        "size": size,
        "last": [[*place, offset] for place, offset in last.items()],
        "expires": max(expires, 0.0),
        "under_way": under_way,
    }
    parts = []
    for entry in entries:
        identifiers = str(list(entry.identifiers)) if entry.identifiers else "0"
        state = entry.packet_id << 1 | entry.released if under_way else 0
        message = _encode(_object(entry.message, whole=True)) if under_way else _fragment(entry.message)
        parts.append(
            f"[{entry.number - number},{entry.qos},{int(entry.retain)},{identifiers},{state},".encode() + message + b"]"
        )
    return _encode(header) + b"\n[" + b",".join(parts) + b"]"


def decode_header(value: bytes) -> Header:
    """Raises MalformedRecord."""
    try:
        found = json.loads(value[: value.index(b"\n")])
        if found.get("v") != CHUNKS:
            raise MalformedRecord(f"inbox chunk version {found.get('v')!r}")
        return Header(
            count=int(found["n"]),
            top=int(found["top"]),
            size=int(found["size"]),
            last=tuple((str(topic), int(partition), int(offset)) for topic, partition, offset in found["last"]),
            expires=float(found["expires"]),
            under_way=bool(found["under_way"]),
            claim=int(found["claim"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedRecord(f"inbox chunk: {error}") from error


def decode_chunk(number: int, value: bytes) -> tuple[list[Entry], list[tuple[Entry, int]]]:
    """(the entries of the chunk of this number, those of them whose payload must be looked up, with its size).
    Raises MalformedRecord."""
    try:
        decode_header(value)
        entries, missing = [], []
        for delta, qos, retain, identifiers, state, found in json.loads(value[value.index(b"\n") :]):
            message, size = _message(found, bool(retain))
            entry = Entry(message, int(qos), bool(retain), tuple(identifiers or ()), number=number + int(delta))
            entry.packet_id, entry.released = int(state) >> 1, bool(int(state) & 1)
            if size >= 0:
                entry.size = size
                missing.append((entry, size))
            entries.append(entry)
        return entries, missing
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MalformedRecord(f"inbox chunk: {error}") from error


def without(number: int, value: bytes, hidden: Set[int]) -> bytes | None:
    """The chunk of this number less the entries of those numbers, payloads or references as they are; None when nothing
    is left. Raises MalformedRecord."""
    header = decode_header(value)
    try:
        kept = [each for each in json.loads(value[value.index(b"\n") :]) if number + int(each[0]) not in hidden]
        sizes = [
            int(each[5]["size"]) if "size" in each[5] else len(base64.b64decode(each[5]["payload"])) for each in kept
        ]
        changed = json.loads(value[: value.index(b"\n")]) | {"n": len(kept), "size": sum(sizes)}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MalformedRecord(f"inbox chunk: {error}") from error
    if len(kept) == header.count:
        return value
    return _encode(changed) + b"\n" + _encode(kept) if kept else None


def waiting(number: int, value: bytes, hidden: Set[int]) -> bytes | None:
    """The chunk of this number as one that is not under way, less the entries of those numbers; None when nothing is
    left. Raises MalformedRecord."""
    kept = without(number, value, hidden)
    if kept is None:
        return None
    header, _, entries = kept.partition(b"\n")
    try:
        return (
            _encode(json.loads(header) | {"under_way": False})
            + b"\n"
            + _encode([[*each[:4], 0, *each[5:]] for each in json.loads(entries)])
        )
    except (ValueError, TypeError) as error:
        raise MalformedRecord(f"inbox chunk: {error}") from error


# --- singles


def encode_single(entry: Entry, claim: int = 0) -> bytes:
    message = entry.message
    found: dict[str, Any] = {"v": VERSION, "qos": entry.qos, "claim": claim}
    if entry.done:
        found["done"] = True
        if message.origin is not None:
            found["origin"] = list(message.origin)
        return _encode(found)
    found |= _object(message, whole=True)
    found["retain"] = entry.retain
    optional: dict[str, Any] = {
        "packet_id": entry.packet_id,
        "released": entry.released,
        "identifiers": list(entry.identifiers),
    }
    return _encode(found | {name: value for name, value in optional.items() if value})


def decode_single(number: int, value: bytes) -> tuple[Entry | None, Origin | None]:
    """(entry, or None if it is done; its origin). Raises MalformedRecord."""
    try:
        found = json.loads(value)
        if found.get("v") != VERSION:
            raise MalformedRecord(f"inbox record version {found.get('v')!r}")
        origin = _origin(found.get("origin"))
        if found.get("done"):
            return None, origin
        message, _ = _message(found, bool(found["retain"]))
        identifiers = tuple(found.get("identifiers", ()))
        entry = Entry(message, int(found["qos"]), bool(found["retain"]), identifiers, number=number)
        entry.packet_id = int(found.get("packet_id", 0))
        entry.released = bool(found.get("released", False))
        return entry, origin
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MalformedRecord(f"inbox record: {error}") from error
