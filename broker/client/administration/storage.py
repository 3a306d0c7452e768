"""The admin's calls for disks: DescribeLogDirs, of every broker, and what a broker says of its storage."""

from broker.client.administration import configs
from broker.client.administration.link import Link
from broker.client.administration.types import ConfigKind, ConfigResource, LogDir, LogSize, Storage, StorageState
from broker.client.errors import from_code, name_of
from broker.client.records import TopicPartition
from broker.wire import codec

DESCRIBE_LOG_DIRS = 35
STATE, REASON, SINCE = "sluice.storage.state", "sluice.storage.reason", "sluice.storage.since"


async def log_dirs(link: Link) -> tuple[LogDir, ...]:
    found = []
    for broker in sorted(await link.brokers()):
        answer = await link.ask(DESCRIBE_LOG_DIRS, codec.struct("DescribeLogDirsRequest")(topics=None), broker)
        if answer.error_code:
            raise from_code(answer.error_code)
        for each in answer.results:
            logs = [
                LogSize(
                    origin=TopicPartition(topic.name, part.partition_index),
                    size=part.partition_size,
                    lag=part.offset_lag,
                    future=part.is_future_key,
                )
                for topic in each.topics
                for part in topic.partitions
            ]
            found.append(
                LogDir(
                    broker=broker,
                    path=each.log_dir,
                    total=each.total_bytes,
                    usable=each.usable_bytes,
                    logs=tuple(logs),
                    error=name_of(each.error_code) if each.error_code else "",
                )
            )
    return tuple(found)


async def conditions(link: Link) -> tuple[Storage, ...]:
    """What each broker's disk lets it do: in the broker's own words, or else by its offline log folders (KIP-112)."""
    found = []
    for broker in sorted(await link.brokers()):
        request = codec.struct("DescribeLogDirsRequest")(topics=[])
        answer = await link.ask(DESCRIBE_LOG_DIRS, request, broker)
        if answer.error_code:
            raise from_code(answer.error_code)
        offline = [each.log_dir for each in answer.results if each.error_code]
        told = await _told(link, broker)
        state = StorageState(told.get(STATE) or (StorageState.STOPPED if offline else StorageState.OK))
        reason = told.get(REASON, "")
        if not reason and offline:
            reason = ", ".join(
                f"{each.log_dir}: {name_of(each.error_code)}" for each in answer.results if each.error_code
            )
        found.append(
            Storage(
                broker=broker,
                state=state,
                reason=reason,
                since=int(told.get(SINCE) or 0),
                paths=tuple(each.log_dir for each in answer.results),
            )
        )
    return tuple(found)


async def _told(link: Link, broker: int) -> dict[str, str]:
    resource = ConfigResource(ConfigKind.BROKER, str(broker))
    entries = await configs.describe(link, [resource], [STATE, REASON, SINCE], documentation=False)
    return {entry.name: entry.value or "" for entry in entries.get(resource, ())}
