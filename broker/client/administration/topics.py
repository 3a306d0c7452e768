"""The admin's calls for the cluster and its topics: Metadata, CreateTopics, DeleteTopics, CreatePartitions."""

from collections.abc import Iterable, Sequence

from broker.client.administration.link import CONTROLLER, Link
from broker.client.administration.types import Cluster, NewTopic, Node, Partition, Topic
from broker.client.errors import ClientError, NotAuthorized, UnknownTopic, from_code, name_of
from broker.wire import codec
from broker.wire.codec import Struct

CREATE_TOPICS, DELETE_TOPICS, CREATE_PARTITIONS = 19, 20, 37


async def cluster(link: Link) -> Cluster:
    answer = await link.metadata([])
    nodes = [Node(id=each.node_id, host=each.host, port=each.port, rack=each.rack) for each in answer.brokers]
    return Cluster(
        id=answer.cluster_id or "", controller=answer.controller_id, brokers=tuple(sorted(nodes, key=lambda n: n.id))
    )


async def topics(link: Link, names: Iterable[str] | None) -> dict[str, Topic]:
    wanted = None if names is None else list(dict.fromkeys(names))
    if wanted == []:
        return {}
    found = {}
    for each in (await link.metadata(wanted)).topics:
        if each.error_code:
            error = from_code(each.error_code)
            if not isinstance(error, UnknownTopic | NotAuthorized):
                raise error
            continue
        found[each.name] = _topic(each)
    return found


def _topic(each: Struct) -> Topic:
    partitions = [
        Partition(
            index=part.partition_index,
            leader=part.leader_id,
            leader_epoch=part.leader_epoch,
            replicas=tuple(part.replica_nodes),
            in_sync=tuple(part.isr_nodes),
            error=name_of(part.error_code) if part.error_code else "",
        )
        for part in each.partitions
    ]
    partitions.sort(key=lambda part: part.index)
    return Topic(name=each.name, id=each.topic_id.hex(), internal=each.is_internal, partitions=tuple(partitions))


async def create(link: Link, new: Sequence[NewTopic], *, validate_only: bool) -> dict[str, ClientError | None]:
    make, config = codec.struct("CreateTopicsRequest.CreatableTopic"), "CreateTopicsRequest.CreatableTopicConfig"
    request = codec.struct("CreateTopicsRequest")(
        topics=[
            make(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication,
                configs=[codec.struct(config)(name=key, value=value) for key, value in topic.configs.items()],
            )
            for topic in new
        ],
        timeout_ms=int(link.timeout * 1000),
        validate_only=validate_only,
    )
    answer = await link.ask(CREATE_TOPICS, request, CONTROLLER, reads=False)
    return {each.name: _error(each) for each in answer.topics}


async def delete(link: Link, names: Iterable[str]) -> dict[str, ClientError | None]:
    wanted = list(names)
    make = codec.struct("DeleteTopicsRequest.DeleteTopicState")
    request = codec.struct("DeleteTopicsRequest")(
        topics=[make(name=name) for name in wanted], topic_names=wanted, timeout_ms=int(link.timeout * 1000)
    )
    answer = await link.ask(DELETE_TOPICS, request, CONTROLLER, reads=False)
    link.forget()
    return {each.name: _error(each) for each in answer.responses}


async def add_partitions(link: Link, topic: str, total: int, *, validate_only: bool) -> None:
    make = codec.struct("CreatePartitionsRequest.CreatePartitionsTopic")
    request = codec.struct("CreatePartitionsRequest")(
        topics=[make(name=topic, count=total, assignments=None)],
        timeout_ms=int(link.timeout * 1000),
        validate_only=validate_only,
    )
    answer = await link.ask(CREATE_PARTITIONS, request, CONTROLLER, reads=False)
    for each in answer.results:
        error = _error(each)
        if error is not None:
            raise error


def _error(each: Struct) -> ClientError | None:
    return from_code(each.error_code, each.error_message) if each.error_code else None
