"""Share groups against a running broker, on the wire and over crashes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from broker.cluster.metadata import Topic
from broker.wire import batch
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.groups.share_member import ShareMember, crashed
from tests.integration.broker.test_quotas import alter_quota
from tests.integration.broker.wire_client import Running, fetch_fields, produce, records, settings, started

ACCEPT, RELEASE, REJECT, RENEW = 1, 2, 3, 4
EARLIEST = {"share.auto.offset.reset": "earliest"}


async def topic(running: Running, name: str = "jobs", **configs: str) -> Topic:
    return await running.broker.topics.create(name, 1, configs)


async def group_config(running: Running, group: str, **configs: str) -> None:
    changed = {**EARLIEST, **{name.replace("_", "."): value for name, value in configs.items()}}
    await running.broker.metadata.change([(("config", "group", group), {"configs": changed})])


async def worker(running: Running, jobs: Topic, name: str, group: str = "g") -> ShareMember:
    member = ShareMember(await running.connect(), group, name, jobs.topic_id)
    answer = await member.join(jobs.name)
    assert answer.error_code == 0, answer
    return member


async def test_what_a_dead_worker_held_comes_to_another_and_is_done_once(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g")
    await produce(await running.connect(), "jobs", *(b"%d" % i for i in range(20)))
    first, second = await worker(running, jobs, "a"), await worker(running, jobs, "b")
    taken = await first.fetch(most=20)
    assert [count for _, _, count in taken] == [1] * 20
    assert await second.fetch() == []
    assert await first.acknowledge((0, 4, ACCEPT)) == 0
    waiting = asyncio.create_task(second.fetch(wait_ms=5_000))
    await asyncio.sleep(0)
    await first.connection.close()
    again = await waiting
    assert [(offset, count) for offset, _, count in again] == [(offset, 2) for offset in range(5, 20)]
    assert await second.acknowledge((5, 19, ACCEPT)) == 0
    assert await second.fetch() == []


async def test_what_is_handed_out_counts_against_the_clients_quota(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g", share_record_lock_duration_ms="2000")
    writer = await running.connect()
    assert await alter_quota(writer, {"client-id": "test"}, consumer_byte_rate=100.0) == 0
    for value in (b"a", b"b", b"c"):
        await produce(writer, "jobs", value * 900)
    member = await worker(running, jobs, "a")
    assert [offset for offset, _, _ in await member.fetch()] == [0], "no more than ten seconds' worth in one answer"
    assert member.throttled == 0
    assert await member.acknowledge((0, 0, ACCEPT)) == 0
    assert [offset for offset, _, _ in await member.fetch()] == [1]
    assert member.throttled == 1000, "half of the lock's time, or the record would be another's before it is done"
    assert await member.acknowledge((1, 1, ACCEPT)) == 0
    assert running.broker.meter.throttled == 1
    assert running.broker.meter.fetched_bytes > 1800


async def test_delivery_counts_and_what_is_done_survive_a_crash(tmp_path: Path) -> None:
    async with started(settings(tmp_path / "before")) as running:
        jobs = await topic(running)
        await group_config(running, "g")
        await produce(await running.connect(), "jobs", b"one", b"two", b"three")
        member = await worker(running, jobs, "a")
        await member.fetch()
        assert await member.acknowledge((0, 0, ACCEPT), (1, 2, RELEASE)) == 0
        assert [count for _, _, count in await member.fetch()] == [2, 2]
        assert await member.acknowledge((2, 2, ACCEPT)) == 0
        folder = crashed(tmp_path / "before", tmp_path / "after")
    async with started(settings(folder)) as running:
        found = running.broker.topics.get("jobs")
        assert found is not None and found.topic_id == jobs.topic_id
        member = await worker(running, jobs, "a")
        assert await member.fetch() == [(1, b"two", 3)]


async def test_a_poison_record_is_tried_alone_then_buried_with_its_story(running: Running) -> None:
    jobs = await topic(running)
    await topic(running, "dlq.jobs", **{"errors.deadletterqueue.group.enable": "true"})
    await group_config(
        running, "g", **{"errors.deadletterqueue.topic.name": "dlq.jobs", "share.delivery.count.limit": "2"}
    )
    connection = await running.connect()
    await produce(connection, "jobs", batch=batch.build([batch.Record(0, 5, b"k", b"poison", (("h", b"1"),))]))
    await produce(connection, "jobs", b"good", b"fine")
    member = await worker(running, jobs, "a")
    assert len(await member.fetch()) == 3
    again = await member.fetch((0, 0, RELEASE), (1, 1, RELEASE), (2, 2, ACCEPT))
    assert again == [(0, b"poison", 2)], "the last attempt comes alone"
    assert await member.fetch((0, 0, RELEASE)) == [(1, b"good", 2)]
    assert await member.acknowledge((1, 1, ACCEPT)) == 0
    answer = await connection.call("Fetch", 11, **fetch_fields("dlq.jobs", (0, 0)))
    (letter,) = [
        record
        for part in batch.split(bytes(answer.responses[0].partitions[0].records))
        for record in batch.records(part)
    ]
    headers = {name: bytes(value or b"") for name, value in letter.headers}
    assert (bytes(letter.key or b""), bytes(letter.value or b"")) == (b"k", b"poison")
    assert headers["h"] == b"1"
    assert headers["__dlq.errors.topic"] == b"jobs"
    assert headers["__dlq.errors.partition"] == b"0"
    assert headers["__dlq.errors.offset"] == b"0"
    assert headers["__dlq.errors.group"] == b"g"
    assert headers["__dlq.errors.delivery.count"] == b"2"
    assert headers["__dlq.errors.message"] == b"Offset delivery count exceeded the threshold."
    assert headers["sluice.error.reason"] == b"attempts"


async def test_a_record_whose_dead_letter_cannot_be_written_stays_and_the_failure_shows(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g", **{"errors.deadletterqueue.topic.name": "dlq.jobs"})
    await produce(await running.connect(), "jobs", b"bad")
    member = await worker(running, jobs, "a")
    await member.fetch()
    assert await member.fetch((0, 0, REJECT)) == [(0, b"bad", 2)]
    assert running.broker.shares.dead_letters.failures == {"g": "there is no such topic"}
    await topic(running, "dlq.jobs", **{"errors.deadletterqueue.group.enable": "true"})
    assert await member.fetch((0, 0, REJECT)) == []
    assert running.broker.shares.dead_letters.failures == {}
    assert running.broker.topics.partition("dlq.jobs", 0).log_end_offset == 1


async def test_records_are_judged_by_who_has_them_and_only_once(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g")
    await produce(await running.connect(), "jobs", b"one", b"two")
    first, second = await worker(running, jobs, "a"), await worker(running, jobs, "b")
    await first.fetch()
    await second.fetch()
    assert await second.acknowledge((0, 0, ACCEPT)) == ErrorCode.INVALID_RECORD_STATE
    assert await first.acknowledge((0, 0, ACCEPT)) == 0
    assert await first.acknowledge((0, 0, ACCEPT)) == 0, "what start has passed is nobody's any more"
    assert await first.acknowledge((1, 1, 9)) == ErrorCode.INVALID_REQUEST
    assert await first.acknowledge((1, 1, RENEW)) == 0
    assert await first.acknowledge((1, 1, ACCEPT), final=True) == 0
    assert await first.acknowledge() == ErrorCode.SHARE_SESSION_NOT_FOUND
    second.epoch += 7
    assert await second.acknowledge() == ErrorCode.INVALID_SHARE_SESSION_EPOCH


async def test_a_group_that_reads_committed_is_kept_from_aborted_records_and_markers(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g", **{"share.isolation.level": "read_committed"})
    connection = await running.connect()
    for commit in (False, True):
        producer = await connection.call("InitProducerId", 4, transactional_id="x", transaction_timeout_ms=60_000)
        who = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
        partitions = await connection.call(
            "AddPartitionsToTxn",
            3,
            v3_and_below_transactional_id="x",
            v3_and_below_producer_id=producer.producer_id,
            v3_and_below_producer_epoch=producer.producer_epoch,
            v3_and_below_topics=[_txn_topic("jobs", 0)],
        )
        assert partitions.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0
        data = records(b"yes" if commit else b"no", **who, base_sequence=0, transactional=True)
        answer = await produce(connection, "jobs", batch=data, transactional_id="x")
        assert answer.error_code == 0, answer
        ended = await connection.call("EndTxn", 3, transactional_id="x", **who, committed=commit)
        assert ended.error_code == 0
    await produce(connection, "jobs", b"plain")
    member = await worker(running, jobs, "a")
    taken = await member.fetch()
    assert [value for _, value, _ in taken] == [b"yes", b"plain"]
    for offset, _, _ in taken:
        assert await member.acknowledge((offset, offset, ACCEPT)) == 0
    described = await _described(running, "g")
    assert described.start_offset == running.broker.topics.partition("jobs", 0).high_watermark
    assert described.lag == 0


async def test_offsets_are_described_moved_and_deleted_while_nobody_is_in_the_group(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g")
    connection = await running.connect()
    await produce(connection, "jobs", *(b"%d" % i for i in range(10)))
    member = await worker(running, jobs, "a")
    await member.fetch()
    await member.acknowledge((0, 3, ACCEPT), (5, 5, ACCEPT))
    assert ((found := await _described(running, "g")).start_offset, found.lag) == (4, 5)
    moved = {"group_id": "g", "topics": [_alter_topic("jobs", 0, 8)]}
    assert (await connection.call("AlterShareGroupOffsets", 0, **moved)).error_code == ErrorCode.NON_EMPTY_GROUP
    await member.acknowledge(final=True)
    left = await member.connection.call(
        "ShareGroupHeartbeat", 1, group_id="g", member_id="a", member_epoch=-1, subscribed_topic_names=None
    )
    assert left.error_code == 0
    answer = await connection.call("AlterShareGroupOffsets", 0, **moved)
    assert (answer.error_code, answer.responses[0].partitions[0].error_code) == (0, 0)
    assert (await _described(running, "g")).start_offset == 8
    again = await worker(running, jobs, "b")
    assert [offset for offset, _, _ in await again.fetch()] == [8, 9]
    await again.connection.call(
        "ShareGroupHeartbeat", 1, group_id="g", member_id="b", member_epoch=-1, subscribed_topic_names=None
    )
    gone = await connection.call("DeleteGroups", 2, groups_names=["g"])
    assert gone.results[0].error_code == 0
    assert running.broker.shares.coordinator.places("g") == []


async def test_retention_takes_what_nobody_has_judged(running: Running) -> None:
    jobs = await topic(running)
    await group_config(running, "g")
    await produce(await running.connect(), "jobs", *(b"%d" % i for i in range(10)))
    member = await worker(running, jobs, "a")
    await member.fetch(most=3)
    running.broker.topics.partition("jobs", 0).delete_records_before(8)
    other = await worker(running, jobs, "b")
    assert await other.fetch() == [], "the batch is with the first member still"
    await member.connection.close()
    for _ in range(100):
        taken = await other.fetch(wait_ms=50)
        if taken:
            break
    assert [offset for offset, _, _ in taken] == [8, 9]


async def test_expired_records_are_buried_instead_of_handed_out_compressed_or_not(running: Running) -> None:
    jobs = await topic(running)
    await topic(running, "dlq.jobs", **{"errors.deadletterqueue.group.enable": "true"})
    await group_config(running, "g", **{"errors.deadletterqueue.topic.name": "dlq.jobs"})
    connection = await running.connect()
    soon = str(running.broker.clock.now() + 3_600_000).encode()
    values = [b"1", soon, b"-5", b"soon", b"9" * 30, b""]
    for compression in (batch.Compression.NONE, batch.Compression.ZSTD):
        made = [batch.Record(i, 5, None, v, (("sluice.expires.at", v),)) for i, v in enumerate(values)]
        await produce(connection, "jobs", batch=batch.build(made, compression=compression))
    member = await worker(running, jobs, "a")
    taken = await member.fetch()
    more = await member.fetch()
    assert [value for _, value, _ in taken + more] == [soon, b"soon", b"9" * 30, b""] * 2
    buried: list[tuple[bytes, bytes | None]] = []
    for _ in range(100):  # the letters are on their way to the disk: nobody waited for them
        letters = await connection.call("Fetch", 11, **fetch_fields("dlq.jobs", (0, 0), max_wait_ms=100))
        buried = [
            (bytes(record.value or b""), dict(record.headers)["sluice.error.reason"])
            for part in batch.split(bytes(letters.responses[0].partitions[0].records or b""))
            for record in batch.records(part)
        ]
        if len(buried) == 4:
            break
    assert [(value, bytes(reason or b"")) for value, reason in buried] == [(b"1", b"expired"), (b"-5", b"expired")] * 2


def _txn_topic(name: str, *partitions: int) -> Any:
    return struct("AddPartitionsToTxnRequest.AddPartitionsToTxnTopic")(name=name, partitions=list(partitions))


def _alter_topic(name: str, index: int, start: int) -> Any:
    partition = struct("AlterShareGroupOffsetsRequest.AlterShareGroupOffsetsRequestPartition")(
        partition_index=index, start_offset=start
    )
    return struct("AlterShareGroupOffsetsRequest.AlterShareGroupOffsetsRequestTopic")(
        topic_name=name, partitions=[partition]
    )


async def _described(running: Running, group: str) -> Any:
    asked = struct("DescribeShareGroupOffsetsRequest.DescribeShareGroupOffsetsRequestGroup")(
        group_id=group, topics=None
    )
    answer = await (await running.connect()).call("DescribeShareGroupOffsets", 1, groups=[asked])
    return answer.groups[0].topics[0].partitions[0]
