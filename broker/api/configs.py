"""Configs: DescribeConfigs 1-4 (synonyms KIP-226, documentation KIP-569), IncrementalAlterConfigs 0-1 (KIP-339),
AlterConfigs 0-2, ListConfigResources 0-1 (KIP-1142; version 0 is ListClientMetricsResources, KIP-714).

Resources: topics, the broker (by its id, or "" for the cluster-wide default), groups (KIP-848, KIP-932, KIP-1191) and
client-metrics subscriptions. `validate_only` checks everything and changes nothing. Broker configs that are set by the
environment are read-only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from broker.api.cluster import advertised_address
from broker.api.failures import error_of
from broker.api.produce import WRITE_PROTECTED
from broker.api.registry import Broker, Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.cluster.config_names import BROKER, CLIENT_METRICS, GROUP, TOPIC
from broker.cluster.configs import Definition, Definitions, InvalidConfig, ResourceKind, Source
from broker.cluster.metadata import Change, topic_change
from broker.cluster.topic_names import InvalidTopicName, require_valid_name
from broker.log.failures import LogError
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeConfigsResponse = struct("DescribeConfigsResponse")
DescribedResource = struct("DescribeConfigsResponse.DescribeConfigsResult")
DescribedConfig = struct("DescribeConfigsResponse.DescribeConfigsResourceResult")
Synonym = struct("DescribeConfigsResponse.DescribeConfigsSynonym")
IncrementalAlterConfigsResponse = struct("IncrementalAlterConfigsResponse")
IncrementallyAltered = struct("IncrementalAlterConfigsResponse.AlterConfigsResourceResponse")
AlterConfigsResponse = struct("AlterConfigsResponse")
Altered = struct("AlterConfigsResponse.AlterConfigsResourceResponse")
ListConfigResourcesResponse = struct("ListConfigResourcesResponse")
ConfigResource = struct("ListConfigResourcesResponse.ConfigResource")

DEFINITIONS: Mapping[int, Definitions] = {
    ResourceKind.TOPIC: TOPIC,
    ResourceKind.BROKER: BROKER,
    ResourceKind.GROUP: GROUP,
    ResourceKind.CLIENT_METRICS: CLIENT_METRICS,
}
STORED_KIND: Mapping[int, str] = {
    ResourceKind.BROKER: "broker",
    ResourceKind.GROUP: "group",
    ResourceKind.CLIENT_METRICS: "client-metrics",
}
DEFAULT_BROKER = ""
CLUSTER_WIDE = {"min.insync.replicas": "1"}
"""What every Kafka cluster with eligible leader replicas (KIP-966) has set for the whole cluster from its birth."""


DEAD_LETTER_FAILURE = "sluice.deadletterqueue.failure"


class Refused(Exception):
    """A resource can't be described or altered; carries the code and the words for the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def effective(broker: Broker, configs: Mapping[str, str]) -> Iterator[tuple[str, str, Source]]:
    """Every topic config with the value that holds and where it comes from."""
    for definition in TOPIC.by_name.values():
        layers = _topic_layers(broker, configs, definition)
        _, value, source = layers[0]
        yield definition.name, value, source


def _topic_layers(broker: Broker, configs: Mapping[str, str], definition: Definition) -> list[tuple[str, str, Source]]:
    """(name, value, source) by precedence: the topic's, the broker's, the cluster's, Kafka's default.

    The name is "" where no broker config stands for it.
    """
    layers = []
    if definition.name in configs:
        layers.append((definition.name, configs[definition.name], Source.TOPIC))
    if definition.broker_name is not None:
        layers += _dynamic_layers(broker, definition.broker_name)
    layers.append((definition.broker_name or "", definition.default, Source.DEFAULT))
    return layers


def _dynamic_layers(broker: Broker, name: str) -> list[tuple[str, str, Source]]:
    image = broker.metadata.image
    layers = []
    for resource, source in (
        (str(broker.node_id), Source.DYNAMIC_BROKER),
        (DEFAULT_BROKER, Source.DYNAMIC_DEFAULT_BROKER),
    ):
        value = image.configs_of("broker", resource).get(name)
        if value is not None:
            layers.append((name, value, source))
        elif resource == DEFAULT_BROKER and name in CLUSTER_WIDE:
            layers.append((name, CLUSTER_WIDE[name], source))
    return layers


