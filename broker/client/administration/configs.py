"""The admin's calls for configurations: DescribeConfigs, IncrementalAlterConfigs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.client.administration.link import ANY_BROKER, CONTROLLER, Link
from broker.client.administration.types import ConfigEntry, ConfigKind, ConfigResource, ConfigSource
from broker.client.errors import NotAuthorized, UnknownTopic, from_code
from broker.wire import codec

DESCRIBE_CONFIGS, INCREMENTAL_ALTER_CONFIGS = 32, 44
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
TYPES = ("", "boolean", "string", "int", "short", "long", "double", "list", "class", "password")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to do to single entries of a configuration."""

    set: Mapping[str, str]
    delete: tuple[str, ...]
    append: Mapping[str, str]
    subtract: Mapping[str, str]


async def describe(
    link: Link, resources: Iterable[ConfigResource], names: Sequence[str] | None, *, documentation: bool
) -> dict[ConfigResource, tuple[ConfigEntry, ...]]:
    make = codec.struct("DescribeConfigsRequest.DescribeConfigsResource")
    keys = None if names is None else list(names)
    by_broker: dict[int, list[ConfigResource]] = {}
    for resource in resources:
        by_broker.setdefault(_keeper(resource), []).append(resource)
    found = {}
    for broker, wanted in by_broker.items():
        request = codec.struct("DescribeConfigsRequest")(
            resources=[make(resource_type=r.kind, resource_name=r.name, configuration_keys=keys) for r in wanted],
            include_documentation=documentation,
        )
        answer = await link.ask(DESCRIBE_CONFIGS, request, broker)
        for each in answer.results:
            if each.error_code:
                error = from_code(each.error_code, each.error_message)
                if isinstance(error, UnknownTopic | NotAuthorized):
                    continue
                raise error
            resource = ConfigResource(ConfigKind(each.resource_type), each.resource_name)
            found[resource] = tuple(
                ConfigEntry(
                    name=entry.name,
                    value=entry.value,
                    source=_source(entry.config_source),
                    read_only=entry.read_only,
                    sensitive=entry.is_sensitive,
                    type=TYPES[entry.config_type] if 0 <= entry.config_type < len(TYPES) else "",
                    documentation=entry.documentation or "",
                )
                for entry in each.configs
            )
    return found


async def alter(link: Link, resource: ConfigResource, changes: Changes, *, validate_only: bool) -> None:
    make = codec.struct("IncrementalAlterConfigsRequest.AlterableConfig")
    entries = [make(name=name, config_operation=SET, value=value) for name, value in changes.set.items()]
    entries += [make(name=name, config_operation=DELETE, value=None) for name in changes.delete]
    entries += [make(name=name, config_operation=APPEND, value=value) for name, value in changes.append.items()]
    entries += [make(name=name, config_operation=SUBTRACT, value=value) for name, value in changes.subtract.items()]
    target = codec.struct("IncrementalAlterConfigsRequest.AlterConfigsResource")(
        resource_type=resource.kind, resource_name=resource.name, configs=entries
    )
    request = codec.struct("IncrementalAlterConfigsRequest")(resources=[target], validate_only=validate_only)
    keeper = _keeper(resource)
    answer = await link.ask(
        INCREMENTAL_ALTER_CONFIGS, request, CONTROLLER if keeper == ANY_BROKER else keeper, reads=False
    )
    for each in answer.responses:
        if each.error_code:
            raise from_code(each.error_code, each.error_message)


def _keeper(resource: ConfigResource) -> int:
    """A broker's own configuration is known to that broker alone."""
    if resource.kind in (ConfigKind.BROKER, ConfigKind.BROKER_LOGGER) and resource.name.isdigit():
        return int(resource.name)
    return ANY_BROKER


def _source(number: int) -> ConfigSource:
    try:
        return ConfigSource(number)
    except ValueError:
        return ConfigSource.UNKNOWN
