"""The admin: everything about a cluster that is not sending or reading records.

`AsyncAdmin` does the work; `Admin` is the same for code that blocks (Django): its calls run on one event
loop thread and wait for the answer. Every call has a deadline (`timeout` of the constructor, seconds) and
raises ClientError; calls for many things return what was found per thing and put one thing's failure beside
it instead of raising.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from broker.client.administration import (
    access,
    configs,
    groups,
    offsets,
    probing,
    storage,
    topics,
    transactions,
)
from broker.client.administration.link import Link
from broker.client.administration.types import (
    Acl,
    AclFilter,
    ActiveProducer,
    At,
    Cluster,
    Committed,
    ConfigEntry,
    ConfigResource,
    FoundOffset,
    Group,
    GroupKind,
    GroupListing,
    LogDir,
    NewTopic,
    Quota,
    QuotaEntity,
    Scram,
    ShareOffset,
    Storage,
    Topic,
    Transaction,
    User,
)
from broker.client.capability import Capabilities
from broker.client.errors import ClientError, TimedOut
from broker.client.records import TopicPartition
from broker.client.settings import Settings

Answer = TypeVar("Answer")
Outcomes = dict[str, ClientError | None]


class AsyncAdmin:
    """For one event loop. Connections are opened on first use and kept until `close`."""

    def __init__(self, settings: Settings, *, timeout: float = 15.0) -> None:
        self.link = Link(settings, timeout=timeout)

    async def close(self) -> None:
        await self.link.close()

    # --- cluster and topics

    async def probe(self) -> Capabilities:
        """What this cluster can do."""
        return await probing.probe(self.link)

    async def cluster(self) -> Cluster:
        return await topics.cluster(self.link)

    async def versions(self) -> dict[int, tuple[int, int]]:
        """API key → the versions (least, greatest) that the cluster speaks."""
        return await self.link.versions()

    async def topics(self, names: Iterable[str] | None = None) -> dict[str, Topic]:
        """The topics (all that may be seen, or these), by name; what is not there is left out. Creates
        nothing."""
        return await topics.topics(self.link, names)

    async def create_topics(self, new: Sequence[NewTopic], *, validate_only: bool = False) -> Outcomes:
        return await topics.create(self.link, new, validate_only=validate_only)

    async def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication: int = -1,
        configs: Mapping[str, str] | None = None,
        *,
        validate_only: bool = False,
    ) -> None:
        new = NewTopic(name=name, partitions=partitions, replication=replication, configs=configs or {})
        _one(await topics.create(self.link, [new], validate_only=validate_only), name)

    async def delete_topics(self, names: Iterable[str]) -> Outcomes:
        return await topics.delete(self.link, names)

    async def delete_topic(self, name: str) -> None:
        _one(await topics.delete(self.link, [name]), name)

    async def add_partitions(self, topic: str, total: int, *, validate_only: bool = False) -> None:
        """Give the topic `total` partitions (more than it has)."""
        await topics.add_partitions(self.link, topic, total, validate_only=validate_only)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> dict[TopicPartition, FoundOffset]:
        """Remove the records below these offsets (-1 = all there are); returns the new first offsets."""
        return await offsets.delete_records(self.link, before)

    # --- configurations

    async def configs(
        self,
        resources: Iterable[ConfigResource],
        names: Sequence[str] | None = None,
        *,
        documentation: bool = False,
    ) -> dict[ConfigResource, tuple[ConfigEntry, ...]]:
        """The configuration of each resource; those that can't be read are left out."""
        return await configs.describe(self.link, resources, names, documentation=documentation)

    async def alter_configs(
        self,
        resource: ConfigResource,
        *,
        set: Mapping[str, str] | None = None,
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        validate_only: bool = False,
    ) -> None:
        """Change some entries and leave the others (IncrementalAlterConfigs)."""
        changes = configs.Changes(set=set or {}, delete=tuple(delete), append=append or {}, subtract=subtract or {})
        await configs.alter(self.link, resource, changes, validate_only=validate_only)

    # --- offsets

    async def offsets(
        self, partitions: Iterable[TopicPartition], at: At | int = At.LATEST, *, committed_only: bool = False
    ) -> dict[TopicPartition, FoundOffset]:
        """Where `at` is in each partition; with `committed_only`, LATEST is the last stable offset. One
        request per broker, however many partitions."""
        return await offsets.find(self.link, partitions, at, committed_only=committed_only)

    # --- groups

    async def groups(self) -> tuple[GroupListing, ...]:
        return await groups.listing(self.link)

    async def describe_groups(self, names: Iterable[str]) -> dict[str, Group]:
        """Groups of any kind with their members; those not there are left out."""
        return await groups.describe(self.link, names)

    async def group_offsets(
        self, names: Iterable[str], *, require_stable: bool = False
    ) -> dict[str, dict[TopicPartition, Committed]]:
        """All that each group has committed. A group without offsets maps to an empty dict; one that may not
        be seen is left out."""
        return await groups.committed(self.link, names, require_stable=require_stable)

    async def alter_group_offsets(self, group: str, places: Mapping[TopicPartition, int | Committed]) -> None:
        """Commit offsets for a group without members; raises GroupNotEmpty."""
        await groups.commit(self.link, group, places)

    async def delete_group_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        await groups.forget(self.link, group, partitions)

    async def delete_groups(self, names: Iterable[str]) -> Outcomes:
        return await groups.delete(self.link, names)

    async def remove_members(self, group: str, members: Iterable[str]) -> None:
        """Put members (by member id) out of a classic group."""
        await groups.remove_members(self.link, group, members)

    async def share_offsets(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, ShareOffset]]:
        return await groups.share_offsets(self.link, names)

    async def alter_share_offsets(self, group: str, places: Mapping[TopicPartition, int]) -> None:
        await groups.alter_share_offsets(self.link, group, places)

    async def delete_share_offsets(self, group: str, names: Iterable[str]) -> None:
        """Forget where the share group was in these topics."""
        await groups.delete_share_offsets(self.link, group, names)

    # --- access

    async def acls(self, matching: AclFilter | None = None) -> tuple[Acl, ...]:
        return await access.acls(self.link, matching or AclFilter())

    async def create_acls(self, rules: Sequence[Acl]) -> None:
        await access.create(self.link, rules)

    async def delete_acls(self, matching: Sequence[AclFilter]) -> tuple[Acl, ...]:
        """Delete whatever matches; returns what was deleted."""
        return await access.delete(self.link, matching)

    async def users(self, names: Iterable[str] | None = None) -> tuple[User, ...]:
        """The SCRAM users."""
        return await access.users(self.link, names)

    async def put_user(
        self, name: str, password: str, mechanism: Scram = Scram.SHA_512, iterations: int = 8192
    ) -> None:
        """Create a credential or replace its password. The password itself never leaves this process."""
        await access.put_user(self.link, name, password, mechanism, iterations)

    async def delete_user(self, name: str, mechanism: Scram) -> None:
        await access.delete_user(self.link, name, mechanism)

    async def quotas(self) -> tuple[Quota, ...]:
        return await access.quotas(self.link)

    async def alter_quota(
        self, entity: QuotaEntity, *, set: Mapping[str, float] | None = None, remove: Iterable[str] = ()
    ) -> None:
        await access.alter_quota(self.link, entity, set or {}, remove)

    # --- storage and transactions

    async def log_dirs(self) -> tuple[LogDir, ...]:
        return await storage.log_dirs(self.link)

    async def storage(self) -> tuple[Storage, ...]:
        """What each broker's disk lets it do."""
        return await storage.conditions(self.link)

    async def transactions(self) -> tuple[Transaction, ...]:
        return await transactions.listing(self.link)

    async def describe_transactions(self, ids: Iterable[str]) -> dict[str, Transaction]:
        return await transactions.describe(self.link, ids)

    async def producers(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[ActiveProducer, ...]]:
        return await transactions.producers(self.link, partitions)

    async def abort_transaction(self, partition: TopicPartition, producer: ActiveProducer) -> None:
        """End a transaction that hangs in this partition."""
        await transactions.abort(self.link, partition, producer)


