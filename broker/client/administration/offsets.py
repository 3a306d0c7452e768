"""The admin's calls for places in logs: ListOffsets, DeleteRecords.

One request per broker, for any number of partitions.
"""

from collections.abc import Iterable, Mapping

from broker.client.administration.link import Link
from broker.client.administration.types import At, FoundOffset
from broker.client.errors import CoordinatorMoved, name_of
from broker.client.records import TopicPartition
from broker.wire import codec
from broker.wire.codec import Struct

LIST_OFFSETS, DELETE_RECORDS = 2, 21
UNKNOWN = "UNKNOWN_TOPIC_OR_PARTITION"
MOVED = frozenset({5, 6, 74, 75, 76})


async def find(
    link: Link, partitions: Iterable[TopicPartition], at: At | int, *, committed_only: bool
) -> dict[TopicPartition, FoundOffset]:
    wanted = list(partitions)
    make = codec.struct("ListOffsetsRequest.ListOffsetsPartition")
    topic = codec.struct("ListOffsetsRequest.ListOffsetsTopic")

    def request(mine: list[TopicPartition]) -> Struct:
        return codec.struct("ListOffsetsRequest")(
            replica_id=-1,
            isolation_level=1 if committed_only else 0,
            topics=[
                topic(name=name, partitions=[make(partition_index=i, timestamp=int(at)) for i in indexes])
                for name, indexes in by_topic(mine)
            ],
            timeout_ms=int(link.timeout * 1000),
        )

    # version 7 is the first that knows the greatest timestamp
    at_least = 7 if at == At.MAX_TIMESTAMP else 1
    found: dict[TopicPartition, FoundOffset] = {}

    async def attempt(_: float) -> dict[TopicPartition, FoundOffset]:
        left = [partition for partition in wanted if partition not in found]
        moved = False
        for broker, mine in (await link.leaders(left)).items():
            if broker < 0:
                found.update(_leaderless(link, mine))
                continue
            answer = await link.ask(LIST_OFFSETS, request(mine), broker, at_least=at_least)
            for each in answer.topics:
                for part in each.partitions:
                    if part.error_code in MOVED:
                        moved = True
                        continue
                    error = name_of(part.error_code) if part.error_code else ""
                    found[TopicPartition(each.name, part.partition_index)] = FoundOffset(
                        part.offset, part.timestamp, part.leader_epoch, error
                    )
        if moved:
            raise CoordinatorMoved(6, "NOT_LEADER_OR_FOLLOWER")
        return found

    return await link.retried(attempt)


async def delete_records(link: Link, before: Mapping[TopicPartition, int]) -> dict[TopicPartition, FoundOffset]:
    make = codec.struct("DeleteRecordsRequest.DeleteRecordsPartition")
    topic = codec.struct("DeleteRecordsRequest.DeleteRecordsTopic")
    found: dict[TopicPartition, FoundOffset] = {}
    for broker, mine in (await link.leaders(before)).items():
        if broker < 0:
            found |= _leaderless(link, mine)
            continue
        request = codec.struct("DeleteRecordsRequest")(
            topics=[
                topic(
                    name=name,
                    partitions=[make(partition_index=i, offset=before[TopicPartition(name, i)]) for i in indexes],
                )
                for name, indexes in by_topic(mine)
            ],
            timeout_ms=int(link.timeout * 1000),
        )
        answer = await link.ask(DELETE_RECORDS, request, broker, reads=False)
        for each in answer.topics:
            for part in each.partitions:
                error = name_of(part.error_code) if part.error_code else ""
                found[TopicPartition(each.name, part.partition_index)] = FoundOffset(part.low_watermark, error=error)
    return found


def by_topic(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    """The partitions' indexes under their topics."""
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())


def _leaderless(link: Link, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, FoundOffset]:
    known = link.picture.leaders
    return {each: FoundOffset(-1, error="LEADER_NOT_AVAILABLE" if each in known else UNKNOWN) for each in partitions}
