"""Which configs there are, for topics, the broker, groups and client-metrics subscriptions: Kafka's names and defaults.

Configs that mean nothing on one node (replication throttles, tiered storage) are accepted, kept and shown, as a Kafka
without followers or remote storage would.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from broker.cluster.configs import INT_MAX, LONG_MAX, Definition, Definitions, Type
from broker.cluster.topic_names import InvalidTopicName, require_valid_name

_COMPRESSIONS = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
_DAY = 86_400_000
_WEEK = 7 * _DAY


def _d(name: str, type_: Type, default: str, **more: Any) -> Definition:
    return Definition(name=name, type=type_, default=default, **more)


def _at_least_minus_one_not_zero_only(value: int) -> str | None:
    return None if value >= -1 else "Value must be at least -1"


def _gzip_level(value: int) -> str | None:
    return None if value == -1 or 1 <= value <= 9 else "Value must be between 1 and 9 or equal to -1"


def _go_together(value: Callable[[str], Any]) -> str | None:
    if value("min.compaction.lag.ms") > value("max.compaction.lag.ms"):
        return "conflict topic config setting: min.compaction.lag.ms is greater than max.compaction.lag.ms"
    if value("remote.storage.enable"):
        return "Tiered storage is not there: a topic can't be told to use it."
    return None


def _offset_reset(value: str) -> str | None:
    known = value in ("earliest", "latest") or RESET_BY_DURATION.fullmatch(value)
    return None if known else "Value must be earliest, latest or by_duration:<ISO 8601 duration>"


RESET_BY_DURATION = re.compile(
    r"by_duration:P(?=.)(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?)?", re.ASCII | re.IGNORECASE
)
"""A `share.auto.offset.reset` that goes back so long: days, hours, minutes, seconds (ISO 8601)."""


def _dead_letter_topic(value: str) -> str | None:
    if value.startswith("__"):
        return "Value must not name an internal topic"
    try:
        require_valid_name(value or "none")
    except InvalidTopicName as refusal:
        return str(refusal)
    return None


_CLIENT_TRAITS = (
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
)


def _client_patterns(value: list[str]) -> str | None:
    for item in value:
        trait, given, pattern = item.partition("=")
        if trait.strip() not in _CLIENT_TRAITS or not given:
            return f"Illegal client matching pattern: {item}"
        try:
            re.compile(pattern)
        except re.error:
            return f"Illegal client matching pattern: {item}"
    return None


TOPIC = Definitions(
    "topic",
    (
        _d("cleanup.policy", Type.LIST, "delete", choices=("compact", "delete"), broker_name="log.cleanup.policy"),
        _d("compression.type", Type.STRING, "producer", choices=_COMPRESSIONS, broker_name="compression.type"),
        _d("compression.gzip.level", Type.INT, "-1", check=_gzip_level, broker_name="compression.gzip.level"),
        _d("compression.lz4.level", Type.INT, "9", least=1, most=17, broker_name="compression.lz4.level"),
        _d("compression.zstd.level", Type.INT, "3", least=-131072, most=22, broker_name="compression.zstd.level"),
        _d("delete.retention.ms", Type.LONG, str(_DAY), least=0, broker_name="log.cleaner.delete.retention.ms"),
        _d("errors.deadletterqueue.group.enable", Type.BOOLEAN, "false"),
        _d("file.delete.delay.ms", Type.LONG, "60000", least=0, broker_name="log.segment.delete.delay.ms"),
        _d("flush.messages", Type.LONG, str(LONG_MAX), least=1, broker_name="log.flush.interval.messages"),
        _d("flush.ms", Type.LONG, str(LONG_MAX), least=0, broker_name="log.flush.interval.ms"),
        _d("follower.replication.throttled.replicas", Type.LIST, ""),
        _d("index.interval.bytes", Type.INT, "4096", least=0, broker_name="log.index.interval.bytes"),
        _d("leader.replication.throttled.replicas", Type.LIST, ""),
        _d("local.retention.bytes", Type.LONG, "-2", least=-2, broker_name="log.local.retention.bytes"),
        _d("local.retention.ms", Type.LONG, "-2", least=-2, broker_name="log.local.retention.ms"),
        _d("max.compaction.lag.ms", Type.LONG, str(LONG_MAX), least=1, broker_name="log.cleaner.max.compaction.lag.ms"),
        _d(
            "max.decompressed.message.bytes",
            Type.INT,
            str(INT_MAX - 8),
            least=0,
            broker_name="max.decompressed.message.bytes",
        ),
        _d("max.message.bytes", Type.INT, "1048588", least=0, broker_name="message.max.bytes"),
        _d(
            "message.timestamp.after.max.ms",
            Type.LONG,
            "3600000",
            least=0,
            broker_name="log.message.timestamp.after.max.ms",
        ),
        _d(
            "message.timestamp.before.max.ms",
            Type.LONG,
            str(LONG_MAX),
            least=0,
            broker_name="log.message.timestamp.before.max.ms",
        ),
        _d(
            "message.timestamp.type",
            Type.STRING,
            "CreateTime",
            choices=("CreateTime", "LogAppendTime"),
            broker_name="log.message.timestamp.type",
        ),
        _d(
            "min.cleanable.dirty.ratio",
            Type.DOUBLE,
            "0.5",
            least=0,
            most=1,
            broker_name="log.cleaner.min.cleanable.ratio",
        ),
        _d("min.compaction.lag.ms", Type.LONG, "0", least=0, broker_name="log.cleaner.min.compaction.lag.ms"),
        _d("min.insync.replicas", Type.INT, "1", least=1, broker_name="min.insync.replicas"),
        _d("preallocate", Type.BOOLEAN, "false", broker_name="log.preallocate"),
        _d("remote.copy.lag.bytes", Type.LONG, "-1", least=-2, broker_name="log.remote.copy.lag.bytes"),
        _d("remote.copy.lag.ms", Type.LONG, "0", least=-2, broker_name="log.remote.copy.lag.ms"),
        _d("remote.log.copy.disable", Type.BOOLEAN, "false"),
        _d("remote.log.delete.on.disable", Type.BOOLEAN, "false"),
        _d("remote.storage.enable", Type.BOOLEAN, "false"),
        _d("retention.bytes", Type.LONG, "-1", broker_name="log.retention.bytes"),
        _d(
            "retention.ms",
            Type.LONG,
            str(_WEEK),
            check=_at_least_minus_one_not_zero_only,
            broker_name="log.retention.ms",
        ),
        _d("segment.bytes", Type.INT, "1073741824", least=1_048_576, broker_name="log.segment.bytes"),
        _d("segment.index.bytes", Type.INT, "10485760", least=4, broker_name="log.index.size.max.bytes"),
        _d("segment.jitter.ms", Type.LONG, "0", least=0, broker_name="log.roll.jitter.ms"),
        _d("segment.ms", Type.LONG, str(_WEEK), least=1, broker_name="log.roll.ms"),
        _d(
            "unclean.leader.election.enable",
            Type.BOOLEAN,
            "false",
            broker_name="unclean.leader.election.enable",
        ),
    ),
    together=_go_together,
)

_BROKER_OWN = (
    _d("advertised.listeners", Type.STRING, "", read_only=True),
    _d("allow.everyone.if.no.acl.found", Type.BOOLEAN, "false", read_only=True),
    _d("auto.create.topics.enable", Type.BOOLEAN, "true"),
    _d("broker.id", Type.INT, "1", read_only=True),
    _d("connections.max.idle.ms", Type.LONG, "600000", least=0, read_only=True),
    _d("default.replication.factor", Type.INT, "1", read_only=True),
    _d("delete.topic.enable", Type.BOOLEAN, "true", read_only=True),
    _d("errors.deadletterqueue.auto.create.topics.enable", Type.BOOLEAN, "false"),
    _d("errors.deadletterqueue.topic.name.prefix", Type.STRING, "dlq."),
    _d("fetch.max.bytes", Type.INT, "16777216", least=1024, read_only=True),
    _d("group.consumer.heartbeat.interval.ms", Type.INT, "5000", least=1),
    _d("group.consumer.max.heartbeat.interval.ms", Type.INT, "15000", least=1),
    _d("group.consumer.max.session.timeout.ms", Type.INT, "60000", least=1),
    _d("group.consumer.min.heartbeat.interval.ms", Type.INT, "5000", least=1),
    _d("group.consumer.min.session.timeout.ms", Type.INT, "45000", least=1),
    _d("group.consumer.session.timeout.ms", Type.INT, "45000", least=1),
    _d("group.coordinator.rebalance.protocols", Type.LIST, "classic,consumer,share", read_only=True),
    _d("group.initial.rebalance.delay.ms", Type.INT, "100", least=0),
    _d("group.max.session.timeout.ms", Type.INT, "1800000", least=1),
    _d("group.max.size", Type.INT, str(2**31 - 1), least=1),
    _d("group.min.session.timeout.ms", Type.INT, "6000", least=1),
    _d("group.share.delivery.count.limit", Type.INT, "5", least=2, most=10),
    _d("group.share.heartbeat.interval.ms", Type.INT, "5000", least=1),
    _d("group.share.max.groups", Type.SHORT, "10", least=1, most=100),
    _d("group.share.max.size", Type.SHORT, "200", least=1, most=1000),
    _d("group.share.partition.max.record.locks", Type.INT, "2000", least=100, most=10000),
    _d("group.share.record.lock.duration.ms", Type.INT, "30000", least=1000, most=3600000),
    _d("group.share.session.timeout.ms", Type.INT, "45000", least=1),
    _d("listeners", Type.LIST, "", read_only=True),
    _d("log.dirs", Type.LIST, "", read_only=True),
    _d("max.connections.per.ip", Type.INT, str(2**31 - 1), least=0, read_only=True),
    _d("node.id", Type.INT, "1", read_only=True),
    _d("num.partitions", Type.INT, "1", least=1, read_only=True),
    _d("offset.metadata.max.bytes", Type.INT, "4096", read_only=True),
    _d("offsets.retention.minutes", Type.INT, "10080", least=1),
    _d("offsets.topic.num.partitions", Type.INT, "1", read_only=True),
    _d("process.roles", Type.LIST, "broker,controller", read_only=True),
    _d("producer.id.expiration.ms", Type.INT, "86400000", least=1, read_only=True),
    _d("sasl.enabled.mechanisms", Type.LIST, "SCRAM-SHA-256,SCRAM-SHA-512", read_only=True),
    _d("sluice.storage.reason", Type.STRING, "", read_only=True, doc="Why the storage is not well; empty when it is."),
    _d("sluice.storage.since", Type.LONG, "0", read_only=True, doc="Since when, in ms since the epoch; 0 when it is."),
    _d(
        "sluice.storage.state",
        Type.STRING,
        "ok",
        read_only=True,
        doc="ok; degraded: serves, see the reason; unwritable: nothing is acknowledged until writing works again; "
        "stopped: nothing is acknowledged until a restart.",
    ),
    _d("socket.request.max.bytes", Type.INT, "104857600", least=1, read_only=True),
    _d("transaction.max.timeout.ms", Type.INT, "900000", least=1, read_only=True),
    _d("transactional.id.expiration.ms", Type.INT, "604800000", least=1, read_only=True),
)


def _broker_defaults_of_topics() -> tuple[Definition, ...]:
    return tuple(
        Definition(
            name=definition.broker_name,
            type=definition.type,
            default=definition.default,
            least=definition.least,
            most=definition.most,
            choices=definition.choices,
            check=definition.check,
        )
        for definition in TOPIC.by_name.values()
        if definition.broker_name is not None
    )


BROKER = Definitions("broker", (*_BROKER_OWN, *_broker_defaults_of_topics()))

GROUP = Definitions(
    "group",
    (
        _d("consumer.assignment.interval.ms", Type.INT, "1000", least=0, most=15000),
        _d("consumer.heartbeat.interval.ms", Type.INT, "5000", least=1),
        _d("consumer.session.timeout.ms", Type.INT, "45000", least=1),
        _d("errors.deadletterqueue.copy.record.enable", Type.BOOLEAN, "true"),
        _d("errors.deadletterqueue.topic.name", Type.STRING, "", check=_dead_letter_topic),
        _d("share.assignment.interval.ms", Type.INT, "1000", least=0, most=15000),
        _d("share.auto.offset.reset", Type.STRING, "latest", check=_offset_reset),
        _d("share.delivery.count.limit", Type.INT, "5", least=2, most=10),
        _d("share.heartbeat.interval.ms", Type.INT, "5000", least=1),
        _d(
            "share.isolation.level",
            Type.STRING,
            "read_uncommitted",
            choices=("read_committed", "read_uncommitted"),
        ),
        _d("share.partition.max.record.locks", Type.INT, "2000", least=100, most=4000),
        _d("share.record.lock.duration.ms", Type.INT, "30000", least=1000, most=60000),
        _d("share.renew.acknowledge.enable", Type.BOOLEAN, "true"),
        _d("share.session.timeout.ms", Type.INT, "45000", least=1),
        _d("streams.heartbeat.interval.ms", Type.INT, "5000", least=1),
        _d("streams.num.standby.replicas", Type.INT, "0", least=0),
        _d("streams.session.timeout.ms", Type.INT, "45000", least=1),
        _d(
            "sluice.deadletterqueue.failure",
            Type.STRING,
            "",
            read_only=True,
            doc="Why the newest dead letter of this share group could not be written; empty once one is. Its record "
            "stays available.",
        ),
    ),
)

CLIENT_METRICS = Definitions(
    "client-metrics",
    (
        _d("interval.ms", Type.INT, "300000", least=100, most=3_600_000),
        _d("match", Type.LIST, "", check=_client_patterns),
        _d("metrics", Type.LIST, ""),
    ),
)
