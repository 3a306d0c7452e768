"""How long a request keeps the broker's one thread: the stretches between its waits, added up (KIP-124)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any


class Stopwatch:
    """Runs from its making until `pause()`, and again from `go()`. `clock`: monotonic seconds."""

    __slots__ = ("_clock", "_seconds", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._since: float | None = clock()

    def go(self) -> None:
        if self._since is None:
            self._since = self._clock()

    def pause(self) -> None:
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def taken(self) -> float:
        """Seconds counted since the last time this was asked."""
        running = self._since is not None
        self.pause()
        seconds, self._seconds = self._seconds, 0.0
        if running:
            self.go()
        return seconds


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are timed, and its waits are not."""

    __slots__ = ("_inner", "_watch")

    def __init__(self, inner: Coroutine[Any, Any, Any], watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    def send(self, value: Any) -> Any:
        self._watch.go()
        try:
            return self._inner.send(value)
        finally:
            self._watch.pause()

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        self._watch.go()
        try:
            return self._inner.throw(kind if isinstance(kind, BaseException) else kind())
        finally:
            self._watch.pause()

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()
