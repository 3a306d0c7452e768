"""Dead letters of share groups (KIP-1191): the record that was given up, with why, in the group's dead-letter topic.

Group config `errors.deadletterqueue.topic.name` names the topic ("" = none); the topic must say
`errors.deadletterqueue.group.enable=true`, or be made here where the broker's
`errors.deadletterqueue.auto.create.topics.enable` allows it. Key, value and headers of the original are copied unless
`errors.deadletterqueue.copy.record.enable` is false. A dead letter that can't be written keeps its record where it is;
`failures` says why, by group.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from broker.api.registry import Broker
from broker.cluster.config_names import BROKER, GROUP, TOPIC
from broker.groups.share_coordinator import Place
from broker.groups.share_partition import Cause
from broker.log.failures import LogError
from broker.wire import batch
from broker.wire.batch import Record

if TYPE_CHECKING:
    from broker.cluster.metadata import Topic
    from broker.log.partition import Partition

logger = logging.getLogger(__name__)

ENABLED = "errors.deadletterqueue.group.enable"
TOPIC_NAME = "errors.deadletterqueue.topic.name"
COPY_RECORD = "errors.deadletterqueue.copy.record.enable"
AUTO_CREATE = "errors.deadletterqueue.auto.create.topics.enable"

_REASONS = {Cause.REJECTED: "rejected", Cause.ATTEMPTS: "attempts", Cause.EXPIRED: "expired"}


class DeadLetters:
    """The coordinator's `Graves`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._creating: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.written = 0
        self.discarded: Counter[Cause] = Counter()
        """Records given up by groups that want no dead letters."""
        self.failures: dict[str, str] = {}
        """Why the newest dead letter of a group could not be written; gone once one is."""

    def bury(self, place: Place, offset: int, count: int, cause: Cause) -> bool:
        """Append the dead letter; True also when the group wants none."""
        overrides = self._broker.metadata.image.configs_of("group", place.group)
        name = overrides.get(TOPIC_NAME, "")
        if not name:
            self.discarded[cause] += 1
            return True
        origin = self._broker.topics.by_id(place.topic)
        if origin is None:
            return True  # the topic is gone, and the record with it
        copy = GROUP.value(COPY_RECORD, overrides.get(COPY_RECORD))
        failure = self._write(name, origin, place, offset, count, cause, copy)
        if failure is None:
            self.written += 1
            self.failures.pop(place.group, None)
            return True
        if self.failures.get(place.group) != failure:
            logger.warning("group %s: a dead letter can't be written to %s: %s", place.group, name, failure)
        self.failures[place.group] = failure
        return False

    def _write(
        self, name: str, origin: Topic, place: Place, offset: int, count: int, cause: Cause, copy: bool
    ) -> str | None:
        """Why it could not be written, or None."""
        topic = self._broker.topics.get(name)
        if topic is None:
            return self._create(name)
        if not TOPIC.value(ENABLED, topic.configs.get(ENABLED)):
            return f"the topic does not say {ENABLED}=true"
        partitions = self._broker.topics.partitions(name)
        source = self._broker.topics.partition(origin.name, place.index)
        if not partitions or source is None:
            return "a partition is missing"
        try:
            original = _record_at(source, offset)
            if original is None:
                return None  # retention or compaction has taken it: there is nothing to bury
            now = self._broker.clock.now()
            letter = _letter(original, origin.name, place, count, cause, copy, now)
            target = partitions[place.index % len(partitions)]
            target.append(batch.split(batch.build([letter], base_offset=0)), now)
        except LogError as error:
            return str(error)
        return None

    def _create(self, name: str) -> str:
        image = self._broker.metadata.image
        told = [image.configs_of("broker", broker).get(AUTO_CREATE) for broker in (str(self._broker.node_id), "")]
        if not BROKER.value(AUTO_CREATE, next((value for value in told if value is not None), None)):
            return "there is no such topic"
        if name not in self._creating:
            self._creating.add(name)
            task = asyncio.get_running_loop().create_task(self._create_now(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return "the topic is being made"

    async def _create_now(self, name: str) -> None:
        try:
            await self._broker.topics.create(name, self._broker.config.default_partitions, {ENABLED: "true"})
        except LogError as error:
            logger.warning("dead-letter topic %s can't be made: %s", name, error)
        finally:
            self._creating.discard(name)


def _record_at(partition: Partition, offset: int) -> Record | None:
    if not partition.log_start_offset <= offset < partition.log_end_offset:
        return None
    found = partition.read(offset, 1)
    for one in batch.split(b"".join(found.buffers)):
        if one.base_offset <= offset <= one.last_offset and not one.control:
            for record in batch.records(one):
                if record.offset == offset:
                    return record
    return None


def _letter(original: Record, topic: str, place: Place, count: int, cause: Cause, copy: bool, now: int) -> Record:
    told = {
        "__dlq.errors.topic": topic,
        "__dlq.errors.partition": str(place.index),
        "__dlq.errors.offset": str(original.offset),
        "__dlq.errors.group": place.group,
        "__dlq.errors.delivery.count": str(count),
        "__dlq.errors.message": cause.value,
        "sluice.error.reason": _REASONS[cause],
        "sluice.attempts": str(count),
        "sluice.origin.topic": topic,
        "sluice.origin.partition": str(place.index),
        "sluice.origin.offset": str(original.offset),
        "sluice.origin.timestamp": str(original.timestamp),
        "sluice.origin.group": place.group,
    }
    ours = tuple((name, value.encode()) for name, value in told.items())
    kept = tuple(original.headers) if copy else ()
    return Record(
        offset=0,
        timestamp=now,
        key=original.key if copy else None,
        value=original.value if copy else None,
        headers=(*kept, *ours),
    )