def _static_values(ctx: Context) -> dict[str, str]:
    """Broker configs as the environment set them."""
    config = ctx.broker.config
    shown = [listener for listener in config.listeners if not listener.internal]
    host, port = advertised_address(ctx)
    return {
        "advertised.listeners": f"{ctx.listener.name}://{host}:{port}",
        "auto.create.topics.enable": str(config.auto_create_topics).lower(),
        "broker.id": str(ctx.broker.node_id),
        "node.id": str(ctx.broker.node_id),
        "listeners": ",".join(str(listener) for listener in shown),
        "log.dirs": str(config.folder),
        "max.connections.per.ip": str(config.limits.connections_per_address),
        "num.partitions": str(config.default_partitions),
        "sasl.enabled.mechanisms": ",".join(config.mechanisms),
        "socket.request.max.bytes": str(config.limits.frame),
        **ctx.broker.condition.configs(),
    }


@handles(32, min=1, max=4)
def describe_configs(ctx: Context, header: RequestHeader, request: Any) -> Any:
    results = []
    for resource in request.resources:
        try:
            configs = [
                _described(definition, layers, request)
                for definition, layers in _layers_of(ctx, resource.resource_type, resource.resource_name)
                if not resource.configuration_keys or definition.name in resource.configuration_keys
            ]
            error, message = ErrorCode.NONE, None
        except Refused as refusal:
            configs, error, message = [], refusal.code, str(refusal)
        results.append(
            DescribedResource(
                error_code=error,
                error_message=message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
                configs=configs,
            )
        )
    return DescribeConfigsResponse(results=results)


def _described(definition: Definition, layers: list[tuple[str, str, Source]], request: Any) -> Any:
    _, value, source = layers[0]
    return DescribedConfig(
        name=definition.name,
        value=None if definition.sensitive else value,
        read_only=definition.read_only,
        config_source=source,
        is_sensitive=definition.sensitive,
        synonyms=[Synonym(name=name, value=at, source=where) for name, at, where in layers if name]
        if request.include_synonyms
        else [],
        config_type=definition.type,
        documentation=(definition.doc or None) if request.include_documentation else None,
    )


def _layers_of(ctx: Context, kind: int, name: str) -> Iterator[tuple[Definition, list[tuple[str, str, Source]]]]:
    _require(ctx, Operation.DESCRIBE_CONFIGS, kind, name)
    broker = ctx.broker
    if kind == ResourceKind.TOPIC:
        _require_topic_name(name)
        topic = broker.topics.get(name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
        for definition in TOPIC.by_name.values():
            yield definition, _topic_layers(broker, topic.configs, definition)
    elif kind == ResourceKind.BROKER:
        _require_this_broker(broker, name)
        static = _static_values(ctx)
        for definition in BROKER.by_name.values():
            layers = _dynamic_layers(broker, definition.name)
            if name == DEFAULT_BROKER:
                layers = [layer for layer in layers if layer[2] == Source.DYNAMIC_DEFAULT_BROKER]
                if layers:
                    yield definition, layers
                continue
            if definition.name in static:
                layers.append((definition.name, static[definition.name], Source.STATIC_BROKER))
            layers.append((definition.name, definition.default, Source.DEFAULT))
            yield definition, layers
    elif kind in (ResourceKind.GROUP, ResourceKind.CLIENT_METRICS):
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "The resource needs a name.")
        source = Source.GROUP if kind == ResourceKind.GROUP else Source.CLIENT_METRICS
        told = broker.metadata.image.configs_of(STORED_KIND[kind], name)
        failure = broker.shares.dead_letters.failures.get(name) if kind == ResourceKind.GROUP else None
        if failure:
            told = {**told, DEAD_LETTER_FAILURE: failure}
        for definition in DEFINITIONS[kind].by_name.values():
            layers = [(definition.name, told[definition.name], source)] if definition.name in told else []
            synonym = f"group.{definition.name}" if kind == ResourceKind.GROUP else ""
            if synonym in BROKER.by_name:
                layers += _dynamic_layers(broker, synonym)
            layers.append((synonym, definition.default, Source.DEFAULT))
            yield definition, layers
    elif kind == ResourceKind.BROKER_LOGGER:
        _require_this_broker(broker, name)
    else:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {kind}")


def _require_topic_name(name: str) -> None:
    try:
        require_valid_name(name)
    except InvalidTopicName as refusal:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, str(refusal)) from refusal


def _require_this_broker(broker: Broker, name: str) -> None:
    if name not in (str(broker.node_id), DEFAULT_BROKER):
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            f"Unexpected broker id, expected {broker.node_id} or empty string, but received {name}",
        )


