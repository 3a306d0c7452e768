"""The broker put together: store, metadata, coordinators, listeners; started in order and stopped in reverse.

Order of a start: the store recovers; metadata is replayed; topics and their logs are brought in line; the coordinators
replay their topics; only then the listeners open. Order of a stop: listeners close, what is under way is answered, the
coordinators stop, the store makes everything durable and leaves the mark of a clean end.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from typing import TYPE_CHECKING, Any

from broker.api import fetch
from broker.api.fetch_sessions import FetchSessions
from broker.api.registry import Broker, Clock
from broker.api.table import advertised, handlers
from broker.cluster import metadata_log
from broker.cluster.credentials import Credentials
from broker.cluster.metadata import Key, Metadata, Topic, topic_change
from broker.cluster.topics import Topics
from broker.config import Config
from broker.groups import service as groups
from broker.groups import share_service as shares
from broker.internal import InternalCredential
from broker.log.store import Store
from broker.server import reporter
from broker.server.clock import SystemClock
from broker.server.commit import Commit
from broker.server.condition import Condition
from broker.server.listener import Server
from broker.server.meter import Meter
from broker.server.quotas import Quotas
from broker.server.tls import Certificates
from broker.server.waiting import Waiting
from broker.transactions import service as transactions

if TYPE_CHECKING:
    from broker.log.partition import Partition

logger = logging.getLogger(__name__)

STATE_TOPICS = ("__consumer_offsets", "__transaction_state", "__share_group_state")
STATE_CONFIGS = {"cleanup.policy": "compact", "segment.bytes": "104857600"}


class Assembly:
    """A whole broker on the running event loop."""

    def __init__(
        self, config: Config, *, internal: InternalCredential | None = None, clock: Clock | None = None
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self._internal = internal
        self.broker: Broker
        self.server: Server
        self._store: Store
        self._coordinators: list[Any] = []

    async def start(self) -> None:
        """Recover, replay, listen. Raises what says why not: FolderInUse, CannotListen, ..."""
        loop = asyncio.get_running_loop()
        config, clock = self.config, self.clock
        config.folder.mkdir(parents=True, exist_ok=True)
        self._store = Store.open(str(config.folder), clock.now())
        self._log_recovery()
        waiting = Waiting()
        commit = Commit(self._store, clock=clock.now, on_durable=waiting.advanced)
        partition = metadata_log.partition_of(self._store)
        log = metadata_log.PartitionLog(partition, commit, clock.now)
        commit.start(loop)
        metadata = Metadata(log, super_users=config.super_users, acls_always_on=config.acls_always_on)
        await metadata.ensure_cluster_id(_new_cluster_id)
        if metadata_log.TOPIC not in metadata.image.topics:
            await metadata.change([topic_change(metadata_log.described(clock.now()))])
        topics = Topics(self._store, metadata, clock.now)
        topics.open()
        quotas = Quotas(metadata.image.quotas)
        apis = handlers()
        self.broker = broker = Broker(
            config=config,
            clock=clock,
            store=self._store,
            commit=commit,
            metadata=metadata,
            topics=topics,
            waiting=waiting,
            quotas=quotas,
            meter=Meter(),
            condition=Condition(),
            fetch_sessions=FetchSessions(waiting, fetch.follow_asked),
            credentials=Credentials(lambda: metadata.image, self._internal, config.oauth),
            metadata_partition=partition,
            apis=apis,
            node_id=config.node_id,
            advertised=advertised(apis.values()),
        )
        for name in STATE_TOPICS:
            await topics.ensure_internal(name, 1, STATE_CONFIGS)
        self._start_coordinators(loop)
        metadata.watchers.append(self._changed)
        metadata.on_rebuilt.append(quotas.changed)
        topics.on_deleted.append(self._topic_deleted)
        certificates = Certificates(config.tls) if config.tls is not None else None
        await topics.ensure_internal(reporter.TOPIC, 1, reporter.CONFIGS)
        self.server = Server(config, broker, certificates)
        await self.server.start()
        self.reporter = reporter.Reporter(broker, self.server)
        self.reporter.start(loop)

    def _start_coordinators(self, loop: asyncio.AbstractEventLoop) -> None:
        broker = self.broker
        broker.groups = groups.make(broker)
        broker.transactions = transactions.make(broker)
        broker.shares = shares.make(broker)
        self._coordinators = [broker.groups, broker.transactions, broker.shares]
        for coordinator in self._coordinators:
            coordinator.replay()
        for coordinator in self._coordinators:
            coordinator.start(loop)

    def _changed(self, key: Key) -> None:
        if key[0] == "quota":
            self.broker.quotas.changed()

    def _topic_deleted(self, topic: Topic, partitions: list[Partition]) -> None:
        self.broker.waiting.advanced(partitions)
        for coordinator in self._coordinators:
            coordinator.topic_deleted(topic.name, topic.topic_id)

    def _log_recovery(self) -> None:
        recovery = self._store.recovery
        logger.info(
            "recovered %d partitions: %s, %d journal entries replayed, %d torn bytes cut",
            recovery.partitions,
            "clean" if recovery.clean else "after a crash",
            recovery.replayed_entries,
            recovery.cut_bytes,
        )
        for damage in recovery.damage:
            logger.error("damage found: %s", damage)

    @property
    def addresses(self) -> list[str]:
        """`PROTOCOL://host:port` of every listener, with the ports in fact taken."""
        return [str(listener) for listener in self.server.listeners]

    async def stop(self) -> None:
        """Stop in order; everything acknowledged is durable already, everything staged will be."""
        self.reporter.stop()
        await self.server.stop()
        for coordinator in reversed(self._coordinators):
            await coordinator.stop()
        await self.broker.commit.stop()


def _new_cluster_id() -> str:
    """22 characters, as Kafka's: a random UUID in URL-safe base 64."""
    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
