"""Topic patterns of subscriptions (KIP-848): RE2, matched in linear time, since the pattern is the client's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import re2

INTERNAL_PREFIX = "__"


class BadPattern(Exception):
    """The pattern is not a valid RE2 expression."""


def compiled(pattern: str) -> Any:
    """The compiled pattern; raises BadPattern."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise BadPattern(str(error)) from error


def find_topics(pattern: str, names: Iterable[str], may_see: Callable[[str], bool]) -> frozenset[str]:
    """Names the whole of which match, internal topics never among them."""
    matches = compiled(pattern).fullmatch
    return frozenset(
        name for name in names if not name.startswith(INTERNAL_PREFIX) and matches(name) is not None and may_see(name)
    )
