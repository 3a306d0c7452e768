"""Topic names, topic filters, and the two trees: of subscriptions (filter → subscribers) and of retained messages.

Both trees are tries over topic levels in plain dicts, walked without recursion. Cost follows the matches: a publish
visits at most three children per level and matching path (`name`, `+`, `#`), however many subscriptions there are; a
retained look-up visits only the part of the tree its filter covers. Filters that start with a wildcard don't match
topics that start with `$` (MQTT-4.7.2-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_LEVELS = 200
MAX_BYTES = 65_535
_SHARE = "$share/"


def valid_name(topic: str) -> bool:
    """Whether this may be published to: not empty, no wildcard, no NUL, at most `MAX_LEVELS` levels."""
    return (
        bool(topic) and "+" not in topic and "#" not in topic and "\x00" not in topic and topic.count("/") < MAX_LEVELS
    )


def valid_filter(topic_filter: str) -> bool:
    """Whether this is a well-formed filter without a `$share/` prefix: `#` last and alone, `+` alone in its level."""
    if not topic_filter or "\x00" in topic_filter or topic_filter.count("/") >= MAX_LEVELS:
        return False
    if "#" not in topic_filter and "+" not in topic_filter:
        return True
    levels = topic_filter.split("/")
    hashes = topic_filter.count("#")
    return topic_filter.count("+") == levels.count("+") and (not hashes or (hashes == 1 and levels[-1] == "#"))


def split_share(topic_filter: str) -> tuple[str | None, str]:
    """`$share/<group>/<filter>` → (group, filter); any other filter → (None, filter).

    An invalid share name gives an empty filter, which no `valid_filter` accepts.
    """
    if not topic_filter.startswith(_SHARE):
        return (None, topic_filter) if topic_filter != "$share" else (None, "")
    group, slash, rest = topic_filter[len(_SHARE) :].partition("/")
    if not group or not slash or "+" in group or "#" in group:
        return group or None, ""
    return group, rest


def matches(topic_filter: str, topic: str) -> bool:
    """Whether one filter (without share prefix) matches one topic name. For single questions; many: `Subscriptions`."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    if topic[:1] == "$" and filter_levels[0] in ("+", "#"):
        return False
    for number, level in enumerate(filter_levels):
        if level == "#":
            return True
        if number >= len(levels) or level not in ("+", levels[number]):
            return False
    return len(filter_levels) == len(levels)


class _Node(Generic[K, V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[K, V]] | None = None
        self.values: dict[K, V] | None = None


class Subscriptions(Generic[K, V]):
    """filter → {subscriber: value}. `K` is any hashable subscriber."""

    __slots__ = ("_root", "count")

    def __init__(self) -> None:
        self._root: _Node[K, V] = _Node()
        self.count = 0

    def add(self, topic_filter: str, subscriber: K, value: V) -> bool:
        """Set the value; True when the subscriber had this filter before."""
        node = self._root
        for level in topic_filter.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if node.values is None:
            node.values = {}
        known = subscriber in node.values
        node.values[subscriber] = value
        self.count += not known
        return known

    def remove(self, topic_filter: str, subscriber: K) -> bool:
        """Take the filter away, with the branches nobody needs any more; True when the subscriber had it."""
        node = self._root
        path: list[tuple[_Node[K, V], str]] = []
        for level in topic_filter.split("/"):
            child = node.children.get(level) if node.children else None
            if child is None:
                return False
            path.append((node, level))
            node = child
        if node.values is None or subscriber not in node.values:
            return False
        del node.values[subscriber]
        self.count -= 1
        if not node.values:
            node.values = None
            while path and node.children is None and node.values is None:
                node, level = path.pop()
                assert node.children is not None
                del node.children[level]
                if not node.children:
                    node.children = None
        return True

    def get(self, topic_filter: str) -> dict[K, V] | None:
        """The subscribers of exactly this filter."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level) if node.children else None
            if child is None:
                return None
            node = child
        return node.values

    def match(self, topic: str) -> list[dict[K, V]]:
        """The subscriber dicts of every matching filter; don't change the tree while using them."""
        found: list[dict[K, V]] = []
        nodes = [self._root]
        wild = topic[:1] != "$"  # on the first level wildcards don't reach $-topics
        for level in topic.split("/"):
            below: list[_Node[K, V]] = []
            for node in nodes:
                children = node.children
                if children is None:
                    continue
                child = children.get(level)
                if child is not None:
                    below.append(child)
                if wild:
                    child = children.get("+")
                    if child is not None:
                        below.append(child)
                    child = children.get("#")
                    if child is not None and child.values:
                        found.append(child.values)
            if not below:
                return found
            nodes = below
            wild = True
        for node in nodes:
            if node.values:
                found.append(node.values)
            if node.children is not None:
                child = node.children.get("#")  # `a/#` matches `a` too (4.7.1.2)
                if child is not None and child.values:
                    found.append(child.values)
        return found


class _Leaf(Generic[V]):
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[str, _Leaf[V]] | None = None
        self.value: V | None = None


class Retained(Generic[V]):
    """topic → value, asked by filter. Values are never None."""

    __slots__ = ("_root", "count")

    def __init__(self) -> None:
        self._root: _Leaf[V] = _Leaf()
        self.count = 0

    def set(self, topic: str, value: V) -> V | None:
        """Put a value at a topic; gives the one that was there."""
        node = self._root
        for level in topic.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Leaf()
            node = child
        before, node.value = node.value, value
        self.count += before is None
        return before

    def get(self, topic: str) -> V | None:
        node = self._root
        for level in topic.split("/"):
            child = node.children.get(level) if node.children else None
            if child is None:
                return None
            node = child
        return node.value

    def remove(self, topic: str) -> V | None:
        """Take a topic's value away, with the branches nobody needs any more; gives what was there."""
        node = self._root
        path: list[tuple[_Leaf[V], str]] = []
        for level in topic.split("/"):
            child = node.children.get(level) if node.children else None
            if child is None:
                return None
            path.append((node, level))
            node = child
        before, node.value = node.value, None
        if before is None:
            return None
        self.count -= 1
        while path and node.children is None and node.value is None:
            node, level = path.pop()
            assert node.children is not None
            del node.children[level]
            if not node.children:
                node.children = None
        return before

    def match(self, topic_filter: str) -> Iterator[V]:
        """Every value whose topic the filter matches. Don't change the tree meanwhile."""
        levels = topic_filter.split("/")
        last = len(levels)
        stack: list[tuple[_Leaf[V], int]] = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            if depth == last:
                if node.value is not None:
                    yield node.value
                continue
            level = levels[depth]
            if level == "#":
                yield from self._below(node, skip_dollar=depth == 0)
            elif node.children is not None:
                if level == "+":
                    stack += [
                        (child, depth + 1) for name, child in node.children.items() if depth or not name.startswith("$")
                    ]
                elif (child := node.children.get(level)) is not None:
                    stack.append((child, depth + 1))

    def _below(self, node: _Leaf[V], *, skip_dollar: bool) -> Iterator[V]:
        """The node's own value and all below it (`a/#` covers `a`)."""
        first = node
        stack = [node]
        while stack:
            node = stack.pop()
            if node.value is not None:
                yield node.value
            if node.children is None:
                continue
            if skip_dollar and node is first:
                stack += [child for name, child in node.children.items() if not name.startswith("$")]
            else:
                stack += node.children.values()
