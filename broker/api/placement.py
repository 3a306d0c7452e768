"""Where partitions are and who leads them. One node holds and leads everything, and answers as such a Kafka would.

DescribeLogDirs 1-5 (KIP-113, KIP-827; KAFKA_STORAGE_ERROR while the folder takes no writes), AlterReplicaLogDirs 1-2,
ElectLeaders 0-2 (KIP-460: the leader is elected already), AlterPartitionReassignments 0-1 and
ListPartitionReassignments 0 (KIP-455), DescribeQuorum 0-2 (KIP-595), UpdateFeatures 0-2 (KIP-584: the levels are
fixed), UnregisterBroker 0.
"""

from __future__ import annotations

import shutil
from typing import Any

from broker.api.cluster import FEATURES, advertised_address
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeLogDirsResponse = struct("DescribeLogDirsResponse")
LogDir = struct("DescribeLogDirsResponse.DescribeLogDirsResult")
LogDirTopic = struct("DescribeLogDirsResponse.DescribeLogDirsTopic")
LogDirPartition = struct("DescribeLogDirsResponse.DescribeLogDirsPartition")
AlterReplicaLogDirsResponse = struct("AlterReplicaLogDirsResponse")
MovedTopic = struct("AlterReplicaLogDirsResponse.AlterReplicaLogDirTopicResult")
MovedPartition = struct("AlterReplicaLogDirsResponse.AlterReplicaLogDirPartitionResult")
ElectLeadersResponse = struct("ElectLeadersResponse")
Election = struct("ElectLeadersResponse.ReplicaElectionResult")
ElectedPartition = struct("ElectLeadersResponse.PartitionResult")
AlterReassignmentsResponse = struct("AlterPartitionReassignmentsResponse")
ReassignedTopic = struct("AlterPartitionReassignmentsResponse.ReassignableTopicResponse")
ReassignedPartition = struct("AlterPartitionReassignmentsResponse.ReassignablePartitionResponse")
ListReassignmentsResponse = struct("ListPartitionReassignmentsResponse")
UpdateFeaturesResponse = struct("UpdateFeaturesResponse")
UpdatedFeature = struct("UpdateFeaturesResponse.UpdatableFeatureResult")
DescribeQuorumResponse = struct("DescribeQuorumResponse")
QuorumTopic = struct("DescribeQuorumResponse.TopicData")
QuorumPartition = struct("DescribeQuorumResponse.PartitionData")
QuorumReplica = struct("DescribeQuorumResponse.ReplicaState")
QuorumNode = struct("DescribeQuorumResponse.Node")
QuorumListener = struct("DescribeQuorumResponse.Listener")
UnregisterBrokerResponse = struct("UnregisterBrokerResponse")

NOT_ALLOWED = "Cluster authorization failed."


