"""Pure: MQTT topic ⇄ broker topic, key and headers.

Uplink. The first enabled route, by (`priority`, name), whose filter matches an MQTT topic decides where a message goes;
if none does, `DEFAULT`. Templates are text with placeholders:

- `{1}`, `{2}`, …: what the filter's wildcards matched, in order (`#` gives the rest of the levels with slashes)
- `{topic}`, `{client_id}`, `{username}`, `{qos}`
- `{payload.a.b}`: a member of a JSON payload (text, number or boolean; list elements by number)
- `{{` and `}}`: braces

What a template can't render, or content the route's rules refuse, is a `Refusal`: the message goes to the gateway's
dead-letter topic with the reason, and is acknowledged there. Topics that a template may create are limited to
`allow` (names with `*`); without it, to names beginning with the template's fixed beginning, which must not be empty.

Downlink. A record of a topic with a downlink route becomes an MQTT message; see `Downlink`. Its templates know
`{key}`, `{topic}`, `{partition}`, `{header.<name>}`, `{payload.…}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from gateway.policy import matches, well_formed

MAX_TOPIC = 249
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"\d+|topic|client_id|username|qos|key|partition|(?:payload|header)\..+\Z")


DISCARD: Final = "discard"
DEAD_LETTER: Final = "dead-letter"
EXPIRED: Final = ("", DISCARD, DEAD_LETTER)  # "": as the gateway's setting says


class BadTemplate(Exception):
    """A template that no message could be rendered with."""


class Unrenderable(Exception):
    """A template needs something that this message doesn't have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A route from MQTT to the broker. `sample` is the share of messages kept (1 = all); the others are acknowledged
    and counted. `message_id` is a template whose result becomes `sluice.message.id` (without one, an MQTT 5 user
    property of that name does); a second message of the same id for the same broker topic within `deduplicate` seconds
    is acknowledged and not stored. `schema` is a JSON Schema; it implies `json_only`."""

    name: str
    filter: str
    topic: str = "mqtt.messages"
    key: str = "{client_id}"
    headers: dict[str, str] = field(default_factory=dict)
    priority: int = 100
    enabled: bool = True
    max_size: int = 0  # bytes, 0 = no limit of its own
    json_only: bool = False
    schema: dict[str, Any] | None = None
    sample: float = 1.0
    message_id: str = ""
    deduplicate: float = 0.0
    allow: tuple[str, ...] = ()
    max_topics: int = 100
    expired: str = ""  # one of EXPIRED: what becomes of its messages that expire before a subscriber had them


@dataclass(frozen=True, slots=True, kw_only=True)
class Downlink:
    """A route from a broker topic to devices. `client_id` names whose inbox a record goes to (a template); "" = no
    particular one: the message is published to whoever subscribes to the rendered MQTT topic."""

    name: str
    topic: str
    mqtt_topic: str
    client_id: str = "{key}"
    qos: int = 1
    retain: bool = False
    expiry: int = 0  # seconds, 0 = never
    enabled: bool = True
    expired: str = ""  # one of EXPIRED


DEFAULT: Final = Uplink(name="", filter="#")


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """An MQTT message as routes see it."""

    topic: str
    payload: bytes
    client_id: str
    username: str = ""
    qos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a message goes. `headers` are the route's own, beside those of contracts.md."""

    route: str
    topic: str
    key: bytes | None
    headers: tuple[tuple[str, str], ...] = ()
    message_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a message can't go where its route says. `reason` is a slug: render, size, json, schema."""

    route: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An MQTT message that a record becomes."""

    route: str
    client_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry: int


Part = str | tuple[str, ...]
Lookup = Callable[[str], str]


@lru_cache(maxsize=4096)
def compiled(template: str) -> tuple[Part, ...]:
    """The parts of a template: text, and placeholders as 1-tuples. Raises BadTemplate."""
    parts: list[Part] = []
    text = ""
    end = 0
    for found in _PLACEHOLDER.finditer(template):
        text += template[end : found.start()]
        end = found.end()
        token = found.group()
        if token in ("{{", "}}"):
            text += token[0]
        elif found.group(1) is None:
            raise BadTemplate(f"a single {token} in {template!r}; write it twice to mean itself")
        elif not _NAME.match(found.group(1)):
            raise BadTemplate(f"{token} is not a placeholder")
        else:
            if text:
                parts.append(text)
            text = ""
            parts.append((found.group(1),))
    text += template[end:]
    if text:
        parts.append(text)
    return tuple(parts)


def placeholders(template: str) -> list[str]:
    """The names in a template."""
    return [part[0] for part in compiled(template) if isinstance(part, tuple)]


def render(template: str, lookup: Lookup) -> str:
    """The template's text; `lookup` raises Unrenderable for what is missing."""
    return "".join(part if isinstance(part, str) else lookup(part[0]) for part in compiled(template))


