"""One broker's address: the connection there, when to try again, and what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from broker.client.administration.connection import Connection, ConnectionLost, Heard
from broker.client.errors import ClientError, Unreachable
from broker.client.settings import Settings
from broker.wire.codec import Buffer

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
CONNECT_TIMEOUT = 10.0


class Node:
    """Connects when asked to, in the background; `opened` hears of a connection, `troubled` of what prevents one."""

    def __init__(
        self,
        settings: Settings,
        address: tuple[str, int],
        *,
        loop: asyncio.AbstractEventLoop,
        opened: Callable[[], None],
        troubled: Callable[[ClientError], None],
    ) -> None:
        self._settings = settings
        self.address = address
        self._loop = loop
        self._opened = opened
        self._troubled = troubled
        self._connection: Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self.quiet_until = 0.0
        self.under_way: dict[object, float] = {}  # requests, and when each was sent

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one."""
        found = self._connection
        return None if found is None or found.lost else found

    def open(self) -> None:
        """See to it that there will be a connection."""
        if self.connection is None and self._opening is None:
            self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            pause = self._not_before - self._loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._failures += 1
            self._not_before = self._loop.time() + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10) / 2)
            self._connection = await Connection.connect(self._settings, *self.address, timeout=CONNECT_TIMEOUT)
        except ClientError as error:
            self._troubled(error)
        except (OSError, ValueError) as error:  # a host name that is none
            self._troubled(Unreachable(f"{self.address[0]}: {error}"))
        finally:
            self._opening = None
        self._opened()

    async def settled(self) -> None:
        """Wait until connecting has come to an end."""
        if self._opening is not None:
            await asyncio.wait({self._opening})

    def post(self, request: object, key: int, version: int, body: Sequence[Buffer], heard: Heard) -> None:
        """Send a request; `heard` is called once."""
        connection = self.connection
        if connection is None:
            self._loop.call_soon(heard, ConnectionLost("the connection is closed"))
            return
        self.under_way[request] = self._loop.time()

        def answered(answer: memoryview | ClientError) -> None:
            del self.under_way[request]
            if not isinstance(answer, ClientError):
                self._failures = 0
            heard(answer)

        connection.post(key, version, body, answered)

    def overdue(self, now: float, timeout: float) -> bool:
        """Whether a request has been without an answer for so long."""
        for sent in self.under_way.values():
            return now - sent > timeout
        return False

    def abort(self, why: str) -> None:
        """Let the connection go: what is under way there is lost."""
        if self._connection is not None:
            self._connection.abort(why)

    def close(self) -> None:
        """For good."""
        if self._opening is not None:
            self._opening.cancel()
        self.abort("the producer is closed")
