"""`ctx.broker.groups`: the group coordinator in its shell, with views of the broker's topics and configs."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping

from broker.api.registry import Broker
from broker.groups.coordinator import GroupCoordinator
from broker.groups.ports import StateUnwritable, Topic
from broker.groups.shell import Shell, StateTopic

logger = logging.getLogger(__name__)

OFFSETS_TOPIC = "__consumer_offsets"


class TopicView:
    """The coordinators' `Topics` over the broker's metadata; internal topics are not for groups."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @property
    def version(self) -> int:
        """Rises with each change of metadata."""
        return self._broker.metadata.image.version

    def topic(self, name: str) -> Topic | None:
        """The topic of that name."""
        found = self._broker.topics.get(name)
        return None if found is None else Topic(id=found.topic_id, name=found.name, partitions=found.partitions)

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """The topic of that id."""
        found = self._broker.topics.by_id(topic_id)
        return None if found is None else Topic(id=found.topic_id, name=found.name, partitions=found.partitions)

    def names(self) -> Iterable[str]:
        """Names of all topics."""
        return list(self._broker.metadata.image.topics)


class ConfigView:
    """The coordinators' `GroupConfigs` over the broker's metadata."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def broker(self) -> Mapping[str, str]:
        """What is set for the broker; what is set for this node wins over what is set for all."""
        image = self._broker.metadata.image
        mine, everybodys = image.configs_of("broker", str(self._broker.node_id)), image.configs_of("broker", "")
        return {**everybodys, **mine} if mine and everybodys else mine or everybodys

    def overrides(self, group_id: str) -> Mapping[str, str]:
        """What is set for the group."""
        return self._broker.metadata.image.configs_of("group", group_id)


class GroupService(Shell[GroupCoordinator]):
    """The group coordinator as handlers ask it."""

    def __init__(self, broker: Broker) -> None:
        self.topics = TopicView(broker)
        self.configs = ConfigView(broker)
        log = StateTopic(broker, OFFSETS_TOPIC)
        super().__init__(
            broker,
            "groups",
            log,
            lambda: GroupCoordinator(
                log=log,
                topics=self.topics,
                configs=self.configs,
                new_id=lambda: secrets.token_hex(16),
                share_member_gone=self._share_member_gone,
            ),
        )

    def _share_member_gone(self, group_id: str, member_id: str) -> None:
        if self._broker.shares is not None:
            self._broker.shares.member_gone(group_id, member_id)

    def topic_deleted(self, name: str, topic_id: bytes) -> None:
        """A topic is gone, and the offsets in it."""
        try:
            self.step(lambda coordinator, now: coordinator.topic_deleted(name, now))
        except StateUnwritable:
            logger.warning("groups: offsets of deleted topic %s could not be removed", name)


def make(broker: Broker) -> GroupService:
    """The group service of this broker."""
    return GroupService(broker)