@handles(35, min=1, max=5)
def describe_log_dirs(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return DescribeLogDirsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    broker = ctx.broker
    if request.topics is None:
        wanted: dict[str, set[int] | None] = dict.fromkeys(broker.metadata.image.topics)
    else:
        wanted = {one.topic: set(one.partitions) for one in request.topics}
    topics = []
    for name, indexes in wanted.items():
        partitions = [
            LogDirPartition(partition_index=partition.index, partition_size=partition.size)
            for partition in broker.topics.partitions(name)
            if indexes is None or partition.index in indexes
        ]
        if partitions:
            topics.append(LogDirTopic(name=name, partitions=partitions))
    folder = broker.config.folder
    disk = shutil.disk_usage(folder)
    failed = not broker.store.health().writable
    return DescribeLogDirsResponse(
        results=[
            LogDir(
                error_code=ErrorCode.KAFKA_STORAGE_ERROR if failed else ErrorCode.NONE,
                log_dir=str(folder.absolute()),
                topics=topics,
                total_bytes=disk.total,
                usable_bytes=disk.free,
            )
        ]
    )


@handles(34, min=1, max=2)
def alter_replica_log_dirs(ctx: Context, header: RequestHeader, request: Any) -> Any:
    allowed = ctx.allows(Operation.ALTER, ResourceType.CLUSTER)
    here = str(ctx.broker.config.folder.absolute())
    topics: dict[str, Any] = {}
    for folder in request.dirs:
        for topic in folder.topics:
            answer = topics.setdefault(topic.name, MovedTopic(topic_name=topic.name))
            for index in topic.partitions:
                if not allowed:
                    code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
                elif folder.path != here:
                    code = ErrorCode.LOG_DIR_NOT_FOUND
                elif ctx.broker.partition(topic.name, index) is None:
                    code = ErrorCode.REPLICA_NOT_AVAILABLE
                else:
                    code = ErrorCode.NONE
                answer.partitions.append(MovedPartition(partition_index=index, error_code=code))
    return AlterReplicaLogDirsResponse(results=list(topics.values()))


@handles(43, min=0, max=2)
def elect_leaders(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        return ElectLeadersResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    if request.topic_partitions is None:
        # Asked for all: only partitions whose leader changed are listed, and none did.
        return ElectLeadersResponse()
    results = []
    for topic in request.topic_partitions:
        answers = []
        for index in topic.partitions:
            if ctx.broker.partition(topic.topic, index) is None:
                code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist."
            else:
                code, message = ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."
            answers.append(ElectedPartition(partition_id=index, error_code=code, error_message=message))
        results.append(Election(topic=topic.topic, partition_result=answers))
    return ElectLeadersResponse(replica_election_results=results)


@handles(45, min=0, max=1)
def alter_partition_reassignments(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        return AlterReassignmentsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    me = ctx.broker.node_id
    responses = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            code, message = ErrorCode.NONE, None
            if ctx.broker.partition(topic.name, wanted.partition_index) is None:
                code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist."
            elif wanted.replicas is None:
                code, message = ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "No reassignment is in progress."
            elif list(wanted.replicas) != [me]:
                code = ErrorCode.INVALID_REPLICA_ASSIGNMENT
                message = f"Replica assignment must be [{me}]: this cluster has one broker."
            answers.append(
                ReassignedPartition(partition_index=wanted.partition_index, error_code=code, error_message=message)
            )
        responses.append(ReassignedTopic(name=topic.name, partitions=answers))
    return AlterReassignmentsResponse(
        error_message=None,
        allow_replication_factor_change=request.allow_replication_factor_change,
        responses=responses,
    )


@handles(46, min=0, max=0)
def list_partition_reassignments(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return ListReassignmentsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    return ListReassignmentsResponse(error_message=None)


@handles(57, min=0, max=2)
def update_features(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        return UpdateFeaturesResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    levels = {name: level for name, _, _, level in FEATURES}
    results = []
    for update in request.feature_updates:
        if levels.get(update.feature) == update.max_version_level:
            results.append(UpdatedFeature(feature=update.feature, error_message=None))
        else:
            results.append(
                UpdatedFeature(
                    feature=update.feature,
                    error_code=ErrorCode.INVALID_UPDATE_VERSION,
                    error_message=f"The level of {update.feature} is fixed in this broker.",
                )
            )
    failed = next((one for one in results if one.error_code), None)
    if failed is not None and header.api_version >= 2:
        return UpdateFeaturesResponse(error_code=failed.error_code, error_message=failed.error_message)
    return UpdateFeaturesResponse(error_message=None, results=results)


@handles(55, min=0, max=2)
def describe_quorum(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return DescribeQuorumResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    me = ctx.broker.node_id
    log = ctx.broker.metadata_partition
    now = ctx.broker.clock.now()
    voter = QuorumReplica(
        replica_id=me, log_end_offset=log.log_end_offset, last_fetch_timestamp=now, last_caught_up_timestamp=now
    )
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            if topic.topic_name != "__cluster_metadata" or wanted.partition_index != 0:
                answers.append(
                    QuorumPartition(
                        partition_index=wanted.partition_index,
                        error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        error_message="There is no quorum for this partition.",
                    )
                )
                continue
            answers.append(
                QuorumPartition(
                    partition_index=0,
                    error_message=None,
                    leader_id=me,
                    leader_epoch=log.leader_epoch,
                    high_watermark=log.high_watermark,
                    current_voters=[voter],
                )
            )
        topics.append(QuorumTopic(topic_name=topic.topic_name, partitions=answers))
    host, port = advertised_address(ctx)
    node = QuorumNode(node_id=me, listeners=[QuorumListener(name=ctx.listener.name, host=host, port=port)])
    return DescribeQuorumResponse(error_message=None, topics=topics, nodes=[node])


@handles(64, min=0, max=0)
def unregister_broker(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        return UnregisterBrokerResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    return UnregisterBrokerResponse(
        error_code=ErrorCode.BROKER_ID_NOT_REGISTERED
        if request.broker_id != ctx.broker.node_id
        else ErrorCode.INVALID_REQUEST,
        error_message="The only broker can't be unregistered."
        if request.broker_id == ctx.broker.node_id
        else f"Broker ID {request.broker_id} is not currently registered",
    )