def captured(topic_filter: str, topic: str) -> tuple[str, ...]:
    """What the wildcards of a matching filter stand for."""
    levels = topic.split("/")
    found = []
    for number, level in enumerate(topic_filter.split("/")):
        if level == "+":
            found.append(levels[number])
        elif level == "#":
            found.append("/".join(levels[number:]))
    return tuple(found)


def valid_topic(name: str) -> bool:
    """Whether a device's message may go to a broker topic of this name; internal topics are never given away."""
    return _TOPIC.match(name) is not None and name not in (".", "..") and not name.startswith("__")


def problems(route: Uplink | Downlink) -> list[str]:
    """What is wrong with a route, for people; an empty list: it may be put in force."""
    found: list[str] = []
    templates: dict[str, str]
    if isinstance(route, Uplink):
        if not well_formed(route.filter):
            found.append(f"filter: {route.filter!r} is not an MQTT topic filter")
        templates = {"topic": route.topic, "key": route.key, "message_id": route.message_id}
        templates |= {f"header {name}": template for name, template in route.headers.items()}
        known = {str(n + 1) for n in range(route.filter.count("+") + route.filter.count("#"))}
        known |= {"topic", "client_id", "username", "qos"}
    else:
        templates = {"mqtt_topic": route.mqtt_topic, "client_id": route.client_id}
        known = {"key", "topic", "partition"}
        if not valid_topic(route.topic):
            found.append(f"topic: {route.topic!r} is not a broker topic name")
        if route.qos not in (0, 1, 2):
            found.append("qos: must be 0, 1 or 2")
    if route.expired not in EXPIRED:
        found.append(f"expired: must be empty, {DISCARD} or {DEAD_LETTER}")
    for label, template in templates.items():
        try:
            names = placeholders(template)
        except BadTemplate as error:
            found.append(f"{label}: {error}")
            continue
        wrong = [
            name
            for name in names
            if name not in known
            and not name.startswith("payload.")
            and not (isinstance(route, Downlink) and name.startswith("header."))
        ]
        found += [f"{label}: {{{name}}} is nothing this route has" for name in wrong]
    if isinstance(route, Uplink):
        found += _uplink_problems(route)
    return found


def _uplink_problems(route: Uplink) -> list[str]:
    found = []
    try:
        parts = compiled(route.topic)
    except BadTemplate:
        return []
    if not parts:
        found.append("topic: empty")
    elif all(isinstance(part, str) for part in parts):
        if not valid_topic(str(parts[0])):
            found.append(f"topic: {parts[0]!r} is not a broker topic name")
    elif not route.allow and not isinstance(parts[0], str):
        found.append("topic: a template that begins with a placeholder needs a list of allowed topics")
    if not 0.0 <= route.sample <= 1.0:
        found.append("sample: must be between 0 and 1")
    if route.schema is not None:
        try:
            _validator(json.dumps(route.schema))
        except (ValueError, TypeError) as error:
            found.append(f"schema: {error}")
    return found


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(schema))


class Table:
    """The uplink routes in force, in their order. Routes with problems are left out: `broken` says which and why."""

    __slots__ = ("broken", "routes")

    def __init__(self, routes: Iterable[Uplink] = ()) -> None:
        self.broken: dict[str, list[str]] = {}
        good = []
        for route in routes:
            wrong = problems(route)
            if wrong:
                self.broken[route.name] = wrong
            elif route.enabled:
                good.append(route)
        self.routes: tuple[Uplink, ...] = tuple(sorted(good, key=lambda route: (route.priority, route.name)))

    def find(self, topic: str) -> Uplink:
        """The route that decides for an MQTT topic; `DEFAULT` when no other matches."""
        for route in self.routes:
            if matches(route.filter, topic):
                return route
        return DEFAULT


def fixed(route: Uplink) -> bool:
    """Whether topic, key, headers and checks depend on nothing but the MQTT topic and the device (so that the place
    can be computed once)."""
    if route.max_size or route.json_only or route.schema is not None or route.sample < 1.0:
        return False
    if route.message_id or route.deduplicate:
        return False
    templates = [route.topic, route.key, *route.headers.values()]
    return not any(name.startswith("payload.") or name == "qos" for each in templates for name in placeholders(each))


