"""The broker topics there are, as far as the gateway is concerned: which exist, with how many partitions.

Refreshed every few seconds while somebody needs it, and at once when a device's message goes to a topic not seen
before.
"""

from __future__ import annotations

import asyncio
import logging

from broker.client import AsyncAdmin, TopicPartition
from broker.client.administration.types import ConfigKind, ConfigResource, NewTopic
from broker.client.errors import ClientError
from gateway import contract

log = logging.getLogger("gateway.catalogue")


class Catalogue:
    """Topic names and partition counts; `version` rises with each change."""

    def __init__(self, admin: AsyncAdmin) -> None:
        self.admin = admin
        self.partitions: dict[str, int] = {}
        self.ids: dict[str, str] = {}
        self.version = 0

    async def refresh(self) -> None:
        """Ask the cluster; raises ClientError."""
        found = await self.admin.topics()
        partitions = {name: len(topic.partitions) for name, topic in found.items()}
        self.ids = {name: topic.id for name, topic in found.items()}
        if partitions != self.partitions:
            self.partitions = partitions
            self.version += 1

    def of(self, topics: list[str]) -> list[TopicPartition]:
        """The partitions of those of these topics that exist."""
        return [TopicPartition(name, index) for name in topics for index in range(self.partitions.get(name, 0))]

    async def ensure(self) -> None:
        """Make the topics of contracts.md that are missing, and let those that an earlier release made take records
        that are as large as may be; raises ClientError."""
        await self._make()
        await self._widen()

    async def _widen(self) -> None:
        name = "max.message.bytes"
        wanted = {spec.name: spec.config[name] for spec in contract.TOPICS if name in spec.config}
        resources = [ConfigResource(ConfigKind.TOPIC, topic) for topic in wanted]
        for resource, entries in (await self.admin.configs(resources, [name])).items():
            now = next((each.value for each in entries if each.name == name), None)
            if now is not None and int(now) < int(wanted[resource.name]):
                try:
                    await self.admin.alter_configs(resource, set={name: wanted[resource.name]})
                except ClientError as error:
                    log.warning("%s can't take records larger than %s bytes: %s", resource.name, now, error)

    async def _make(self) -> None:
        await self.refresh()
        missing = [spec for spec in contract.TOPICS if spec.name not in self.partitions]
        if not missing:
            return
        outcomes = await self.admin.create_topics(
            [NewTopic(name=spec.name, partitions=spec.partitions, configs=spec.config) for spec in missing]
        )
        for name, error in outcomes.items():
            if error is not None:
                log.info("topic %s: %s", name, error)  # another gateway was quicker, or it may not: seen below
        for _ in range(50):
            await self.refresh()
            if all(spec.name in self.partitions for spec in missing):
                return
            await asyncio.sleep(0.1)
        still = [spec.name for spec in missing if spec.name not in self.partitions]
        raise ClientError(f"topics could not be made: {', '.join(still)}")
