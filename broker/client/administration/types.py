"""What the admin speaks in: topics, partitions, groups, members, offsets, configs, ACLs, users, quotas, log
dirs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from broker.client.records import TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: int
    host: str
    port: int
    rack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    id: str
    controller: int
    brokers: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """`leader` is -1 while there is none; `error` is Kafka's name of what is wrong with the partition, or
    ""."""

    index: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """`id` is the topic's 16-byte UUID as hex (32 characters); it is never reused."""

    name: str
    id: str
    internal: bool
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """`partitions` and `replication` of -1 leave the number to the cluster."""

    name: str
    partitions: int = -1
    replication: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)


class At(IntEnum):
    """Places in a log that ListOffsets knows by name; any other argument is a timestamp in epoch
    milliseconds."""

    LATEST = -1
    EARLIEST = -2
    MAX_TIMESTAMP = -3


@dataclass(frozen=True, slots=True)
class FoundOffset:
    """An offset that ListOffsets found. `offset` is -1 where no record is as young as the timestamp asked
    for. `error` is set instead of raising, so that one missing partition doesn't spoil a call for thousands."""

    offset: int
    timestamp: int = -1
    leader_epoch: int = -1
    error: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """An offset that a group committed: the next one to be read."""

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class GroupKind(StrEnum):
    CLASSIC = "classic"
    CONSUMER = "consumer"
    SHARE = "share"
    STREAMS = "streams"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupListing:
    name: str
    kind: GroupKind
    state: str
    protocol_type: str = "consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`instance` is the static member's id or None. `target` is where a KIP-848 group is heading, None
    elsewhere."""

    id: str
    instance: str | None
    client_id: str
    host: str
    assignment: tuple[TopicPartition, ...]
    target: tuple[TopicPartition, ...] | None = None
    epoch: int | None = None
    subscribed: tuple[str, ...] = ()
    rack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    name: str
    kind: GroupKind
    state: str
    assignor: str
    coordinator: int
    members: tuple[Member, ...]
    epoch: int | None = None
    protocol_type: str = "consumer"


class ResourceType(IntEnum):
    """What a configuration or an ACL belongs to. The two enumerations of the protocol differ: see
    CONFIG_CODES."""

    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class ConfigKind(IntEnum):
    """Whose configuration: the protocol's ConfigResource types."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


@dataclass(frozen=True, slots=True)
class ConfigResource:
    """`ConfigResource(ConfigKind.TOPIC, "orders")`; the name of the brokers' common default is ""."""

    kind: ConfigKind
    name: str


class ConfigSource(IntEnum):
    UNKNOWN = 0
    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """`value` is None where it is secret. `type` is one of boolean, string, int, short, long, double, list,
    class, password or "" (not told)."""

    name: str
    value: str | None
    source: ConfigSource
    read_only: bool = False
    sensitive: bool = False
    type: str = ""
    documentation: str = ""

    @property
    def default(self) -> bool:
        return self.source in (
            ConfigSource.DEFAULT,
            ConfigSource.STATIC_BROKER,
            ConfigSource.DYNAMIC_DEFAULT_BROKER,
        )


class Pattern(IntEnum):
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class Permission(IntEnum):
    ANY = 1
    DENY = 2
    ALLOW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Acl:
    """One rule. `principal` is "User:alice" or "User:*"; `host` an address or "*"."""

    resource: ResourceType
    name: str
    pattern: Pattern
    principal: str
    host: str
    operation: Operation
    permission: Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class AclFilter:
    """None and ANY match everything; `Pattern.MATCH` finds every rule that would apply to `name`."""

    resource: ResourceType = ResourceType.ANY
    name: str | None = None
    pattern: Pattern = Pattern.ANY
    principal: str | None = None
    host: str | None = None
    operation: Operation = Operation.ANY
    permission: Permission = Permission.ANY


class Scram(IntEnum):
    """SCRAM mechanisms, by their protocol numbers."""

    SHA_256 = 1
    SHA_512 = 2

    @property
    def label(self) -> str:
        return "SCRAM-SHA-256" if self is Scram.SHA_256 else "SCRAM-SHA-512"


@dataclass(frozen=True, slots=True)
class Credential:
    mechanism: Scram
    iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    name: str
    credentials: tuple[Credential, ...]


@dataclass(frozen=True, slots=True)
class QuotaEntity:
    """Whom a quota limits. For each part: None = not part of the entity, "" = the default of that type."""

    user: str | None = None
    client_id: str | None = None
    ip: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """`limits` by Kafka's names: producer_byte_rate, consumer_byte_rate, request_percentage,
    connection_creation_rate, controller_mutation_rate."""

    entity: QuotaEntity
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSize:
    origin: TopicPartition
    size: int
    lag: int = 0
    future: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDir:
    """`total` and `usable` are bytes of the file system, -1 where the broker doesn't say."""

    broker: int
    path: str
    total: int
    usable: int
    logs: tuple[LogSize, ...]
    error: str = ""


class StorageState(StrEnum):
    """What a broker's disk lets it do."""

    OK = "ok"
    DEGRADED = "degraded"  # it serves, but something is damaged or can't be written at its place yet
    UNWRITABLE = "unwritable"  # nothing is acknowledged; heals by itself once writing works again
    STOPPED = "stopped"  # nothing is acknowledged until the broker is restarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """One broker's storage. `since` is epoch ms, 0 when all is well or the broker doesn't say."""

    broker: int
    state: StorageState
    reason: str
    since: int
    paths: tuple[str, ...]  # of its log folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """`started` is epoch ms, -1 when none is under way; `partitions` only where it was described."""

    id: str
    state: str
    producer_id: int
    producer_epoch: int = -1
    timeout_ms: int = -1
    started: int = -1
    coordinator: int = -1
    partitions: tuple[TopicPartition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveProducer:
    """`transaction_start` is the offset of the open transaction's first record, -1 where none is open."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp: int
    coordinator_epoch: int
    transaction_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOffset:
    """Where a share group starts reading a partition; `lag` is -1 where the cluster doesn't say."""

    start: int
    leader_epoch: int = -1
    lag: int = -1
