"""The cluster and the calls that find one's way in it.

ApiVersions 0-4 (KIP-35, KIP-511; features of KIP-584). Metadata 0-13 (topic ids KIP-516; auto-creation; authorised
operations KIP-430): topics that may not be described are hidden, or refused when asked for by name; a topic created
by being asked for is there in the answer. DescribeCluster 0-2 (KIP-700, KIP-919). DescribeTopicPartitions 0 (KIP-966),
paged. FindCoordinator 0-6 (KIP-699, KIP-932): always this node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.api.failures import KNOWN, error_of
from broker.api.registry import Context, handles
from broker.cluster.acls import OPERATIONS_OF, Operation, ResourceType
from broker.cluster.metadata import Topic
from broker.cluster.topic_names import InvalidTopicName, require_valid_name
from broker.server.quotas import MutationQuotaExceeded
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

ApiVersionsResponse = struct("ApiVersionsResponse")
SupportedFeature = struct("ApiVersionsResponse.SupportedFeatureKey")
FinalizedFeature = struct("ApiVersionsResponse.FinalizedFeatureKey")
MetadataResponse = struct("MetadataResponse")
MetadataBroker = struct("MetadataResponse.MetadataResponseBroker")
MetadataTopic = struct("MetadataResponse.MetadataResponseTopic")
MetadataPartition = struct("MetadataResponse.MetadataResponsePartition")
DescribeClusterResponse = struct("DescribeClusterResponse")
DescribedBroker = struct("DescribeClusterResponse.DescribeClusterBroker")
DescribeTopicPartitionsResponse = struct("DescribeTopicPartitionsResponse")
DescribedTopic = struct("DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponseTopic")
DescribedPartition = struct("DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponsePartition")
Cursor = struct("DescribeTopicPartitionsResponse.Cursor")
FindCoordinatorResponse = struct("FindCoordinatorResponse")
Coordinator = struct("FindCoordinatorResponse.Coordinator")

NO_ID = bytes(16)
IDS_FROM = 12
NOT_ASKED = -(2**31)
GROUP, TRANSACTION, SHARE = 0, 1, 2
PARTITIONS_A_PAGE = 2000

FEATURES: tuple[tuple[str, int, int, int], ...] = (
    ("group.version", 0, 1, 1),
    ("metadata.version", 7, 29, 29),
    ("share.version", 0, 1, 1),
    ("transaction.version", 0, 2, 2),
)
"""Name, supported minimum and maximum, finalized level (KIP-584)."""


def advertised_address(ctx: Context) -> tuple[str, int]:
    """Where the peer is told to reach this broker: as configured, else the address it reached already."""
    listener = ctx.listener
    host = listener.advertised_host or ctx.local_address[0]
    return host, listener.advertised_port or ctx.local_address[1]


def operations_bits(ctx: Context, resource_type: ResourceType, name: str) -> int:
    """The operations the peer may do, as a bit field (KIP-430)."""
    return sum(1 << op for op in OPERATIONS_OF[resource_type] if ctx.allows(op, resource_type, name))


@handles(18, min=0, max=5, before_authentication=True)
def api_versions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if header.api_version >= 5:
        wrong = _wrong_node(ctx, request)
        if wrong:
            return ApiVersionsResponse(error_code=wrong)
    if header.api_version >= 3:
        if not _is_software_name(request.client_software_name) or not _is_software_name(
            request.client_software_version
        ):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        ctx.software_name = request.client_software_name
        ctx.software_version = request.client_software_version
    return ApiVersionsResponse(
        api_keys=ctx.broker.advertised,
        supported_features=[
            # KIP-1022: a minimum of 0 is shown from version 4 on only; older clients refuse it.
            SupportedFeature(name=name, min_version=low if header.api_version >= 4 else max(1, low), max_version=high)
            for name, low, high, _ in FEATURES
        ],
        finalized_features_epoch=0,
        finalized_features=[
            FinalizedFeature(name=name, min_version_level=level, max_version_level=level)
            for name, _, _, level in FEATURES
        ],
    )


def _wrong_node(ctx: Context, request: Any) -> ErrorCode:
    """KIP-1242: a client that meant another cluster or node is told to begin anew; it names both or neither."""
    broker = ctx.broker
    if (request.cluster_id is None) != (request.node_id == -1):
        return ErrorCode.INVALID_REQUEST
    if request.cluster_id is None or (request.cluster_id, request.node_id) == (
        broker.metadata.image.cluster_id,
        broker.node_id,
    ):
        return ErrorCode.NONE
    return ErrorCode.REBOOTSTRAP_REQUIRED


def _is_software_name(text: str) -> bool:
    """KIP-511: letters, digits, dots and dashes, beginning and ending with a letter or digit."""
    return bool(text) and text[0].isalnum() and text[-1].isalnum() and text.replace("-", "").replace(".", "").isalnum()


@handles(3, min=0, max=13)
def metadata(ctx: Context, header: RequestHeader, request: Any) -> Any:
    wanted = request.topics
    if wanted is None or (header.api_version == 0 and not wanted):
        image = ctx.broker.metadata.image
        visible = [
            topic for topic in image.topics.values() if ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.name)
        ]
        return _metadata_response(ctx, header, request, [_metadata_topic(ctx, request, topic) for topic in visible])
    topics = []
    missing = []
    for one in {(one.name, one.topic_id): one for one in wanted}.values():
        answer = _asked_for(ctx, header, request, one)
        if answer is None:
            missing.append(one.name)
        else:
            topics.append(answer)
    if missing:
        return _with_created(ctx, header, request, topics, missing)
    return _metadata_response(ctx, header, request, topics)


def _asked_for(ctx: Context, header: RequestHeader, request: Any, one: Any) -> Any:
    """The topic's entry, or None when it should be created."""
    if header.api_version < IDS_FROM and (one.name is None or one.topic_id != NO_ID):
        # Versions 10 and 11 have the fields, but Kafka takes no ids in them.
        return MetadataTopic(error_code=ErrorCode.INVALID_REQUEST, name=one.name or "", topic_id=one.topic_id)
    return _by_id(ctx, request, one.topic_id) if one.name is None else _by_name(ctx, request, one.name)