def place(route: Uplink, message: Incoming) -> Placed | Refusal:
    """Where one message goes by this route, which must match it (`Table.find`)."""
    if route.max_size and len(message.payload) > route.max_size:
        detail = f"{len(message.payload)} bytes, the route permits {route.max_size}"
        return Refusal(route=route.name, reason="size", detail=detail)
    lookup = _Lookup(message.payload)
    lookup.names.update(
        {"topic": message.topic, "client_id": message.client_id, "username": message.username, "qos": str(message.qos)}
    )
    for number, text in enumerate(captured(route.filter, message.topic), 1):
        lookup.names[str(number)] = text
    if route.json_only or route.schema is not None:
        try:
            document = lookup.document()
        except Unrenderable as error:
            return Refusal(route=route.name, reason="json", detail=str(error))
        if route.schema is not None:
            wrong = next(iter(_validator(json.dumps(route.schema)).iter_errors(document)), None)
            if wrong is not None:
                return Refusal(route=route.name, reason="schema", detail=str(wrong.message)[:500])
    try:
        topic = render(route.topic, lookup)
        if not valid_topic(topic):
            raise Unrenderable(f"{topic!r} is not a broker topic name")
        if not allowed(route, topic):
            raise Unrenderable(f"{topic!r} is not among the topics this route may write")
        key = render(route.key, lookup)
        headers = tuple((name, render(template, lookup)) for name, template in route.headers.items())
        message_id = render(route.message_id, lookup) if route.message_id else ""
    except Unrenderable as error:
        return Refusal(route=route.name, reason="render", detail=str(error))
    return Placed(
        route=route.name, topic=topic, key=key.encode() if key else None, headers=headers, message_id=message_id
    )


def allowed(route: Uplink, topic: str) -> bool:
    """Whether the route's template may produce this topic."""
    if route.allow:
        return any(fnmatchcase(topic, pattern) for pattern in route.allow)
    parts = compiled(route.topic)
    if len(parts) == 1 and isinstance(parts[0], str):
        return True
    return isinstance(parts[0], str) and topic.startswith(parts[0])


def could_write(route: Uplink, topic: str) -> bool:
    """Whether messages of this route may be found in an existing broker topic."""
    parts = compiled(route.topic)
    pattern = "".join(re.escape(part) if isinstance(part, str) else ".+" for part in parts)
    return re.fullmatch(pattern, topic) is not None and allowed(route, topic)


def outgoing(
    route: Downlink, *, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes | None]], partition: int = 0
) -> Outgoing | Refusal:
    """The MQTT message that a record becomes by a downlink route."""
    lookup = _Lookup(value)
    lookup.names.update({"topic": route.topic, "partition": str(partition)})
    try:
        if key is not None:
            lookup.names["key"] = key.decode()
        for name, content in headers:
            if content is not None:
                lookup.names[f"header.{name}"] = content.decode("utf-8", "replace")
        topic = render(route.mqtt_topic, lookup)
        client_id = render(route.client_id, lookup) if route.client_id else ""
    except (Unrenderable, UnicodeDecodeError) as error:
        return Refusal(route=route.name, reason="render", detail=str(error))
    if not topic or "+" in topic or "#" in topic or "\x00" in topic:
        return Refusal(route=route.name, reason="render", detail=f"{topic!r} is not an MQTT topic name")
    return Outgoing(
        route=route.name,
        client_id=client_id,
        topic=topic,
        payload=value,
        qos=route.qos,
        retain=route.retain,
        expiry=route.expiry,
    )


class _Lookup:
    """Names → text, with the payload parsed when first asked for."""

    __slots__ = ("_document", "_payload", "names")

    def __init__(self, payload: bytes) -> None:
        self.names: dict[str, str] = {}
        self._payload = payload
        self._document: Any = None

    def document(self) -> Any:
        if self._document is None:
            try:
                self._document = (json.loads(self._payload),)
            except (ValueError, RecursionError) as error:
                raise Unrenderable(f"the payload is not JSON: {error}") from error
        return self._document[0]

    def __call__(self, name: str) -> str:
        if name.startswith("payload."):
            return self._member(name[len("payload.") :])
        found = self.names.get(name)
        if found is None or (not found and name == "username"):
            raise Unrenderable(f"the message has no {{{name}}}")
        return found

    def _member(self, path: str) -> str:
        at = self.document()
        for step in path.split("."):
            if isinstance(at, Mapping) and step in at:
                at = at[step]
            elif isinstance(at, list) and step.isdigit() and int(step) < len(at):
                at = at[int(step)]
            else:
                raise Unrenderable(f"the payload has no {path}")
        if isinstance(at, bool):
            return "true" if at else "false"
        if isinstance(at, (str, int, float)):
            return str(at)
        raise Unrenderable(f"{path} in the payload is not text or a number")
