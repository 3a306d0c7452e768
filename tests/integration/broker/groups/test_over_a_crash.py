"""Groups and transactions found again after a crash, as their clients left them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.groups.share_member import crashed
from tests.integration.broker.wire_client import (
    Connection,
    fetch_fields,
    produce,
    records,
    settings,
    started,
    values_of,
)


def _txn_topic(name: str, *partitions: int) -> Any:
    return struct("AddPartitionsToTxnRequest.AddPartitionsToTxnTopic")(name=name, partitions=list(partitions))


def _commit_topic(request: str, name: str, index: int, offset: int) -> Any:
    partition = struct(f"{request}Request.{request}RequestPartition")(
        partition_index=index, committed_offset=offset, committed_metadata="note"
    )
    return struct(f"{request}Request.{request}RequestTopic")(name=name, partitions=[partition])


async def committed(connection: Connection, group: str, name: str, *, stable: bool = False) -> tuple[int, int]:
    """Offset and error code of the group's partition 0."""
    asked = struct("OffsetFetchRequest.OffsetFetchRequestTopic")(name=name, partition_indexes=[0])
    answer = await connection.call("OffsetFetch", 7, group_id=group, topics=[asked], require_stable=stable)
    found = answer.topics[0].partitions[0]
    return found.committed_offset, found.error_code


async def open_transaction(connection: Connection, timeout_ms: int = 60_000) -> dict[str, int]:
    """A transaction with two records in partitions 0 and 1 and an offset of group g."""
    producer = await connection.call("InitProducerId", 4, transactional_id="x", transaction_timeout_ms=timeout_ms)
    who = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
    await connection.call(
        "AddPartitionsToTxn",
        3,
        v3_and_below_transactional_id="x",
        v3_and_below_producer_id=producer.producer_id,
        v3_and_below_producer_epoch=producer.producer_epoch,
        v3_and_below_topics=[_txn_topic("t", 0, 1)],
    )
    for index in (0, 1):
        data = records(b"in", **who, base_sequence=0, transactional=True)
        answer = await produce(connection, "t", batch=data, transactional_id="x", partition=index)
        assert answer.error_code == 0, answer
    added = await connection.call("AddOffsetsToTxn", 3, transactional_id="x", **who, group_id="g")
    assert added.error_code == 0
    staged = await connection.call(
        "TxnOffsetCommit",
        3,
        transactional_id="x",
        group_id="g",
        **who,
        topics=[_commit_topic("TxnOffsetCommit", "t", 0, 7)],
    )
    assert staged.topics[0].partitions[0].error_code == 0
    return who


async def seen(connection: Connection, *, read_committed: bool) -> list[bytes]:
    answer = await connection.call(
        "Fetch", 11, **fetch_fields("t", (0, 0), (1, 0), isolation_level=int(read_committed))
    )
    # A client drops what the answer lists as aborted; here nothing else is in these partitions.
    kept = [p for p in answer.responses[0].partitions if not p.aborted_transactions]
    return [value for p in kept for value in values_of(p.records) if value == b"in"]


async def test_an_open_transaction_is_committed_after_a_crash(tmp_path: Path) -> None:
    async with started(settings(tmp_path / "before")) as running:
        await running.broker.topics.create("t", 2)
        connection = await running.connect()
        who = await open_transaction(connection)
        assert await committed(connection, "g", "t", stable=True) == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        folder = crashed(tmp_path / "before", tmp_path / "after")
    async with started(settings(folder)) as running:
        connection = await running.connect()
        assert await seen(connection, read_committed=True) == []
        assert await committed(connection, "g", "t", stable=True) == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        ended = await connection.call("EndTxn", 3, transactional_id="x", **who, committed=True)
        assert ended.error_code == 0
        assert await seen(connection, read_committed=True) == [b"in", b"in"]
        assert await committed(connection, "g", "t", stable=True) == (7, 0)
        folder = crashed(folder, tmp_path / "again")
    async with started(settings(folder)) as running:
        connection = await running.connect()
        assert await seen(connection, read_committed=True) == [b"in", b"in"]
        assert await committed(connection, "g", "t", stable=True) == (7, 0)


