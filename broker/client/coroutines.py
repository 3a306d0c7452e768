"""Handlers that are coroutine functions, called from threads."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from broker.client.handling import Handler

AsyncHandler = Callable[[Any], Awaitable[None]]


class HandlerLoop:
    """Runs a coroutine function's coroutines on an event loop in a thread of its own; other handlers as they are."""

    def __init__(self, handler: Handler | AsyncHandler) -> None:
        self._handler: Any = handler
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Handler:
        called = getattr(self._handler, "__call__", None)  # noqa: B004 — an object may have an async __call__
        if not (inspect.iscoroutinefunction(self._handler) or inspect.iscoroutinefunction(called)):
            handle: Handler = self._handler
            return handle
        loop = self._loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="handlers", daemon=True).start()
        return lambda record: asyncio.run_coroutine_threadsafe(self._handler(record), loop).result()

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
