"""Which names a topic can have: Kafka's rule."""

from __future__ import annotations

import re

MAX_NAME = 249
_NAME = re.compile(r"[a-zA-Z0-9._-]+")


class InvalidTopicName(ValueError):
    """A name no topic can have; the message is for the client (INVALID_TOPIC_EXCEPTION)."""


def require_valid_name(name: str) -> None:
    """Raise InvalidTopicName unless Kafka would accept the name."""
    if not name:
        raise InvalidTopicName("Topic name is invalid: the empty string is not allowed")
    if name in (".", ".."):
        raise InvalidTopicName(f"Topic name is invalid: '{name}' is not allowed")
    if len(name) > MAX_NAME:
        raise InvalidTopicName(
            f"Topic name is invalid: the length of '{name}' is longer than the max allowed length {MAX_NAME}"
        )
    if not _NAME.fullmatch(name):
        raise InvalidTopicName(
            f"Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, "
            "'.', '_' and '-'"
        )