async def test_a_transaction_nobody_comes_back_for_is_aborted_after_its_time(tmp_path: Path) -> None:
    async with started(settings(tmp_path / "before")) as running:
        await running.broker.topics.create("t", 2)
        who = await open_transaction(await running.connect(), timeout_ms=1_000)
        folder = crashed(tmp_path / "before", tmp_path / "after")
    async with started(settings(folder)) as running:
        connection = await running.connect()
        for _ in range(100):
            answer = await connection.call("Fetch", 11, **fetch_fields("t", (0, 0), max_wait_ms=50, min_bytes=1 << 20))
            if answer.responses[0].partitions[0].high_watermark == 2:
                break
        assert await seen(connection, read_committed=True) == []
        assert await committed(connection, "g", "t", stable=True) == (-1, 0)
        ended = await connection.call("EndTxn", 3, transactional_id="x", **who, committed=True)
        assert ended.error_code == ErrorCode.PRODUCER_FENCED


async def test_members_of_a_stable_group_go_on_after_a_crash(tmp_path: Path) -> None:
    async with started(settings(tmp_path / "before")) as running:
        await running.broker.topics.create("t", 1)
        connection = await running.connect()
        protocol = struct("JoinGroupRequest.JoinGroupRequestProtocol")(name="range", metadata=b"")
        join = {
            "group_id": "g",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 10_000,
            "protocol_type": "consumer",
            "protocols": [protocol],
        }
        first = await connection.call("JoinGroup", 5, member_id="", **join)
        assert first.error_code == ErrorCode.MEMBER_ID_REQUIRED
        joined = await connection.call("JoinGroup", 5, member_id=first.member_id, **join)
        me = {"group_id": "g", "generation_id": joined.generation_id, "member_id": joined.member_id}
        assignment = struct("SyncGroupRequest.SyncGroupRequestAssignment")(
            member_id=joined.member_id, assignment=b"mine"
        )
        synced = await connection.call("SyncGroup", 3, **me, assignments=[assignment])
        assert bytes(synced.assignment) == b"mine"
        commit = {
            "group_id": "g",
            "generation_id_or_member_epoch": joined.generation_id,
            "member_id": joined.member_id,
            "topics": [_commit_topic("OffsetCommit", "t", 0, 5)],
        }
        answer = await connection.call("OffsetCommit", 7, **commit)
        assert answer.topics[0].partitions[0].error_code == 0
        folder = crashed(tmp_path / "before", tmp_path / "after")
    async with started(settings(folder)) as running:
        connection = await running.connect()
        assert (await connection.call("Heartbeat", 3, **me)).error_code == 0
        assert bytes((await connection.call("SyncGroup", 3, **me, assignments=[])).assignment) == b"mine"
        assert await committed(connection, "g", "t") == (5, 0)
        answer = await connection.call("OffsetCommit", 7, **commit)
        assert answer.topics[0].partitions[0].error_code == 0


async def test_a_full_disk_costs_the_answer_and_never_the_agreement(tmp_path: Path) -> None:
    """The coordinator that is ahead of its log is thrown away and read back."""
    async with started(settings(tmp_path)) as running:
        await running.broker.topics.create("t", 1)
        connection = await running.connect()
        commit = {"group_id": "g", "member_id": "", "topics": [_commit_topic("OffsetCommit", "t", 0, 5)]}
        await connection.call("OffsetCommit", 7, **commit)
        groups = running.broker.groups
        groups.coordinator.offsets.commit = None  # a machine that is broken for good
        before = groups.coordinator
        groups.log.on_lost(OSError("the disk took it back"))
        assert groups.coordinator is not before
        assert await committed(connection, "g", "t") == (5, 0)
        answer = await connection.call("OffsetCommit", 7, **commit)
        assert answer.topics[0].partitions[0].error_code == 0
