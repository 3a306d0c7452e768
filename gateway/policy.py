"""Pure: who may publish or subscribe what.

A policy allows and denies MQTT topic filters. `%c` and `${clientid}` stand for the client id, `%u` and `${username}`
for the principal's name; each substitutes inside one level, so a principal whose name holds `/`, `+`, `#` or NUL could
widen its own rights and is refused (`unfit`).

Rules, all of them fail closed:
- While no policy exists at all, everything is allowed (a fresh installation on a loopback address).
- Once one exists, what no policy of the device allows is denied. A policy with no filters allows nothing; a malformed
  filter allows nothing, and a malformed *deny* filter denies everything.
- Denials win over permissions.
- A subscription is granted when one allow filter covers it whole. Where a deny filter overlaps it without covering it,
  the grant is conditional: each delivery is checked (`Grant.CHECKED`).

`$share/<group>/` is taken off before asking. Policies never give `$SYS` away by a leading wildcard (MQTT-4.7.2-1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

MAX_LEVELS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Topic filters allowed and denied. `everyone`: applies to every principal, anonymous ones included."""

    name: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()
    everyone: bool = False


class Grant(Enum):
    """The answer to a subscription."""

    DENIED = "denied"
    CHECKED = "checked"  # granted; every delivery must be asked for with `may_receive`
    GRANTED = "granted"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer with what made it: the policy's name and the filter, both "" when nothing matched."""

    allowed: bool
    policy: str = ""
    filter: str = ""
    reason: str = ""


def unfit(principal: str) -> bool:
    """Whether this name can't be a principal: it would change the shape of the filter it is substituted into."""
    return any(character in principal for character in "/+#\x00")


def well_formed(topic_filter: str) -> bool:
    """Whether this is a valid MQTT topic filter (without `$share/`)."""
    if not topic_filter or "\x00" in topic_filter or topic_filter.count("/") >= MAX_LEVELS:
        return False
    levels = topic_filter.split("/")
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return True


def problems(policy: Policy) -> list[str]:
    """What is wrong with a policy, for people, in the order of its fields; an empty list: nothing."""
    found = []
    for label, filters in (
        ("publish", policy.publish),
        ("subscribe", policy.subscribe),
        ("deny_publish", policy.deny_publish),
        ("deny_subscribe", policy.deny_subscribe),
    ):
        found += [f"{label}: {each!r} is not a topic filter" for each in filters if not well_formed(_sample(each))]
    return found


def _sample(pattern: str) -> str:
    return substitute(pattern, "c", "u") or ""


def substitute(pattern: str, client_id: str, username: str) -> str | None:
    """The filter for one device; None when the pattern needs a name that is missing or unfit."""
    for placeholder, name in (
        ("${clientid}", client_id),
        ("%c", client_id),
        ("${username}", username),
        ("%u", username),
    ):
        if placeholder in pattern:
            if not name or unfit(name):
                return None
            # a name that itself holds a placeholder must not be expanded again
            pattern = pattern.replace(placeholder, name.replace("%", "\x01").replace("$", "\x02"))
    return pattern.replace("\x01", "%").replace("\x02", "$")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter matches a topic name."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic[:1] == "$" and wanted[0] in ("+", "#"):
        return False
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number >= len(levels) or level not in ("+", levels[number]):
            return False
    return len(wanted) == len(levels)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide` too."""
    w, n = wide.split("/"), narrow.split("/")
    if n[0][:1] == "$" and w[0] in ("+", "#"):
        return False
    for number, level in enumerate(w):
        if level == "#":
            return True
        if number >= len(n) or n[number] == "#":
            return False
        if level != "+" and level != n[number]:
            return False
    return len(w) == len(n)


def overlaps(one: str, other: str) -> bool:
    """Whether some topic is matched by both filters."""
    a, b = one.split("/"), other.split("/")
    if (a[0][:1] == "$" and b[0] in ("+", "#")) or (b[0][:1] == "$" and a[0] in ("+", "#")):
        return False
    for number in range(max(len(a), len(b))):
        left = a[number] if number < len(a) else None
        right = b[number] if number < len(b) else None
        if left == "#" or right == "#":
            return True
        if left is None or right is None:
            return False
        if left != right and "+" not in (left, right):
            return False
    return True


class Rights:
    """What one connected device may do: its policies with its names filled in. Pure and immutable."""

    __slots__ = ("_deny_publish", "_deny_subscribe", "_publish", "_subscribe", "unrestricted")

    def __init__(self, policies: Iterable[Policy], client_id: str, username: str, *, unrestricted: bool) -> None:
        """`unrestricted`: no policy exists at all; then `policies` are not looked at."""
        self.unrestricted = unrestricted
        applied = [] if unrestricted else list(policies)
        names = (client_id, username)
        self._publish = _allowed(((each.name, each.publish) for each in applied), names)
        self._subscribe = _allowed(((each.name, each.subscribe) for each in applied), names)
        self._deny_publish = _denied(((each.name, each.deny_publish) for each in applied), names)
        self._deny_subscribe = _denied(((each.name, each.deny_subscribe) for each in applied), names)

    def publish(self, topic: str) -> Decision:
        """May it publish to this topic name?"""
        return self._ask(self._deny_publish, self._publish, topic)

    def receive(self, topic: str) -> Decision:
        """May a message of this topic name be delivered to it?"""
        return self._ask(self._deny_subscribe, self._subscribe, topic)

    def may_publish(self, topic: str) -> bool:
        return self.unrestricted or self._ask(self._deny_publish, self._publish, topic).allowed

    def may_receive(self, topic: str) -> bool:
        return self.unrestricted or self._ask(self._deny_subscribe, self._subscribe, topic).allowed

    def subscribe(self, topic_filter: str) -> Grant:
        """May it hold this subscription? `topic_filter` without `$share/<group>/`."""
        if self.unrestricted:
            return Grant.GRANTED
        if any(each == "#" or covers(each, topic_filter) for _, each in self._deny_subscribe):
            return Grant.DENIED
        if not any(covers(each, topic_filter) for _, each in self._subscribe):
            return Grant.DENIED
        if any(overlaps(each, topic_filter) for _, each in self._deny_subscribe):
            return Grant.CHECKED
        return Grant.GRANTED

    def _ask(self, denied: tuple[tuple[str, str], ...], allowed: tuple[tuple[str, str], ...], topic: str) -> Decision:
        if self.unrestricted:
            return Decision(True, reason="no policy exists")
        for name, each in denied:
            if each == "#" or matches(each, topic):
                return Decision(False, name, each, "denied")
        for name, each in allowed:
            if matches(each, topic):
                return Decision(True, name, each, "allowed")
        return Decision(False, reason="no policy allows it")


def _allowed(named: Iterable[tuple[str, tuple[str, ...]]], names: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    for name, patterns in named:
        for pattern in patterns:
            each = substitute(pattern, *names)
            if each is not None and well_formed(each):
                found.append((name, each))
    return tuple(found)


def _denied(named: Iterable[tuple[str, tuple[str, ...]]], names: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    for name, patterns in named:
        for pattern in patterns:
            each = substitute(pattern, *names)
            found.append((name, each if each is not None and well_formed(each) else "#"))
    return tuple(found)


UNRESTRICTED = Rights((), "", "", unrestricted=True)
"""What everybody may do while no policy exists."""
