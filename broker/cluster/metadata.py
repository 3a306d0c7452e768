"""What the cluster knows about itself: an image built by replaying the records of `__sluice_metadata`.

Every change is a record `key → value` in a compacted log; the image is nothing but the newest value of each key, so
replay after a restart and live changes take the same path (`Image.apply`). Changes are applied at once and
acknowledged once durable: all logs share one journal, so whatever is appended after a change can't outlive it.

Keys and values are JSON. A key is a list that starts with its kind; a value carries `v`, its format's version; a
tombstone deletes. An unknown kind is kept out of the image (a newer release may know it), an unknown `v` is refused.

    ["cluster"]                         {v, id}
    ["topic", <uuid hex>]               {v, name, partitions, created, configs: {name: text}}
    ["config", <type>, <name>]          {v, configs: {name: text}}          broker, group, client-metrics
    ["acl", <the seven fields>]         {v}
    ["scram", <user>, <mechanism>]      {v, salt, stored_key, server_key, iterations}
    ["quota", <sorted entity>]          {v, values: {name: number}}
    ["producer-ids"]                    {v, next}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.cluster.acls import Acl, AclIndex, Authorizer, Operation, PatternType, Permission, ResourceType

VERSION = 1
PRODUCER_ID_BLOCK = 1000

Key = tuple[Any, ...]
Change = tuple[Key, Mapping[str, Any] | None]
QuotaEntity = tuple[tuple[str, str | None], ...]
"""Sorted (type, name) pairs, type one of user, client-id, ip; a name of None is the default entity."""


class UnknownMetadataVersion(Exception):
    """A metadata record was written by a release this one can't read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic. `topic_id` is 16 bytes and never used again; `created` in epoch ms."""

    name: str
    topic_id: bytes
    partitions: int
    created: int
    configs: Mapping[str, str] = field(default_factory=dict)

    @property
    def internal(self) -> bool:
        return self.name.startswith("__")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramCredential:
    """What a SCRAM server keeps of a password (RFC 5802): never the password."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int


class MetadataLog(Protocol):
    """The log metadata is kept in."""

    def append(self, records: list[tuple[bytes, bytes | None]]) -> int:
        """Append; returns the journal position to wait for."""

    async def durable(self, position: int) -> None:
        """Return once everything up to the position has been fsynced."""

    def replay(self) -> Iterable[tuple[bytes, bytes | None]]:
        """Every record kept, oldest first."""


class Image:
    """The newest value of every key, arranged for the questions asked of it."""

    def __init__(self) -> None:
        self.version = 0
        """Counts changes, so that what was derived from the image can be kept until it moves."""
        self.quotas: dict[QuotaEntity, dict[str, float]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.cluster_id = ""
        self.topics: dict[str, Topic] = {}
        self.topics_by_id: dict[bytes, Topic] = {}
        self.configs: dict[tuple[str, str], dict[str, str]] = {}
        self.acls = AclIndex()
        self.scram: dict[tuple[str, str], ScramCredential] = {}
        self.quotas.clear()
        self.next_producer_id = 0
        self.version += 1

    def apply(self, key: Key, value: Mapping[str, Any] | None) -> None:
        if value is not None and value.get("v") != VERSION:
            raise UnknownMetadataVersion(f"metadata record {key!r} has version {value.get('v')!r}, known is {VERSION}")
        apply = _APPLY.get(key[0])
        if apply is not None:
            apply(self, key, value)
            self.version += 1

    def configs_of(self, kind: str, name: str) -> Mapping[str, str]:
        """What was set on a broker, group or client-metrics resource (kind `broker`, `group`, `client-metrics`)."""
        return self.configs.get((kind, name), {})

    def users(self) -> set[str]:
        return {user for user, _ in self.scram}


def _apply_cluster(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    if value is not None:
        image.cluster_id = value["id"]


def _apply_topic(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    topic_id = bytes.fromhex(key[1])
    if value is None:
        gone = image.topics_by_id.pop(topic_id, None)
        if gone is not None and image.topics.get(gone.name) is gone:
            del image.topics[gone.name]
        return
    topic = Topic(
        name=value["name"],
        topic_id=topic_id,
        partitions=value["partitions"],
        created=value["created"],
        configs=dict(value["configs"]),
    )
    image.topics_by_id[topic_id] = topic
    image.topics[topic.name] = topic


def _apply_config(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    if value is None or not value["configs"]:
        image.configs.pop((key[1], key[2]), None)
    else:
        image.configs[key[1], key[2]] = dict(value["configs"])


def _apply_acl(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    acl = Acl(
        resource_type=ResourceType[key[1]],
        pattern_type=PatternType[key[2]],
        name=key[3],
        principal=key[4],
        host=key[5],
        operation=Operation[key[6]],
        permission=Permission[key[7]],
    )
    if value is None:
        image.acls.discard(acl)
    else:
        image.acls.add(acl)


def _apply_scram(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    if value is None:
        image.scram.pop((key[1], key[2]), None)
        return
    image.scram[key[1], key[2]] = ScramCredential(
        salt=bytes.fromhex(value["salt"]),
        stored_key=bytes.fromhex(value["stored_key"]),
        server_key=bytes.fromhex(value["server_key"]),
        iterations=value["iterations"],
    )


def _apply_quota(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    entity = tuple((kind, name) for kind, name in key[1])
    if value is None or not value["values"]:
        image.quotas.pop(entity, None)
    else:
        image.quotas[entity] = dict(value["values"])


def _apply_producer_ids(image: Image, key: Key, value: Mapping[str, Any] | None) -> None:
    if value is not None:
        image.next_producer_id = value["next"]


_APPLY: dict[str, Callable[[Image, Key, Mapping[str, Any] | None], None]] = {
    "cluster": _apply_cluster,
    "topic": _apply_topic,
    "config": _apply_config,
    "acl": _apply_acl,
    "scram": _apply_scram,
    "quota": _apply_quota,
    "producer-ids": _apply_producer_ids,
}


def topic_change(topic: Topic) -> Change:
    """The record that says what a topic is."""
    return ("topic", topic.topic_id.hex()), {
        "name": topic.name,
        "partitions": topic.partitions,
        "created": topic.created,
        "configs": dict(topic.configs),
    }


def acl_key(acl: Acl) -> Key:
    return (
        "acl",
        acl.resource_type.name,
        acl.pattern_type.name,
        acl.name,
        acl.principal,
        acl.host,
        acl.operation.name,
        acl.permission.name,
    )


def encode(change: Change) -> tuple[bytes, bytes | None]:
    """A change as the record kept in the log."""
    key, value = change
    encoded = None if value is None else _json({"v": VERSION, **value})
    return _json(key), encoded


def decode(key: bytes, value: bytes | None) -> Change:
    return tuple(json.loads(key)), None if value is None else json.loads(value)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Metadata:
    """The image and the log behind it. Every change goes through `change()`.

    When the log can't keep a change that was applied already, the image is built again from what the log has.
    """

    def __init__(self, log: MetadataLog, *, super_users: Iterable[str] = (), acls_always_on: bool = False) -> None:
        self._log = log
        self.image = Image()
        self.authorizer = Authorizer(self.image.acls, super_users=tuple(super_users), always_on=acls_always_on)
        self.watchers: list[Callable[[Key], None]] = []
        """Called with the key of each change after it was applied; must not raise."""
        self.on_rebuilt: list[Callable[[], None]] = []
        """Called after the image was built again."""
        self._producer_ids = range(0)
        self._last_position: int | None = None
        self._replay()

    def _replay(self) -> None:
        self.image.clear()
        for key, value in self._log.replay():
            self.image.apply(*decode(key, value))
        self.authorizer.acls = self.image.acls
        self.authorizer.changed()

    async def ensure_cluster_id(self, new_id: Callable[[], str]) -> str:
        """The cluster's id, made on the first start."""
        if not self.image.cluster_id:
            await self.change([(("cluster",), {"id": new_id()})])
        return self.image.cluster_id

    async def change(self, changes: list[Change]) -> None:
        """Append, apply, and return once durable."""
        await self.durable(self.change_now(changes))

    def change_now(self, changes: list[Change]) -> int | None:
        """Append and apply; the position to pass to `durable()` before telling anybody. None: nothing changed."""
        if not changes:
            return None
        encoded = [encode(change) for change in changes]
        self._last_position = position = self._log.append(encoded)
        for key, value in encoded:
            self.image.apply(*decode(key, value))
        if any(changed[0] == "acl" for changed, _ in changes):
            self.authorizer.changed()
        for changed, _ in changes:
            for watcher in self.watchers:
                watcher(changed)
        return position

    async def durable(self, position: int | None) -> None:
        """Return once the change is durable; if it can't be, take it back and raise."""
        if position is None:
            return
        try:
            await self._log.durable(position)
        except Exception:
            self._replay()
            for rebuilt in self.on_rebuilt:
                rebuilt()
            raise

    async def settled(self) -> None:
        """Return once every change so far is durable."""
        await self.durable(self._last_position)

    async def next_producer_id(self) -> int:
        """A producer id never handed out before, across restarts."""
        while not self._producer_ids:
            first = self.image.next_producer_id
            block = range(first, first + PRODUCER_ID_BLOCK)
            await self.change([(("producer-ids",), {"next": block.stop})])
            if not self._producer_ids:
                self._producer_ids = block
        producer_id, self._producer_ids = self._producer_ids[0], self._producer_ids[1:]
        return producer_id


def new_topic_id() -> bytes:
    """A random id in the form of a version 4 UUID."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