def _by_id(ctx: Context, request: Any, topic_id: bytes) -> Any:
    topic = ctx.broker.topics.by_id(topic_id)
    if topic is None:
        return MetadataTopic(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=topic_id)
    if not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, topic.name):
        return MetadataTopic(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=None, topic_id=topic_id)
    return _metadata_topic(ctx, request, topic)


def _by_name(ctx: Context, request: Any, name: str) -> Any:
    """The topic's entry, or None when it should be created."""
    if not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name):
        return MetadataTopic(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=name)
    topic = ctx.broker.topics.get(name)
    if topic is not None:
        return _metadata_topic(ctx, request, topic)
    try:
        require_valid_name(name)
    except InvalidTopicName:
        return MetadataTopic(error_code=ErrorCode.INVALID_TOPIC_EXCEPTION, name=name)
    if not request.allow_auto_topic_creation or not auto_creates(ctx):
        return MetadataTopic(error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name=name)
    may = ctx.allows(Operation.CREATE, ResourceType.CLUSTER) or ctx.allows(Operation.CREATE, ResourceType.TOPIC, name)
    if not may:
        return MetadataTopic(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=name)
    if ctx.broker.topics.colliding(name) is not None:
        return MetadataTopic(error_code=ErrorCode.INVALID_TOPIC_EXCEPTION, name=name)
    return None


def auto_creates(ctx: Context) -> bool:
    """Whether topics are created by being used: told so by the operator, else by the environment."""
    image = ctx.broker.metadata.image
    for name in (str(ctx.broker.node_id), ""):
        told = image.configs_of("broker", name).get("auto.create.topics.enable")
        if told is not None:
            return told.lower() == "true"
    return ctx.broker.config.auto_create_topics


async def _with_created(
    ctx: Context, header: RequestHeader, request: Any, topics: list[Any], missing: list[str]
) -> Any:
    broker, now = ctx.broker, ctx.broker.clock.monotonic()
    spending = broker.quotas.mutations(ctx.principal, header.client_id, strict=True, now=now)
    for name in missing:
        try:
            spending.spend(broker.config.default_partitions, now)
            created = await broker.topics.create(name, broker.config.default_partitions)
        except MutationQuotaExceeded:  # Metadata has no code for it: the client asks again, as of a topic still to come
            topics.append(MetadataTopic(error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name=name))
        except KNOWN as error:
            topics.append(MetadataTopic(error_code=error_of(error), name=name))
        else:
            topics.append(_metadata_topic(ctx, request, created))
    return _metadata_response(ctx, header, request, topics)


def _metadata_topic(ctx: Context, request: Any, topic: Topic) -> Any:
    me = [ctx.broker.node_id]
    return MetadataTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=[
            MetadataPartition(
                partition_index=partition.index,
                leader_id=me[0],
                leader_epoch=partition.leader_epoch,
                replica_nodes=me,
                isr_nodes=me,
            )
            for partition in ctx.broker.topics.partitions(topic.name)
        ],
        topic_authorized_operations=operations_bits(ctx, ResourceType.TOPIC, topic.name)
        if request.include_topic_authorized_operations
        else NOT_ASKED,
    )


def _metadata_response(ctx: Context, header: RequestHeader, request: Any, topics: list[Any]) -> Any:
    host, port = advertised_address(ctx)
    return MetadataResponse(
        brokers=[MetadataBroker(node_id=ctx.broker.node_id, host=host, port=port)],
        cluster_id=ctx.broker.metadata.image.cluster_id,
        controller_id=ctx.broker.node_id,
        topics=topics,
        cluster_authorized_operations=_cluster_operations(ctx, request.include_cluster_authorized_operations),
    )


def _cluster_operations(ctx: Context, asked: bool) -> int:
    if not asked:
        return NOT_ASKED
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return 0
    return operations_bits(ctx, ResourceType.CLUSTER, "kafka-cluster")