def _one(outcomes: Outcomes, name: str) -> None:
    error = outcomes.get(name)
    if error is not None:
        raise error


class _Loop:
    """One event loop in one daemon thread, for every blocking admin of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="broker-admin", daemon=True).start()
            return self._loop


_LOOP = _Loop()


class Admin:
    """`AsyncAdmin` for code that blocks. May be shared between threads."""

    def __init__(self, settings: Settings, *, timeout: float = 15.0) -> None:
        self._timeout = timeout
        self._admin = AsyncAdmin(settings, timeout=timeout)

    def _run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        future = asyncio.run_coroutine_threadsafe(call, _LOOP.get())
        try:
            # every request has its own deadline; this is for a loop that hangs
            return future.result(self._timeout * 4)
        except TimeoutError:
            future.cancel()
            raise TimedOut(f"no answer within {self._timeout * 4:g} s") from None

    def close(self) -> None:
        self._run(self._admin.close())

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def probe(self) -> Capabilities:
        return self._run(self._admin.probe())

    def cluster(self) -> Cluster:
        return self._run(self._admin.cluster())

    def versions(self) -> dict[int, tuple[int, int]]:
        return self._run(self._admin.versions())

    def topics(self, names: Iterable[str] | None = None) -> dict[str, Topic]:
        return self._run(self._admin.topics(names))

    def create_topics(self, new: Sequence[NewTopic], *, validate_only: bool = False) -> Outcomes:
        return self._run(self._admin.create_topics(new, validate_only=validate_only))

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication: int = -1,
        configs: Mapping[str, str] | None = None,
        *,
        validate_only: bool = False,
    ) -> None:
        self._run(self._admin.create_topic(name, partitions, replication, configs, validate_only=validate_only))

    def delete_topics(self, names: Iterable[str]) -> Outcomes:
        return self._run(self._admin.delete_topics(names))

    def delete_topic(self, name: str) -> None:
        self._run(self._admin.delete_topic(name))

    def add_partitions(self, topic: str, total: int, *, validate_only: bool = False) -> None:
        self._run(self._admin.add_partitions(topic, total, validate_only=validate_only))

    def delete_records(self, before: Mapping[TopicPartition, int]) -> dict[TopicPartition, FoundOffset]:
        return self._run(self._admin.delete_records(before))

    def configs(
        self,
        resources: Iterable[ConfigResource],
        names: Sequence[str] | None = None,
        *,
        documentation: bool = False,
    ) -> dict[ConfigResource, tuple[ConfigEntry, ...]]:
        return self._run(self._admin.configs(resources, names, documentation=documentation))

    def alter_configs(
        self,
        resource: ConfigResource,
        *,
        set: Mapping[str, str] | None = None,
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        validate_only: bool = False,
    ) -> None:
        self._run(
            self._admin.alter_configs(
                resource,
                set=set,
                delete=delete,
                append=append,
                subtract=subtract,
                validate_only=validate_only,
            )
        )

    def offsets(
        self, partitions: Iterable[TopicPartition], at: At | int = At.LATEST, *, committed_only: bool = False
    ) -> dict[TopicPartition, FoundOffset]:
        return self._run(self._admin.offsets(partitions, at, committed_only=committed_only))

    def groups(self) -> tuple[GroupListing, ...]:
        return self._run(self._admin.groups())

    def describe_groups(self, names: Iterable[str]) -> dict[str, Group]:
        return self._run(self._admin.describe_groups(names))

    def group_offsets(
        self, names: Iterable[str], *, require_stable: bool = False
    ) -> dict[str, dict[TopicPartition, Committed]]:
        return self._run(self._admin.group_offsets(names, require_stable=require_stable))

    def alter_group_offsets(self, group: str, places: Mapping[TopicPartition, int | Committed]) -> None:
        self._run(self._admin.alter_group_offsets(group, places))

    def delete_group_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        self._run(self._admin.delete_group_offsets(group, partitions))

    def delete_groups(self, names: Iterable[str]) -> Outcomes:
        return self._run(self._admin.delete_groups(names))

    def remove_members(self, group: str, members: Iterable[str]) -> None:
        self._run(self._admin.remove_members(group, members))

    def share_offsets(self, names: Iterable[str]) -> dict[str, dict[TopicPartition, ShareOffset]]:
        return self._run(self._admin.share_offsets(names))

    def alter_share_offsets(self, group: str, places: Mapping[TopicPartition, int]) -> None:
        self._run(self._admin.alter_share_offsets(group, places))

    def delete_share_offsets(self, group: str, names: Iterable[str]) -> None:
        self._run(self._admin.delete_share_offsets(group, names))

    def acls(self, matching: AclFilter | None = None) -> tuple[Acl, ...]:
        return self._run(self._admin.acls(matching))

    def create_acls(self, rules: Sequence[Acl]) -> None:
        self._run(self._admin.create_acls(rules))

    def delete_acls(self, matching: Sequence[AclFilter]) -> tuple[Acl, ...]:
        return self._run(self._admin.delete_acls(matching))

    def users(self, names: Iterable[str] | None = None) -> tuple[User, ...]:
        return self._run(self._admin.users(names))

    def put_user(self, name: str, password: str, mechanism: Scram = Scram.SHA_512, iterations: int = 8192) -> None:
        self._run(self._admin.put_user(name, password, mechanism, iterations))

    def delete_user(self, name: str, mechanism: Scram) -> None:
        self._run(self._admin.delete_user(name, mechanism))

    def quotas(self) -> tuple[Quota, ...]:
        return self._run(self._admin.quotas())

    def alter_quota(
        self, entity: QuotaEntity, *, set: Mapping[str, float] | None = None, remove: Iterable[str] = ()
    ) -> None:
        self._run(self._admin.alter_quota(entity, set=set, remove=remove))

    def log_dirs(self) -> tuple[LogDir, ...]:
        return self._run(self._admin.log_dirs())

    def storage(self) -> tuple[Storage, ...]:
        return self._run(self._admin.storage())

    def transactions(self) -> tuple[Transaction, ...]:
        return self._run(self._admin.transactions())

    def describe_transactions(self, ids: Iterable[str]) -> dict[str, Transaction]:
        return self._run(self._admin.describe_transactions(ids))

    def producers(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[ActiveProducer, ...]]:
        return self._run(self._admin.producers(partitions))

    def abort_transaction(self, partition: TopicPartition, producer: ActiveProducer) -> None:
        self._run(self._admin.abort_transaction(partition, producer))


__all__ = ["Admin", "AsyncAdmin", "GroupKind", "Outcomes"]
