"""What the coordinators ask of the world around them, and the answer that may come later.

The machines below are pure: they take values and `now` (milliseconds since the epoch) and never await. Two
things leave them: *state records*, written through a `StateLog` before the state they describe is applied (so
a failed append leaves the machine as it was), and *replies*, completed at once or later. A shell waits until
everything written so far is durable before it puts a completed reply on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

StateRecord = tuple[bytes, bytes | None]
"""Key and value of one compacted state record; a value of None is a tombstone."""


class StateLog(Protocol):
    """One internal topic that a coordinator keeps its durable state in."""

    def append(self, records: Sequence[StateRecord], now: int) -> None:
        """Append all records as one batch; raise and leave nothing behind when that is impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as the coordinators see it."""

    id: bytes
    name: str
    partitions: int


class Topics(Protocol):
    """The topics there are now."""

    @property
    def version(self) -> int:
        """A number that rises with each created, deleted or grown topic."""

    def topic(self, name: str) -> Topic | None:
        """The topic of that name, or None."""

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """The topic of that id, or None."""

    def names(self) -> Iterable[str]:
        """Names of all topics, internal ones included."""


class GroupConfigs(Protocol):
    """Dynamic configuration that concerns groups."""

    def broker(self) -> Mapping[str, str]:
        """What an operator set on the broker (ConfigResource type BROKER); defaults are not included."""

    def overrides(self, group_id: str) -> Mapping[str, str]:
        """What an operator set for that group; defaults are not included."""


class Reply(Generic[T]):
    """An answer that may come later: completed exactly once, by the machine that made it."""

    __slots__ = ("_then", "_value")

    def __init__(self, value: T | None = None) -> None:
        self._value: T | None = value
        self._then: Callable[[T], None] | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._value is not None

    @property
    def value(self) -> T:
        """The answer; LookupError while it is still out."""
        if self._value is None:
            raise LookupError("the reply has not been completed")
        return self._value

    def complete(self, value: T) -> None:
        """Give the answer; a second one is our own mistake and raises RuntimeError."""
        if self._value is not None:
            raise RuntimeError("the reply was completed before")
        self._value = value
        if self._then is not None:
            self._then(value)

    def then(self, call: Callable[[T], None]) -> None:
        """Call back with the answer: now if it is there, else when it comes."""
        if self._value is not None:
            call(self._value)
        else:
            self._then = call


class StateUnwritable(Exception):
    """The state record could not be appended (disk full, log closed); nothing was changed."""
