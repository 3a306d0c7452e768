"""Config definitions: names, types, defaults and what is a valid value, as Kafka names them.

Values are kept and sent as text, as Kafka does; `Definition.parse` gives the typed value and refuses a bad one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1


class InvalidConfig(ValueError):
    """A config that does not exist, or a value it can't have; the message is for the client (INVALID_CONFIG)."""


class InvalidAlteration(InvalidConfig):
    """A change that can't be made as it was asked for, whatever the values (INVALID_REQUEST)."""


class Type(IntEnum):
    """Types as DescribeConfigs numbers them."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Source(IntEnum):
    """Where a value comes from, as DescribeConfigs numbers it."""

    UNKNOWN = 0
    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ResourceKind(IntEnum):
    """Resource types of the config APIs."""

    UNKNOWN = 0
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class AlterOperation(IntEnum):
    """Operations of IncrementalAlterConfigs (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


_RANGES: dict[Type, tuple[int, int]] = {
    Type.INT: (-(2**31), INT_MAX),
    Type.SHORT: (-(2**15), 2**15 - 1),
    Type.LONG: (-(2**63), LONG_MAX),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One config. `default` is text; `least` and `most` bound numbers; `choices` bound strings and list items."""

    name: str
    type: Type
    default: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    broker_name: str | None = None
    """The broker config that is this one's default (Kafka's synonym)."""
    read_only: bool = False
    sensitive: bool = False
    check: Callable[[Any], str | None] | None = None
    """A rule of its own: the complaint, or None."""
    doc: str = ""

    def parse(self, text: str | None) -> Any:
        """The typed value; raises InvalidConfig."""
        if text is None:
            raise InvalidConfig(f"Null value not supported for config {self.name}.")
        value = self._typed(text)
        if self.least is not None and value < self.least:
            raise self._invalid(text, f"Value must be at least {self.least:g}" if value else "Value must be positive")
        if self.most is not None and value > self.most:
            raise self._invalid(text, f"Value must be no more than {self.most:g}")
        if self.choices:
            for item in value if isinstance(value, list) else [value]:
                if item not in self.choices:
                    raise self._invalid(text, f"String must be one of: {', '.join(self.choices)}")
        complaint = self.check(value) if self.check else None
        if complaint:
            raise self._invalid(text, complaint)
        return value

    def _typed(self, text: str) -> Any:
        stripped = text.strip()
        if self.type == Type.BOOLEAN:
            if stripped.lower() not in ("true", "false"):
                raise self._invalid(text, "Expected value to be either true or false")
            return stripped.lower() == "true"
        if self.type in _RANGES:
            low, high = _RANGES[self.type]
            try:
                number = int(stripped)
            except ValueError:
                number = high + 1
            if not low <= number <= high:
                raise self._invalid(text, f"Not a number of type {self.type.name}")
            return number
        if self.type == Type.DOUBLE:
            try:
                return float(stripped)
            except ValueError:
                raise self._invalid(text, "Not a number of type DOUBLE") from None
        if self.type == Type.LIST:
            return [item.strip() for item in text.split(",") if item.strip()]
        return stripped

    def _invalid(self, text: str, why: str) -> InvalidConfig:
        return InvalidConfig(f"Invalid value {text} for configuration {self.name}: {why}")


class Definitions:
    """The configs of one kind of resource."""

    def __init__(
        self,
        kind: str,
        definitions: Iterable[Definition],
        *,
        together: Callable[[Callable[[str], Any]], str | None] | None = None,
    ) -> None:
        """`together`: given a way to look values up, the complaint about those that don't go together, or None."""
        self.kind = kind
        self.by_name = {definition.name: definition for definition in definitions}
        self._together = together

    def value(self, name: str, text: str | None) -> Any:
        """The typed value of a config that holds `text`; None: the default."""
        definition = self.by_name[name]
        return definition.parse(definition.default if text is None else text)

    def _require_together(self, configs: Mapping[str, str | None]) -> None:
        complaint = self._together and self._together(lambda name: self.value(name, configs.get(name)))
        if complaint:
            raise InvalidConfig(complaint)

    def validate(self, configs: Mapping[str, str | None]) -> None:
        """Raise InvalidConfig for the first config that is unknown or has a bad value."""
        for name, value in configs.items():
            definition = self.by_name.get(name)
            if definition is None:
                raise InvalidConfig(f"Unknown {self.kind} config name: {name}")
            definition.parse(value)
        self._require_together(configs)

    def altered(self, now: Mapping[str, str], operations: Iterable[tuple[str, int, str | None]]) -> dict[str, str]:
        """The configs after IncrementalAlterConfigs' (name, operation, value)s; raises InvalidConfig."""
        result = dict(now)
        seen: set[str] = set()
        for name, operation, value in operations:
            definition = self.by_name.get(name)
            if definition is None:
                raise InvalidConfig(f"Unknown {self.kind} config name: {name}")
            if name in seen:
                raise InvalidAlteration(f"Error due to duplicate config keys: {name}")
            seen.add(name)
            if operation == AlterOperation.DELETE:
                result.pop(name, None)
                continue
            if operation in (AlterOperation.APPEND, AlterOperation.SUBTRACT):
                value = self._merged(definition, result.get(name), operation, value)
            elif operation != AlterOperation.SET:
                raise InvalidConfig(f"Unknown operation {operation} for config {name}")
            if value is None:
                raise InvalidAlteration(f"Null value not supported for config {name}.")
            definition.parse(value)
            result[name] = value
        self._require_together(result)
        return result

    @staticmethod
    def _merged(definition: Definition, now: str | None, operation: int, value: str | None) -> str:
        if definition.type != Type.LIST:
            raise InvalidConfig(f"Config value append is not allowed for config key: {definition.name}")
        if value is None:
            raise InvalidConfig(f"Null value not supported for config {definition.name}.")
        before = [item for item in (definition.default if now is None else now).split(",") if item]
        named = [item for item in value.split(",") if item]
        if operation == AlterOperation.APPEND:
            return ",".join(before + [item for item in named if item not in before])
        return ",".join(item for item in before if item not in named)
