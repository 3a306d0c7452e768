"""Topic names, topic filters, and the two trees: of subscriptions (filter → subscribers) and of retained messages.

Both trees are tries over topic levels in plain dicts, walked without recursion. Cost follows the matches: a publish
visits at most three children per level and matching path (`name`, `+`, `#`), however many subscriptions there are; a
retained look-up visits only the part of the tree its filter covers. Levels at which nothing parts have no node of their
own: what a filter or topic adds is one node and at most one more, however deep it is. Filters that start with a
wildcard don't match topics that start with `$` (MQTT-4.7.2-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")

MAX_LEVELS = 200
MAX_BYTES = 65_535
_SHARE = "$share/"
_ALL: Final = -1
LOOKS: Final = 64


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


class _Node(Generic[V]):
    """A place in a tree. Its parent knows it by the first level of the way here; `label` is the rest of that way."""

    __slots__ = ("children", "label", "value")

    def __init__(self, label: tuple[str, ...] = ()) -> None:
        self.label = label
        self.children: dict[str, _Node[V]] | None = None
        self.value: V | None = None


def _find(root: _Node[V], levels: list[str]) -> _Node[V] | None:
    """The node of exactly these levels."""
    node, depth, last = root, 0, len(levels)
    while depth < last:
        child = node.children.get(levels[depth]) if node.children else None
        if child is None:
            return None
        depth += 1
        label = child.label
        if label:
            if tuple(levels[depth : depth + len(label)]) != label:
                return None
            depth += len(label)
        node = child
    return node


def _place(root: _Node[V], levels: list[str]) -> _Node[V]:
    """The node of these levels, made if there is none: one at most, and one where it parts from another's way."""
    node, depth, last = root, 0, len(levels)
    plain = last - 1 if levels[-1] == "#" else last  # `#` has a node of its own
    while depth < last:
        level = levels[depth]
        depth += 1
        if node.children is None:
            node.children = {}
        child = node.children.get(level)
        if child is None:
            child = node.children[level] = _Node(tuple(levels[depth:plain]))
            depth = max(depth, plain)
        elif child.label:
            label = child.label
            common = 0
            for ours, theirs in zip(label, levels[depth:plain], strict=False):
                if ours != theirs:
                    break
                common += 1
            if common < len(label):
                # the node that was there stays what it is: whoever walks the tree may be about to visit it
                upper: _Node[V] = _Node(label[:common])
                upper.children = {label[common]: child}
                child.label = label[common + 1 :]
                child = node.children[level] = upper
            depth += common
        node = child
    return node


def _prune(root: _Node[V], levels: list[str]) -> None:
    """Cut off the branch that ends at these levels, as far as nobody needs it."""
    path: list[tuple[_Node[V], str]] = []
    node, depth, last = root, 0, len(levels)
    while depth < last:
        assert node.children is not None
        path.append((node, levels[depth]))
        node = node.children[levels[depth]]
        depth += 1 + len(node.label)
    while path and node.children is None and node.value is None:
        node, level = path.pop()
        assert node.children is not None
        del node.children[level]
        if not node.children:
            node.children = None


class Subscriptions(Generic[K, W]):
    """filter → {subscriber: value}. `K` is any hashable subscriber."""

    __slots__ = ("_root", "count")

    def __init__(self) -> None:
        self._root: _Node[dict[K, W]] = _Node()
        self.count = 0

    def add(self, topic_filter: str, subscriber: K, value: W) -> bool:
        """Set the value; True when the subscriber had this filter before."""
        node = _place(self._root, topic_filter.split("/"))
        if node.value is None:
            node.value = {}
        known = subscriber in node.value
        node.value[subscriber] = value
        self.count += not known
        return known

    def remove(self, topic_filter: str, subscriber: K) -> bool:
        """Take the filter away, with the branches nobody needs any more; True when the subscriber had it."""
        levels = topic_filter.split("/")
        node = _find(self._root, levels)
        if node is None or node.value is None or subscriber not in node.value:
            return False
        del node.value[subscriber]
        self.count -= 1
        if not node.value:
            node.value = None
            _prune(self._root, levels)
        return True

    def match(self, topic: str) -> list[dict[K, W]]:
        """The subscriber dicts of every matching filter; don't change the tree while using them."""
        found: list[dict[K, W]] = []
        levels = topic.split("/")
        last = len(levels)
        node, depth = self._root, 0
        others: list[tuple[_Node[dict[K, W]], int]] = []  # where matching goes on later
        while True:
            children = node.children
            if depth == last:
                if node.value is not None:
                    found.append(node.value)
                if children is not None:
                    below = children.get("#")  # `a/#` matches `a` too (4.7.1.2)
                    if below is not None and below.value is not None:
                        found.append(below.value)
            elif children is not None:
                child = children.get(levels[depth])
                if child is not None:
                    others.append((child, depth + 1))
                if depth or topic[:1] != "$":  # on the first level wildcards don't reach $-topics
                    child = children.get("+")
                    if child is not None:
                        others.append((child, depth + 1))
                    child = children.get("#")
                    if child is not None and child.value is not None:
                        found.append(child.value)
            while others:
                node, depth = others.pop()
                if not node.label:
                    break
                depth = _follow(node.label, levels, depth)
                if depth:
                    break
            else:
                return found


