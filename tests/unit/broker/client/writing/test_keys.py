"""Which partition a key belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as known

from broker.client.outgoing import Sending
from broker.client.writing import topic
from broker.client.writing.batches import Batch
from broker.client.writing.murmur import murmur2, partition_of
from broker.client.writing.queues import Queues


@given(st.binary(max_size=40))
def test_the_hash_is_that_of_others(key: bytes) -> None:
    assert murmur2(key) == known(key) & 0xFFFFFFFF


def test_the_hash_is_kafka_s() -> None:
    """The values of org.apache.kafka.common.utils.UtilsTest."""
    for key, value in ((b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)):
        assert murmur2(key) == value & 0xFFFFFFFF


def test_keys_beyond_what_is_remembered_go_where_they_belong_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "KEYS", 10)
    queues = Queues(delivery_timeout=1.0, most=1000, most_bytes=1000)
    for name in ("one", "two"):
        queues.want(name)
        queues.learn(name, 0, dict.fromkeys(range(5), 0), 0.0)
    messages: list[Sending] = [
        (name, b"", b"%d" % (number % 20), None, None, -1) for name in ("one", "two") for number in range(60)
    ]
    Batch(lambda owner, some: queues.take(owner, some, 0.0, 0), lambda batch: None).send_all(messages)
    for found in queues._topics.values():
        for partition in found.all():
            keys = [message[2] or b"" for share in partition.queue for message in share.messages]
            assert all(partition_of(key, 5) == partition.index for key in keys)
    assert sum(len(found._by_key) for found in queues._topics.values()) <= 10


def test_more_partitions_are_used_once_they_are_known() -> None:
    queues = Queues(delivery_timeout=1.0, most=1000, most_bytes=1000)
    queues.want("t")
    for count in (2, 6):
        queues.learn("t", 0, dict.fromkeys(range(count), 0), 0.0)
        messages: list[Sending] = [("t", b"", b"key-%d" % number, None, None, -1) for number in range(100)]
        Batch(lambda owner, some: queues.take(owner, some, 0.0, 0), lambda batch: None).send_all(messages)
        assert {partition.index for partition in queues._topics["t"].all() if partition.queue} == set(range(count))


def test_what_has_no_key_stays_together_for_a_turn() -> None:
    queues = Queues(delivery_timeout=1.0, most=1000, most_bytes=1000)
    queues.want("t")
    queues.learn("t", 0, dict.fromkeys(range(50), 0), 0.0)
    chosen = set()
    for _ in range(20):
        message: Sending = ("t", b"", None, None, None, -1)
        batch = Batch(lambda owner, some: queues.take(owner, some, 0.0, 0), lambda batch: None)
        batch.send_all([message] * 3)
        (used,) = [part for part in queues._topics["t"].all() if part.queue and part.queue[-1].owner is batch]
        chosen.add(used.index)
    assert len(chosen) > 1
