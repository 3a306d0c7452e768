"""Fetch requests of the flexible versions (12 and up), decoded without an object per partition.

Clients without fetch sessions (librdkafka) name every partition they follow in every request: a thousand of them cost
more to decode into objects than to serve. A partition's fields have a fixed size unless it carries tagged fields, so a
topic's partitions are unpacked in one go. Anything out of the ordinary goes to the general decoder, which decides.
"""

from __future__ import annotations

import struct as packing
from collections.abc import Sequence
from typing import Any

from broker.wire import framing
from broker.wire.codec import struct

FetchRequest = struct("FetchRequest")

_FIXED = packing.Struct(">iiibii")
_PARTITION = packing.Struct(">iiqiqiB")
FIRST_FLEXIBLE, FIRST_BY_ID, FIRST_WITHOUT_REPLICA = 12, 13, 15
ID_SIZE = 16

Ask = tuple[int, int, int, int, int, int, int]
"""Partition, current leader epoch, fetch offset, last fetched epoch, log start offset, maximum bytes, (no tags)."""


class AskedTopic:
    """A topic of a request and its partitions as plain tuples."""

    __slots__ = ("partitions", "topic", "topic_id")

    def __init__(self, topic: str, topic_id: bytes, partitions: Sequence[Ask]) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partitions = partitions


class _Unusual(Exception):
    """Not the plain form: the general decoder has to look."""


def decode(header: framing.RequestHeader, body: memoryview) -> Any:
    """The request, its topics as `AskedTopic`s; raises Malformed."""
    if header.api_version >= FIRST_FLEXIBLE:
        try:
            return _plain(header.api_version, body)
        except (_Unusual, packing.error, IndexError, UnicodeDecodeError):
            pass
    request = framing.parse_body(header, body)
    request.topics = [
        AskedTopic(
            topic.topic,
            topic.topic_id,
            [
                (
                    one.partition,
                    one.current_leader_epoch,
                    one.fetch_offset,
                    one.last_fetched_epoch,
                    one.log_start_offset,
                    one.partition_max_bytes,
                    0,
                )
                for one in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return request


def _plain(version: int, body: memoryview) -> Any:
    at = 0 if version >= FIRST_WITHOUT_REPLICA else 4
    wait, least, most, isolation, session, epoch = _FIXED.unpack_from(body, at)
    count, at = _length(body, at + _FIXED.size)
    topics = []
    for _ in range(count):
        if version >= FIRST_BY_ID:
            name, topic_id = "", bytes(body[at : at + ID_SIZE])
            at += ID_SIZE
        else:
            size, at = _length(body, at)
            name, topic_id = str(body[at : at + size], "utf-8"), bytes(ID_SIZE)
            at += size
        partitions, at = _length(body, at)
        end = at + partitions * _PARTITION.size
        if end >= len(body):
            raise _Unusual
        asked = list(_PARTITION.iter_unpack(body[at:end]))
        if body[end] or any(one[6] for one in asked):
            raise _Unusual
        topics.append(AskedTopic(name, topic_id, asked))
        at = end + 1
    # No forgotten topics, a rack of any length, no tags, and nothing behind.
    if body[at] != 1:
        raise _Unusual
    size, at = _length(body, at + 1)
    if body[at + size] or at + size + 1 != len(body):
        raise _Unusual
    return FetchRequest(
        max_wait_ms=wait,
        min_bytes=least,
        max_bytes=most,
        isolation_level=isolation,
        session_id=session,
        session_epoch=epoch,
        topics=topics,
        rack_id=str(body[at : at + size], "utf-8"),
    )


def _length(body: memoryview, at: int) -> tuple[int, int]:
    """A compact length (one less than its varint) and where it ends."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise _Unusual
    if value == 0 or value - 1 > len(body) - at:
        raise _Unusual
    return value - 1, at