def _follow(label: tuple[str, ...], levels: list[str], depth: int) -> int:
    """How deep one is behind a label whose `+` match any level; 0: it doesn't match."""
    if len(label) > len(levels) - depth:
        return 0
    for level in label:
        if level not in ("+", levels[depth]):
            return 0
        depth += 1
    return depth


class Retained(Generic[V]):
    """topic → value, asked by filter. Values are never None."""

    __slots__ = ("_root", "count")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self.count = 0

    def set(self, topic: str, value: V) -> V | None:
        """Put a value at a topic; gives the one that was there."""
        node = _place(self._root, topic.split("/"))
        before, node.value = node.value, value
        self.count += before is None
        return before

    def get(self, topic: str) -> V | None:
        node = _find(self._root, topic.split("/"))
        return None if node is None else node.value

    def remove(self, topic: str) -> V | None:
        """Take a topic's value away, with the branches nobody needs any more; gives what was there."""
        levels = topic.split("/")
        node = _find(self._root, levels)
        if node is None or node.value is None:
            return None
        before, node.value = node.value, None
        self.count -= 1
        _prune(self._root, levels)
        return before

    def match(self, topic_filter: str) -> Iterator[V]:
        """Every value whose topic the filter matches, in any order. The tree may change as in `seek`."""
        return (value for value in self.seek(topic_filter) if value is not None)

    def seek(self, topic_filter: str) -> Iterator[V | None]:
        """As `match`, with a None after every `LOOKS` nodes, so that whoever asks may do something else.

        The tree may change meanwhile: what stays in it is found once, what comes or goes is found or not.
        """
        levels = topic_filter.split("/")
        last, looked = len(levels), 0
        node, depth = self._root, 0
        stack: list[tuple[_Node[V], int, Iterator[str]]] = []
        while True:
            if depth in (_ALL, last) or levels[depth] == "#":
                if node.value is not None:
                    yield node.value
                if depth != last:
                    stack.append((node, _ALL, _names(node, depth)))
            elif levels[depth] == "+":
                stack.append((node, depth, _names(node, depth)))
            else:
                stack.append((node, depth, iter((levels[depth],))))
            while stack:
                parent, before, names = stack[-1]
                name = next(names, None)
                if name is None:
                    stack.pop()
                    continue
                looked += 1
                if looked % LOOKS == 0:
                    yield None
                child = parent.children.get(name) if parent.children else None
                if child is not None:
                    depth = before if before == _ALL else _covered(child.label, levels, before + 1)
                    if depth:
                        node = child
                        break
            else:
                return


def _names(node: _Node[V], depth: int) -> Iterator[str]:
    """What a wildcard reaches below a node; the tree may change while it is used."""
    names = list(node.children or ())
    return iter(names) if depth else iter([name for name in names if not name.startswith("$")])


def _covered(label: tuple[str, ...], levels: list[str], depth: int) -> int:
    """How deep in a filter one is behind a label: `_ALL` behind its `#`; 0: it doesn't match."""
    for level in label:
        if depth == len(levels):
            return 0
        if levels[depth] == "#":
            return _ALL
        if levels[depth] not in ("+", level):
            return 0
        depth += 1
    return depth