@handles(60, min=0, max=2)
def describe_cluster(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if request.endpoint_type != 1:
        unsupported = request.endpoint_type == 2
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE if unsupported else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message="This is a broker, not a controller." if unsupported else "Unsupported endpoint type.",
        )
    host, port = advertised_address(ctx)
    return DescribeClusterResponse(
        cluster_id=ctx.broker.metadata.image.cluster_id,
        controller_id=ctx.broker.node_id,
        brokers=[DescribedBroker(broker_id=ctx.broker.node_id, host=host, port=port)],
        cluster_authorized_operations=_cluster_operations(ctx, request.include_cluster_authorized_operations),
    )


@handles(75, min=0, max=0)
def describe_topic_partitions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    topics = ctx.broker.topics
    start_topic, start_index = "", 0
    if request.cursor is not None:
        start_topic, start_index = request.cursor.topic_name, request.cursor.partition_index
        if start_index < 0:
            return _bad_cursor(request, start_topic)
    asked = {one.name for one in request.topics}
    everything = not asked
    names: Iterable[str] = ctx.broker.metadata.image.topics if everything else asked
    left = max(1, min(request.response_partition_limit, PARTITIONS_A_PAGE))
    answer = []
    for name in sorted(names):
        if name < start_topic:
            continue
        if not ctx.allows(Operation.DESCRIBE, ResourceType.TOPIC, name):
            if not everything:
                answer.append(DescribedTopic(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED, name=name))
            continue
        topic = topics.get(name)
        if topic is None:
            operations = operations_bits(ctx, ResourceType.TOPIC, name)
            unknown = _unknown_or_invalid(name)
            answer.append(DescribedTopic(error_code=unknown, name=name, topic_authorized_operations=operations))
            continue
        if left <= 0:
            return DescribeTopicPartitionsResponse(
                topics=answer, next_cursor=Cursor(topic_name=name, partition_index=0)
            )
        first = start_index if name == start_topic else 0
        page = topics.partitions(name)[first : first + left]
        left -= len(page)
        answer.append(_described(ctx, topic, page))
        if first + len(page) < topic.partitions:
            return DescribeTopicPartitionsResponse(
                topics=answer, next_cursor=Cursor(topic_name=name, partition_index=first + len(page))
            )
    return DescribeTopicPartitionsResponse(topics=answer)


def _bad_cursor(request: Any, start_topic: str) -> Any:
    names = sorted(one.name for one in request.topics if one.name >= start_topic)
    return DescribeTopicPartitionsResponse(
        topics=[DescribedTopic(error_code=ErrorCode.INVALID_REQUEST, name=name) for name in names]
    )


def _unknown_or_invalid(name: str) -> ErrorCode:
    try:
        require_valid_name(name)
    except InvalidTopicName:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _described(ctx: Context, topic: Topic, partitions: list[Any]) -> Any:
    me = [ctx.broker.node_id]
    return DescribedTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=[
            DescribedPartition(
                partition_index=partition.index,
                leader_id=me[0],
                leader_epoch=partition.leader_epoch,
                replica_nodes=me,
                isr_nodes=me,
                eligible_leader_replicas=[],
                last_known_elr=[],
            )
            for partition in partitions
        ],
        topic_authorized_operations=operations_bits(ctx, ResourceType.TOPIC, topic.name),
    )


@handles(10, min=0, max=6)
def find_coordinator(ctx: Context, header: RequestHeader, request: Any) -> Any:
    keys = request.coordinator_keys if header.api_version >= 4 else [request.key]
    host, port = advertised_address(ctx)
    found = []
    for key in keys:
        error, message = _coordinator_error(ctx, header, request.key_type, key)
        here = error == ErrorCode.NONE
        found.append(
            Coordinator(
                key=key,
                node_id=ctx.broker.node_id if here else -1,
                host=host if here else "",
                port=port if here else -1,
                error_code=error,
                error_message=message,
            )
        )
    if header.api_version >= 4:
        return FindCoordinatorResponse(coordinators=found)
    one = found[0]
    return FindCoordinatorResponse(
        error_code=one.error_code, error_message=one.error_message, node_id=one.node_id, host=one.host, port=one.port
    )


def _coordinator_error(ctx: Context, header: RequestHeader, kind: int, key: str) -> tuple[ErrorCode, str | None]:
    if kind == GROUP:
        if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, key):
            return ErrorCode.GROUP_AUTHORIZATION_FAILED, None
    elif kind == TRANSACTION:
        if not ctx.allows(Operation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, key):
            return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, None
    elif kind == SHARE and header.api_version >= 6:
        if not ctx.allows(Operation.CLUSTER_ACTION, ResourceType.CLUSTER):
            return ErrorCode.CLUSTER_AUTHORIZATION_FAILED, None
        if key.count(":") < 2 or not key.rpartition(":")[2].isdigit():
            return ErrorCode.INVALID_REQUEST, "A share coordinator's key is group:topic id:partition."
    else:
        return ErrorCode.INVALID_REQUEST, "Unknown coordinator key type"
    return ErrorCode.NONE, None
