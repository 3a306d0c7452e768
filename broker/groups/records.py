"""Records of `__consumer_offsets`: what group coordination keeps durable, and how it is spelled.

A key begins with a big-endian int16, its kind. Kind 1, a committed offset, is laid out as Apache Kafka lays it out
(key version 1, value version 3), so that tools which read such topics understand it. The other kinds are our own:
the rest of the key is a JSON list, the value a JSON object with its version in `v`. A kind or version that is not
known raises `UnknownRecord`: state written by a newer release must not be dropped silently.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

from broker.groups.classic_state import Member, Snapshot
from broker.groups.ports import StateRecord

OFFSET = 1
PENDING_OFFSET = 100
CLASSIC_GROUP = 101
CONSUMER_GROUP = 102
CONSUMER_MEMBER = 103
SHARE_GROUP = 104
SHARE_MEMBER = 105

_VERSION = 1
_KIND = struct.Struct(">h")
_LENGTH = struct.Struct(">h")
_PARTITION = struct.Struct(">i")
_OFFSET_HEAD = struct.Struct(">hqi")
_TIMESTAMP = struct.Struct(">q")


class UnknownRecord(Exception):
    """A state record of a kind or version this release does not know."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset."""

    offset: int
    leader_epoch: int
    metadata: str
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetKey:
    """Where a committed offset belongs."""

    group: str
    topic: str
    partition: int


def _text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    at += 2
    return data[at : at + length].decode(), at + length


def offset_record(group: str, topic: str, partition: int, committed: Committed | None) -> StateRecord:
    """A committed offset, or with None its tombstone."""
    key = _KIND.pack(OFFSET) + _text(group) + _text(topic) + _PARTITION.pack(partition)
    return key, None if committed is None else _offset_value(committed)


def _offset_value(committed: Committed) -> bytes:
    return (
        _OFFSET_HEAD.pack(3, committed.offset, committed.leader_epoch)
        + _text(committed.metadata)
        + _TIMESTAMP.pack(committed.timestamp)
    )


def read_offset_key(key: bytes) -> OffsetKey:
    """Key of a kind 1 record."""
    group, at = _read_text(key, 2)
    topic, at = _read_text(key, at)
    (partition,) = _PARTITION.unpack_from(key, at)
    return OffsetKey(group=group, topic=topic, partition=partition)


def read_offset(value: bytes) -> Committed:
    """Value of a kind 1 or pending record."""
    version, offset, leader_epoch = _OFFSET_HEAD.unpack_from(value)
    if version != 3:
        raise UnknownRecord(f"committed offset of version {version}")
    metadata, at = _read_text(value, _OFFSET_HEAD.size)
    (timestamp,) = _TIMESTAMP.unpack_from(value, at)
    return Committed(offset, leader_epoch, metadata, timestamp)


def pending_offset_record(
    group: str, producer_id: int, topic: str, partition: int, committed: Committed | None
) -> StateRecord:
    """An offset staged in a transaction that has not ended, or its tombstone."""
    key = own_key(PENDING_OFFSET, group, producer_id, topic, partition)
    return key, None if committed is None else _offset_value(committed)


def own_key(kind: int, *parts: str | int) -> bytes:
    """Key of one of our own kinds."""
    return _KIND.pack(kind) + json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()


def read_key(key: bytes) -> tuple[int, list[Any]]:
    """Kind and parts of a key; the parts of kind 1 are left to `read_offset_key`."""
    (kind,) = _KIND.unpack_from(key)
    if kind == OFFSET:
        return kind, []
    if not PENDING_OFFSET <= kind <= SHARE_MEMBER:
        raise UnknownRecord(f"group state record of kind {kind}")
    return kind, json.loads(key[2:])


def own_value(fields: dict[str, Any]) -> bytes:
    """Value of one of our own kinds."""
    return json.dumps({"v": _VERSION, **fields}, separators=(",", ":"), ensure_ascii=False).encode()


def read_value(value: bytes) -> dict[str, Any]:
    """Fields of an own value."""
    fields: dict[str, Any] = json.loads(value)
    if fields.get("v") != _VERSION:
        raise UnknownRecord(f"group state record of version {fields.get('v')!r}")
    return fields


def pack(data: bytes) -> str:
    """Bytes inside JSON."""
    return base64.b64encode(data).decode()


def unpack(text: str) -> bytes:
    """What `pack` packed."""
    return base64.b64decode(text)


def classic_record(group_id: str, snapshot: Snapshot | None) -> StateRecord:
    """A classic group's last generation, or its tombstone."""
    key = own_key(CLASSIC_GROUP, group_id)
    if snapshot is None:
        return key, None
    return key, own_value(
        {
            "generation": snapshot.generation,
            "type": snapshot.protocol_type,
            "protocol": snapshot.protocol,
            "leader": snapshot.leader,
            "at": snapshot.changed_at,
            "members": [
                {
                    "id": m.id,
                    "instance": m.instance_id,
                    "client": m.client_id,
                    "host": m.client_host,
                    "session": m.session_timeout_ms,
                    "rebalance": m.rebalance_timeout_ms,
                    "protocols": [[name, pack(metadata)] for name, metadata in m.protocols],
                    "assignment": pack(m.assignment),
                    "skip": m.skip_assignment,
                }
                for m in snapshot.members
            ],
        }
    )


def read_classic(group_id: str, value: bytes) -> Snapshot:
    """What `classic_record` wrote."""
    fields = read_value(value)
    return Snapshot(
        group_id=group_id,
        generation=fields["generation"],
        protocol_type=fields["type"],
        protocol=fields["protocol"],
        leader=fields["leader"],
        changed_at=fields["at"],
        members=tuple(
            Member(
                id=m["id"],
                instance_id=m["instance"],
                client_id=m["client"],
                client_host=m["host"],
                session_timeout_ms=m["session"],
                rebalance_timeout_ms=m["rebalance"],
                protocols=tuple((name, unpack(metadata)) for name, metadata in m["protocols"]),
                assignment=unpack(m["assignment"]),
                skip_assignment=m["skip"],
            )
            for m in fields["members"]
        ),
    )
