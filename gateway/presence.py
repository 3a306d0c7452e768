"""Who is connected, told to the console: `__sluice_presence`, in batches.

A device that comes and goes within one batch costs one record. The gateway's own status, with its counters, is a record
beside the clients'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway import contract
from gateway.contract import GATEWAY_KEY, PRESENCE, GatewayStatus, Presence
from gateway.ports import Receipt

INTERVAL = 0.5
STATUS_INTERVAL = 2.0

Write = Callable[[str, bytes | None, bytes | None], Receipt[None]]


class PresenceBook:
    """Collects changes; `start` writes them out regularly."""

    def __init__(self, write: Write, status: Callable[[], GatewayStatus]) -> None:
        self._write = write
        self._status = status
        self._changed: dict[str, Presence] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, presence: Presence) -> None:
        self._changed[presence.client_id] = presence

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        since = STATUS_INTERVAL
        while True:
            await asyncio.sleep(INTERVAL)
            self.flush()
            since += INTERVAL
            if since >= STATUS_INTERVAL:
                since = 0.0
                self.write_status()

    def flush(self) -> None:
        """Write what changed."""
        changed, self._changed = self._changed, {}
        for client_id, presence in changed.items():
            self._write(PRESENCE, contract.encode(presence), client_id.encode())

    def write_status(self) -> None:
        status = self._status()
        self._write(PRESENCE, contract.encode(status), (GATEWAY_KEY + status.gateway).encode())

    def stop(self) -> None:
        """Write the last changes and the status."""
        if self._task is not None:
            self._task.cancel()
        self.flush()
        self.write_status()
