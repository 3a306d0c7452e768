"""Kafka's message definitions as data, read from `messages/kafka.json`: APIs, versions, fields.

The file is made by `tests/tools/kafka_messages.py` from a kafka-clients jar. It is read once, on first use.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MESSAGES = Path(__file__).parent / "messages" / "kafka.json"
NO_VERSION = -1
MAX_VERSION = 32767
Default = int | float | bool | str | None


class UnknownMessage(KeyError):
    """A message, struct or API key that the definitions don't have."""


class UnsupportedVersion(ValueError):
    """A version outside the range the definitions have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """An inclusive range of versions; none is `Versions(low=0, high=NO_VERSION)`."""

    low: int
    high: int

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. `kind` is a primitive's name or "struct"; `array` says that it is a list of them.

    name: snake_case. struct: the struct's dotted name ("FetchRequest.FetchTopic") when kind is "struct".
    tag: number within `tagged` versions, else None. default: as the schema states it, None meaning null;
    arrays, bytes and structs that aren't null start empty whatever `default` says.
    """

    name: str
    kind: str
    array: bool
    struct: str
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int | None
    default: Default
    never_flexible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message or a struct in one: name, the versions its message has, the flexible ones, the fields in order."""

    name: str
    versions: Versions
    flexible: Versions
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One request/response pair: `name` is "Fetch", its messages are `name + "Request"` and `name + "Response"`.

    min and max are the stable versions the definitions have; `unstable` is the version above max that exists but
    isn't released yet, or None. flexible_from is the first flexible version, or `MAX_VERSION` when there is none.
    listeners: "broker", "controller".
    """

    key: int
    name: str
    min: int
    max: int
    unstable: int | None
    flexible_from: int
    listeners: tuple[str, ...]


def api(key: int) -> Api:
    """The API of a key; raises UnknownMessage."""
    try:
        return apis()[key]
    except KeyError:
        raise UnknownMessage(key) from None


@cache
def apis() -> dict[int, Api]:
    """Every API by key, in order of keys."""
    found = []
    for name, body in _raw().items():
        if body.get("type") == "request":
            valid, flexible = (
                _versions(body["validVersions"]),
                _versions(body.get("flexibleVersions", "none")),
            )
            unstable = bool(body.get("latestVersionUnstable"))
            found.append(
                Api(
                    key=body["apiKey"],
                    name=name.removesuffix("Request"),
                    min=valid.low,
                    max=valid.high - unstable,
                    unstable=valid.high if unstable else None,
                    flexible_from=MAX_VERSION if flexible.high == NO_VERSION else flexible.low,
                    listeners=tuple(body.get("listeners", ())),
                )
            )
    return {each.key: each for each in sorted(found, key=lambda each: each.key)}


@cache
def message(name: str) -> Message:
    """A message ("FetchRequest") or a struct in it ("FetchRequest.FetchTopic"); raises UnknownMessage."""
    outer, _, inner = name.partition(".")
    body = _raw().get(outer)
    if body is None:
        raise UnknownMessage(name)
    try:
        definitions = _structs(body)[inner] if inner else body["fields"]
    except KeyError:
        raise UnknownMessage(name) from None
    return Message(
        name=name,
        versions=_versions(body["validVersions"]),
        flexible=_versions(body.get("flexibleVersions", "none")),
        fields=tuple(_field(outer, each) for each in definitions),
    )


def message_names() -> list[str]:
    """The names of all messages (requests, responses, headers, internal records), without the structs in them."""
    return list(_raw())


def kafka_version() -> str:
    """The Kafka release the definitions come from."""
    return str(_file()["kafka"])


def snake_case(name: str) -> str:
    """`ThrottleTimeMs` -> `throttle_time_ms`."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


@cache
def _file() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(MESSAGES.read_text(encoding="utf-8"))
    return parsed


def _raw() -> dict[str, Any]:
    messages: dict[str, Any] = _file()["messages"]
    return messages


def _structs(body: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Every struct of a message by name: those defined in place and the common ones."""
    found: dict[str, list[dict[str, Any]]] = {each["name"]: each["fields"] for each in body.get("structs", ())}
    waiting = [*body["fields"], *(field for fields in found.values() for field in fields)]
    while waiting:
        each = waiting.pop()
        if inner := each.get("fields"):
            found[each["type"].removeprefix("[]")] = inner
            waiting.extend(inner)
    return found


def _field(outer: str, raw: dict[str, Any]) -> Field:
    kind = raw["type"].removeprefix("[]")
    is_struct = kind[0].isupper()
    array = raw["type"].startswith("[]")
    return Field(
        name=snake_case(raw["name"]),
        kind="struct" if is_struct else kind,
        array=array,
        struct=f"{outer}.{kind}" if is_struct else "",
        versions=_versions(raw["versions"]),
        nullable=_versions(raw.get("nullableVersions", "none")),
        tagged=_versions(raw.get("taggedVersions", "none")),
        tag=raw.get("tag"),
        default=_default(kind, array or is_struct, raw.get("default")),
        never_flexible=raw.get("flexibleVersions") == "none",
    )


def _default(kind: str, composite: bool, stated: Any) -> Default:
    if stated == "null":
        return None
    if composite or kind == "bytes":
        return ""
    if kind == "records":
        return None
    if kind == "string":
        return str(stated or "")
    if kind == "bool":
        return stated in (True, "true")
    if kind == "float64":
        return float(stated or 0)
    if kind == "uuid":
        return ""
    return int(stated, 0) if isinstance(stated, str) else int(stated or 0)


def _versions(text: str) -> Versions:
    """Kafka's notation: "none", "3", "2-5", "4+"."""
    if text == "none":
        return Versions(low=0, high=NO_VERSION)
    if text.endswith("+"):
        return Versions(low=int(text[:-1]), high=MAX_VERSION)
    low, _, high = text.partition("-")
    return Versions(low=int(low), high=int(high or low))
