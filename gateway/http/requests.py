"""`POST /topics/<topic>`: what the head of a request asks for.

The topic is the path after `/topics/`, percent-decoded once; the rest of what MQTT has beside a payload comes from the
query and from headers (docs/http.md has the list). Strings obey MQTT's rules (1.5.4). Anything not understood is
refused by name, since a publisher that misspells `retain` would otherwise never hear of it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from gateway.http.port import Publication
from gateway.http.problems import Problem, bad
from gateway.mqtt.errors import Malformed
from gateway.mqtt.properties import text_of
from gateway.mqtt.topics import MAX_BYTES, valid_name
from gateway.ports import PublishProperties

TOPICS: Final = b"/topics/"
HEALTH: Final = b"/healthz"
MESSAGE_ID: Final = "sluice.message.id"
LONGEST_ID: Final = 255
LONGEST_EXPIRY: Final = 0xFFFFFFFF
MOST_PARAMETERS: Final = 20
UNSAID: Final = "application/x-www-form-urlencoded"  # what curl and others say when nobody told them a content type

_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BASE64: Final = str.maketrans("-_ ", "+/+")
Headers = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """(path, query) of a request target in origin or absolute form (RFC 9112, 3.2)."""
    if target[:1] != b"/":
        _, separator, rest = target.partition(b"://")
        slash = rest.find(b"/")
        if not separator or slash < 0:
            raise bad("target", "the request target is no path")
        target = rest[slash:]
    path, _, query = target.partition(b"?")
    return path, query


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of a header, in order; `name` is lower case, as h11 gives them."""
    return [value for key, value in headers if key == name]


def one(headers: Headers, name: bytes) -> bytes | None:
    """The value of a header that must not be given twice."""
    found = values(headers, name)
    if len(found) > 1:
        raise bad("header", f"{name.decode()} is given {len(found)} times")
    return found[0] if found else None


def publication(path: bytes, query: bytes, headers: Headers) -> Publication:
    """Raises `Problem`."""
    encoded = path.removeprefix(TOPICS)
    if _NO_ESCAPE.search(encoded):
        raise bad("topic", "the topic holds a % that is followed by no two hexadecimal digits")
    topic = topic_name(unquote_to_bytes(encoded), "the topic")
    said = parameters(query)
    content_type = _text("contentType", said["contentType"]) if "contentType" in said else _content_type(headers)
    message_id = _message_id(headers)
    user = tuple(_user_property(value) for value in values(headers, b"sluice-user-property"))
    if message_id:
        user += ((MESSAGE_ID, message_id),)
    properties = PublishProperties(
        message_expiry=_asked(said, "messageExpiry", _expiry),
        content_type=content_type,
        response_topic=_asked(said, "responseTopic", lambda text: topic_name(text.encode(), "responseTopic")),
        correlation_data=_asked(said, "correlationData", _correlation),
        user=user,
    )
    return Publication(
        topic=topic,
        qos=int(_choice(said, "qos", ("1", "0"))),
        retain=_choice(said, "retain", ("false", "true", "0", "1")) in ("true", "1"),
        message_id=message_id,
        properties=None if properties == PublishProperties() else properties,
    )


def topic_name(raw: bytes, what: str) -> str:
    """A topic to publish to."""
    try:
        name = text_of(raw)
    except Malformed as error:
        raise bad("topic", f"{what}: {error}") from None
    if not valid_name(name) or len(name.encode()) > MAX_BYTES:
        raise bad("topic", f"{what} is no topic name: it may not be empty, hold + or #, or have too many levels")
    if name[:1] == "$" and not name.startswith("$delayed/"):
        raise bad("topic", f"{what} begins with $: such topics are not published to")
    return name


def parameters(query: bytes) -> dict[str, str]:
    """The query, each name once."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except ValueError as error:
        raise bad("query", f"the query can't be read: {error}") from None
    found = dict(pairs)
    known = ("qos", "retain", "contentType", "messageExpiry", "responseTopic", "correlationData")
    for name in found:
        if name not in known:
            raise bad("query", f"{name[:60]!r} is none of {', '.join(known)}")
    if len(found) != len(pairs):
        raise bad("query", "a parameter is given twice")
    return found


def _asked(said: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    return read(said[name]) if name in said else None


def _choice(said: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    found = said.get(name, choices[0])
    if found not in choices:
        raise bad("query", f"{name} must be one of {', '.join(choices)}")
    return found


def _expiry(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > LONGEST_EXPIRY:
        raise bad("query", f"messageExpiry must be whole seconds, at most {LONGEST_EXPIRY}")
    return int(text)


def _correlation(text: str) -> bytes:
    try:
        # either alphabet, and a + that a query makes a space
        found = base64.b64decode(text.translate(_BASE64) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad("query", "correlationData must be base64") from None
    if len(found) > MAX_BYTES:
        raise bad("query", "correlationData is too long")
    return found


def _text(what: str, text: str) -> str:
    return _text_of(what, text.encode())


def _text_of(what: str, raw: bytes) -> str:
    try:
        return text_of(raw)
    except Malformed as error:
        raise bad("header", f"{what}: {error}") from None


def _content_type(headers: Headers) -> str | None:
    raw = one(headers, b"content-type")
    if not raw:
        return None
    found = _text_of("Content-Type", raw)
    return None if found.partition(";")[0].strip().lower() == UNSAID else found


def _message_id(headers: Headers) -> str:
    """`Sluice-Message-Id`, or `Idempotency-Key` as the IETF's draft has it (a quoted string; unquoted will do)."""
    own, other = one(headers, b"sluice-message-id"), one(headers, b"idempotency-key")
    if own is not None and other is not None:
        raise bad("header", "Sluice-Message-Id and Idempotency-Key are one thing: give one of them")
    raw = own if own is not None else other
    if raw is None:
        return ""
    if other is not None and len(raw) >= 2 and raw[:1] == raw[-1:] == b'"':
        raw = raw[1:-1].replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    found = _text_of("the message id", raw)
    if not 0 < len(found) <= LONGEST_ID:
        raise bad("header", f"a message id has 1 to {LONGEST_ID} characters")
    return found


def _user_property(raw: bytes) -> tuple[str, str]:
    name, separator, value = _text_of("Sluice-User-Property", raw).partition("=")
    if not separator or not name.strip():
        raise bad("header", "Sluice-User-Property must be name=value")
    return name.strip(), value.strip()


def check_method(method: bytes, path: bytes) -> None:
    """Whether there is something at this path, and it may be asked this way; raises `Problem`."""
    if path == HEALTH:
        allowed: tuple[bytes, ...] = (b"GET", b"HEAD")
    elif path.startswith(TOPICS):
        allowed = (b"POST",)
    else:
        raise Problem(HTTPStatus.NOT_FOUND, "path", "there is POST /topics/<topic> and GET /healthz")
    if method not in allowed:
        allow = b", ".join(allowed)
        raise Problem(
            HTTPStatus.METHOD_NOT_ALLOWED, "method", f"only {allow.decode()} is understood here", (b"Allow", allow)
        )