def _require(ctx: Context, operation: Operation, kind: int, name: str) -> None:
    if kind == ResourceKind.TOPIC:
        if not ctx.allows(operation, ResourceType.TOPIC, name):
            raise Refused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
    elif kind == ResourceKind.GROUP:
        if not ctx.allows(operation, ResourceType.GROUP, name):
            raise Refused(ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed.")
    elif not ctx.allows(operation, ResourceType.CLUSTER):
        raise Refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")


@handles(44, min=0, max=1)
async def incremental_alter_configs(ctx: Context, header: RequestHeader, request: Any) -> Any:
    def altered(resource: Any, now: Mapping[str, str]) -> dict[str, str]:
        return DEFINITIONS[resource.resource_type].altered(
            now, [(config.name, config.config_operation, config.value) for config in resource.configs]
        )

    answers = await _alter(ctx, request, altered, IncrementallyAltered)
    return IncrementalAlterConfigsResponse(responses=answers)


@handles(33, min=0, max=2)
async def alter_configs(ctx: Context, header: RequestHeader, request: Any) -> Any:
    def altered(resource: Any, now: Mapping[str, str]) -> dict[str, str]:
        return DEFINITIONS[resource.resource_type].altered(
            {}, [(config.name, 0, config.value) for config in resource.configs]
        )

    return AlterConfigsResponse(responses=await _alter(ctx, request, altered, Altered))


async def _alter(ctx: Context, request: Any, altered: Any, answer_type: Any) -> list[Any]:
    answers = []
    changes: list[Change] = []
    named = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    for resource in request.resources:
        error, message = ErrorCode.NONE, None
        try:
            if named[resource.resource_type, resource.resource_name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
            changes.append(_change(ctx, resource, altered))
        except Refused as refusal:
            error, message = refusal.code, str(refusal)
        except InvalidConfig as problem:
            error, message = error_of(problem), str(problem)
        answers.append(
            answer_type(
                error_code=error,
                error_message=message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
        )
    if changes and not request.validate_only:
        try:
            await ctx.broker.metadata.change(changes)
        except LogError as problem:
            for answer in answers:
                answer.error_code = answer.error_code or error_of(problem)
    return answers


def _change(ctx: Context, resource: Any, altered: Any) -> Change:
    """The metadata record that makes the alteration; everything is checked here."""
    kind, name = resource.resource_type, resource.resource_name
    if kind not in DEFINITIONS:
        if kind == ResourceKind.BROKER_LOGGER:
            raise Refused(ErrorCode.INVALID_CONFIG, "The broker's loggers are set by its environment.")
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {kind}")
    _require(ctx, Operation.ALTER_CONFIGS, kind, name)
    image = ctx.broker.metadata.image
    if kind == ResourceKind.TOPIC:
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
        _require_topic_name(name)
        topic = ctx.broker.topics.get(name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
        if name in WRITE_PROTECTED:
            raise Refused(ErrorCode.INVALID_REQUEST, "The broker keeps its own state in this topic.")
        configs = altered(resource, topic.configs)
        key, value = topic_change(topic)
        return key, {**(value or {}), "configs": configs}
    if not name and kind != ResourceKind.BROKER:
        raise Refused(ErrorCode.INVALID_REQUEST, "The resource needs a name.")
    if kind == ResourceKind.BROKER:
        _require_this_broker(ctx.broker, name)
        for config in resource.configs:
            definition = BROKER.by_name.get(config.name)
            if definition is not None and definition.read_only:
                raise Refused(ErrorCode.INVALID_REQUEST, f"Cannot update these configs dynamically: {{{config.name}}}")
    configs = altered(resource, image.configs_of(STORED_KIND[kind], name))
    return ("config", STORED_KIND[kind], name), {"configs": configs} if configs else None


@handles(74, min=0, max=1)
def list_config_resources(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE_CONFIGS, ResourceType.CLUSTER):
        return ListConfigResourcesResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    everything = {
        ResourceKind.TOPIC,
        ResourceKind.BROKER,
        ResourceKind.BROKER_LOGGER,
        ResourceKind.CLIENT_METRICS,
        ResourceKind.GROUP,
    }
    kinds = set(request.resource_types) if header.api_version >= 1 else {ResourceKind.CLIENT_METRICS}
    kinds = kinds or everything
    if not kinds <= everything:
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    broker = ctx.broker
    found: list[tuple[int, str]] = []
    if ResourceKind.TOPIC in kinds:
        found += [
            (ResourceKind.TOPIC, name)
            for name in broker.metadata.image.topics
            if ctx.super_user or not name.startswith("__")
        ]
    for kind in (ResourceKind.BROKER, ResourceKind.BROKER_LOGGER):
        if kind in kinds:
            found.append((kind, str(broker.node_id)))
    for kind in (ResourceKind.CLIENT_METRICS, ResourceKind.GROUP):
        if kind in kinds:
            found += [(kind, name) for stored, name in broker.metadata.image.configs if stored == STORED_KIND[kind]]
    return ListConfigResourcesResponse(
        config_resources=[ConfigResource(resource_type=kind, resource_name=name) for kind, name in found]
    )
