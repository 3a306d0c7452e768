"""The admin's calls for disks: DescribeLogDirs, of every broker."""

from broker.client.administration.link import Link
from broker.client.administration.types import LogDir, LogSize
from broker.client.errors import from_code, name_of
from broker.client.records import TopicPartition
from broker.wire import codec

DESCRIBE_LOG_DIRS = 35


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
