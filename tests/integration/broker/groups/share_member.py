"""A share consumer on the wire, one request at a time, and a crash."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from broker.wire import batch
from broker.wire.codec import struct
from tests.integration.broker.wire_client import Connection

Taken = tuple[int, bytes, int]
"""Offset, value, delivery count."""


class ShareMember:
    """One member of a share group with a session of its own."""

    def __init__(self, connection: Connection, group: str, member: str, topic_id: bytes, version: int = 2) -> None:
        self.connection = connection
        self.group = group
        self.member = member
        self.topic_id = topic_id
        self.version = version
        self.epoch = 0
        self.code = 0
        self.throttled = 0

    async def join(self, topic: str) -> Any:
        return await self.connection.call(
            "ShareGroupHeartbeat",
            1,
            group_id=self.group,
            member_id=self.member,
            member_epoch=0,
            subscribed_topic_names=[topic],
        )

    def _acks(self, name: str, *acks: tuple[int, int, int]) -> list[Any]:
        make = struct(f"{name}.AcknowledgementBatch")
        return [make(first_offset=a, last_offset=b, acknowledge_types=[kind]) for a, b, kind in acks]

    async def fetch(self, *acks: tuple[int, int, int], wait_ms: int = 0, most: int = 500, **more: Any) -> list[Taken]:
        """What is handed out; the acknowledgements' code is in `code`, the time to wait (ms) in `throttled`."""
        partition = struct("ShareFetchRequest.FetchPartition")(
            partition_index=0, acknowledgement_batches=self._acks("ShareFetchRequest", *acks)
        )
        answer = await self.connection.call(
            "ShareFetch",
            self.version,
            group_id=self.group,
            member_id=self.member,
            share_session_epoch=self.epoch,
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=1 << 20,
            max_records=most,
            batch_size=most,
            topics=[struct("ShareFetchRequest.FetchTopic")(topic_id=self.topic_id, partitions=[partition])],
            **more,
        )
        assert answer.error_code == 0, answer
        self.epoch += 1
        self.throttled = answer.throttle_time_ms
        taken: list[Taken] = []
        self.code = 0
        for found in (p for t in answer.responses for p in t.partitions):
            assert found.error_code == 0, found
            self.code = found.acknowledge_error_code
            values = {
                record.offset: bytes(record.value or b"")
                for part in batch.split(bytes(found.records or b""))
                for record in batch.records(part)
            }
            for run in found.acquired_records:
                taken += [(at, values[at], run.delivery_count) for at in range(run.first_offset, run.last_offset + 1)]
        return taken

    async def acknowledge(self, *acks: tuple[int, int, int], final: bool = False) -> int:
        partition = struct("ShareAcknowledgeRequest.AcknowledgePartition")(
            partition_index=0, acknowledgement_batches=self._acks("ShareAcknowledgeRequest", *acks)
        )
        answer = await self.connection.call(
            "ShareAcknowledge",
            self.version,
            group_id=self.group,
            member_id=self.member,
            share_session_epoch=-1 if final else self.epoch,
            is_renew_ack=any(kind == 4 for _, _, kind in acks),
            topics=[struct("ShareAcknowledgeRequest.AcknowledgeTopic")(topic_id=self.topic_id, partitions=[partition])],
        )
        self.epoch += 1
        if answer.error_code:
            return int(answer.error_code)
        return next((int(p.error_code) for t in answer.responses for p in t.partitions), 0)


def crashed(folder: Path, into: Path) -> Path:
    """The data folder as a killed process leaves it: whatever it has written so far, nothing closed.

    A checkpoint may drop journal files under the copy; such a copy is no moment of the folder and is taken again.
    """
    for _ in range(100):
        before = _journals(folder)
        try:
            shutil.copytree(folder, into)
        except shutil.Error:
            shutil.rmtree(into, ignore_errors=True)
            continue
        if _journals(folder) == before:
            return into
        shutil.rmtree(into)
    raise AssertionError("the folder never held still")


def _journals(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("journal-*")}
