"""Checkpoints: once a second what mailboxes hold unfinished becomes durable, and then how far delivery had come.

After a crash the gateway, or another that takes over from it, reads the mailboxes and delivers again from the
checkpoint: at least once for QoS 1; QoS 2 entries remember their origin, see `mailbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from broker.client import TopicPartition
from gateway import contract
from gateway.contract import SESSIONS
from gateway.moving.arrivals import CHECKPOINT_KEY, positions_list
from gateway.receipts import over
from gateway.sessions.inbox import Inbox
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.sessions import Sessions
from gateway.storage.ticks import Ticks

log = logging.getLogger("gateway.checkpoints")

INTERVAL = 1.0
PATIENCE = 1.5  # seconds, when stopping


class Checkpoints:
    """`start`, `checkpoint` when one is wanted at once, `stop` with a last one."""

    def __init__(
        self,
        *,
        gateway: str,
        sessions: Sessions,
        inbox: Inbox,
        ticks: Callable[[], Ticks],
        clock: Callable[[], float],
        positions: Callable[[], Mapping[TopicPartition, int]],
        held: Callable[[], bool],
        behind: Callable[[], dict[str, dict[TopicPartition, int]]],
        sweep: Callable[[], None],
    ) -> None:
        """`sweep`: what else is looked after once a second."""
        self._gateway = gateway
        self._sessions = sessions
        self._inbox = inbox
        self._ticks = ticks
        self._clock = clock
        self._positions = positions
        self._held = held
        self._behind = behind
        self._sweep = sweep
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.written: Mapping[TopicPartition, int] = {}

    async def checkpoint(self) -> None:
        async with self._turn:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        positions, began = dict(self._positions()), self._clock()
        touched, self._inbox.unsettled = self._inbox.unsettled, {}
        if not touched and positions == self.written:
            return
        # one that is not here any more may have been touched by what was under way: its rows are another's now
        here = (each for each in touched.values() if self._here(each))
        # of a session that is not caught up the positions are behind what it had: those are met again after a crash
        gone = [(each, list(each.gone)) for each in touched.values() if each.gone and each.replayed is None]
        if not await self._inbox.settle(here):
            self._again(gone)
            return
        value: dict[str, Any] = {
            "v": contract.VERSION,
            "at": began,
            "positions": [[key.topic, key.partition, at] for key, at in positions.items()],
        }
        # as it is now: one that left meanwhile may not have been settled
        behind = self._behind()
        if behind:
            value["behind"] = {name: positions_list(places) for name, places in behind.items()}
        ticks = self._ticks()
        written = ticks.write(SESSIONS, json.dumps(value).encode(), (CHECKPOINT_KEY + self._gateway).encode())
        await over(written)
        if written.failure is not None or not self._held():
            self._again(gone)
            return
        self.written = positions
        for mailbox, numbers in gone:
            # whoever has one that left meanwhile may go on before these positions, and then needs what is remembered
            if self._here(mailbox):
                del mailbox.gone[: len(numbers)]  # others were added behind them at most
                self._inbox.remove_singles(mailbox, numbers)

    def _here(self, mailbox: Mailbox) -> bool:
        return self._sessions.mailboxes.get(mailbox.client_id) is mailbox

    def _again(self, gone: list[tuple[Mailbox, list[int]]]) -> None:
        """The next checkpoint is to pass these."""
        for mailbox, _ in gone:
            if self._here(mailbox):
                self._inbox.touched(mailbox)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                if self._held():
                    self._sessions.sweep()
                    self._sweep()
                    await self.checkpoint()
            except Exception:
                log.exception("a checkpoint failed; the next one makes up for it")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(TimeoutError):  # with the broker away it never ends, and what it saves is a shortcut
            await asyncio.wait_for(self.checkpoint(), PATIENCE)
