"""The quick decoder of Fetch requests says what the general one says, of good requests and of bad ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api import fetch_request
from broker.wire import framing
from broker.wire.codec import Malformed, encode, struct

int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
partitions = st.builds(
    struct("FetchRequest.FetchPartition"),
    partition=int32,
    current_leader_epoch=int32,
    fetch_offset=int64,
    last_fetched_epoch=int32,
    log_start_offset=int64,
    partition_max_bytes=int32,
    high_watermark=st.sampled_from([2**63 - 1, 2**63 - 1, 5]),
)
topics = st.builds(
    struct("FetchRequest.FetchTopic"),
    topic=st.text(max_size=9),
    topic_id=st.binary(min_size=16, max_size=16),
    partitions=st.lists(partitions, max_size=5),
)
forgotten = st.builds(struct("FetchRequest.ForgottenTopic"), topic=st.text(max_size=3), partitions=st.lists(int32))
requests = st.builds(
    struct("FetchRequest"),
    max_wait_ms=int32,
    min_bytes=int32,
    max_bytes=int32,
    isolation_level=st.integers(0, 1),
    session_id=int32,
    session_epoch=int32,
    topics=st.lists(topics, max_size=4),
    forgotten_topics_data=st.one_of(st.just([]), st.lists(forgotten, max_size=2)),
    rack_id=st.text(max_size=150),
)


def header(version: int) -> framing.RequestHeader:
    return framing.RequestHeader(1, version, 1, "c")


def told(request: Any) -> Any:
    fields = (
        "max_wait_ms",
        "min_bytes",
        "max_bytes",
        "isolation_level",
        "session_id",
        "session_epoch",
        "forgotten_topics_data",
        "rack_id",
    )
    names = ("partition", "current_leader_epoch", "fetch_offset", "last_fetched_epoch", "log_start_offset")
    return [getattr(request, name) for name in fields], [
        (
            topic.topic,
            bytes(topic.topic_id),
            [
                tuple(one[:6])
                if isinstance(one, tuple)
                else (*(getattr(one, name) for name in names), one.partition_max_bytes)
                for one in topic.partitions
            ],
        )
        for topic in request.topics
    ]


@given(requests, st.integers(4, 18))
def test_every_request_is_understood_alike(request: Any, version: int) -> None:
    body = memoryview(encode(request, version))
    assert told(fetch_request.decode(header(version), body)) == told(framing.parse_body(header(version), body))


@given(requests, st.integers(12, 18), st.data())
def test_damaged_requests_are_refused_or_understood_alike(request: Any, version: int, data: st.DataObject) -> None:
    body = bytearray(encode(request, version))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = memoryview(bytes(body[: data.draw(st.integers(0, len(body)))]))
    try:
        expected = told(framing.parse_body(header(version), damaged))
    except Malformed:
        with pytest.raises(Malformed):
            fetch_request.decode(header(version), damaged)
    else:
        assert told(fetch_request.decode(header(version), damaged)) == expected
