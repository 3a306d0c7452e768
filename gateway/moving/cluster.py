"""This gateway among the others: what of their state it can see, and taking over from those that died."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from broker.client import Producer
from broker.client.errors import ClientError, TimedOut
from gateway import contract
from gateway.contract import INBOX, PRESENCE, SESSIONS, SHARE_KEY, MalformedRecord, Presence
from gateway.moving.arrivals import Arrivals, Positions
from gateway.moving.missed import Missed
from gateway.peers.claims import Claims, Holder
from gateway.peers.lease import BEAT
from gateway.peers.membership import Gateways
from gateway.peers.presence import PresenceBook
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.ownership import Ownership
from gateway.storage.exactly import TRANSACTION_TIMEOUT, lane_ids
from gateway.storage.local import LocalCopy
from gateway.storage.state import StateTopics

log = logging.getLogger("gateway.cluster")

SURVEY_INTERVAL = 1.0
UNDECIDED = 2 * TRANSACTION_TIMEOUT  # seconds after which an open transaction should have been aborted for long
SLICE = 500  # sessions adopted at a time
Row = tuple[bytes, bytes]


class GatewayCluster:
    """What `Arrivals` and `Sessions` ask of the process; and the survey for clients of dead gateways."""

    def __init__(
        self,
        *,
        gateway: str,
        gateways: Gateways,
        claims: Claims,
        book: PresenceBook,
        copy: LocalCopy,
        executor: Executor,
        producer: Callable[[str], Producer],
        checkpoint: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        held: Callable[[], bool],
    ) -> None:
        """`producer` makes a transactional one of a transactional id; `executor` is the local copy's thread; `held`:
        the lease is."""
        self.state: StateTopics | None = None
        self.missed: Missed | None = None
        self._gateway = gateway
        self.gateways = gateways
        self._claims = claims
        self._book = book
        self._copy = copy
        self._executor = executor
        self._producer = producer
        self._checkpoint = checkpoint
        self._clock = clock
        self._held = held
        self.ownership = Ownership()
        self._fenced: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    # --- for arrivals

    def alive(self, gateway: str) -> bool:
        return self.gateways.alive(gateway, time.monotonic())

    def owner(self, client_id: str) -> str:
        return self.ownership.owner(client_id.encode())

    def cares(self, client_id: str) -> bool:
        """Alone, or the client's partition is ours."""
        return self.gateways.cares(client_id) or self.alone()

    def alone(self) -> bool:
        """No other gateway is known."""
        return not self.gateways.others(time.monotonic())

    async def fence(self, gateway: str) -> None:
        now = time.monotonic()
        if now - self._fenced.get(gateway, float("-inf")) < 5.0:
            return
        loop = asyncio.get_running_loop()
        for name in lane_ids(gateway):
            await loop.run_in_executor(None, self._fence, name)
        self._fenced[gateway] = now
        log.info("the transactions of gateway %s are fenced", gateway)

    def _fence(self, name: str) -> None:
        producer = self._producer(name)
        try:
            producer.init_transactions(10.0)
        finally:
            producer.close(0.0)

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        await self._read_on()
        keys = [each.encode() for each in client_ids]

        def read() -> dict[str, bytes]:
            found = ((key, self._copy.get(SESSIONS, key)) for key in keys)
            return {key.decode(): value for key, value in found if value is not None}

        rows: dict[str, bytes] = await self._in_thread(read)
        return rows

    async def _read_on(self) -> None:
        """The local copy has everything that can be read as committed by now."""
        assert self.state is not None
        await self.state.caught_up()
        await self.state.write()

    async def current(self) -> None:
        """The local copy has everything that is written by now, and each transaction that was open has ended: those of
        the dead are fenced. Raises ClientError."""
        state = self.state
        assert state is not None
        ends = await state.ends(decided=True)
        until = time.monotonic() + UNDECIDED
        while True:
            try:
                async with asyncio.timeout(SURVEY_INTERVAL):
                    await state.reached(ends)
                    break
            except TimeoutError:
                if time.monotonic() > until:
                    raise TimedOut(f"transactions in the state topics have been open for {UNDECIDED:g} s") from None
                for gateway in self._claims.gateways():
                    if not self.alive(gateway):
                        await self.fence(gateway)
        await state.write()

    async def join(self, arriving: list[tuple[Mailbox, Positions]]) -> None:
        assert self.missed is not None
        await self.missed.join(arriving)

    async def secure(self, mailboxes: list[Mailbox]) -> None:
        while not self._held():  # noqa: ASYNC110  # rare, and it is looked at by its beat only
            await asyncio.sleep(BEAT)
        await self._checkpoint()

    async def rows(self, client_id: str) -> tuple[list[Row], list[Row]]:
        """What the local copy has of a client: (inbox rows, session rows)."""
        low, high = f"{client_id}\x00".encode(), f"{client_id}\x01".encode()

        def read() -> tuple[list[Row], list[Row]]:
            return list(self._copy.range(INBOX, low, high)), list(self._copy.range(SESSIONS, low, high))

        rows: tuple[list[Row], list[Row]] = await self._in_thread(read)
        return rows

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    # --- the survey

    def start(self, arrivals: Arrivals) -> None:
        self._task = asyncio.get_running_loop().create_task(self._survey(arrivals))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _survey(self, arrivals: Arrivals) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(SURVEY_INTERVAL)
            now = time.monotonic()
            if now - began > 2 * SURVEY_INTERVAL:
                self.gateways.awake(now)  # what the others said meanwhile was not read yet
            try:
                if self._held():
                    await self._adopt(arrivals)
            except ClientError as error:
                log.info("clients of gateways that are gone can't be looked after now: %s", error)
            except Exception:
                log.exception("looking for clients of gateways that are gone failed")

    async def _adopt(self, arrivals: Arrivals) -> None:
        dead = {each for each in self._claims.gateways() if not self.alive(each)}
        if not dead:
            return
        left: list[tuple[str, Holder]] = []
        for client_id, holder in self._claims.holders.items():
            if (
                holder.gateway in dead
                and client_id not in arrivals
                and not client_id.startswith(SHARE_KEY)
                and self.gateways.cares(client_id)
            ):
                if not self._claims.unheard(client_id):
                    left.append((client_id, holder))
                if len(left) >= SLICE:
                    break
        if not left:
            return
        log.info("%d clients of gateways that are gone are adopted", len(left))
        await self._read_on()

        def read() -> list[bytes | None]:
            return [self._copy.get(PRESENCE, client_id.encode()) for client_id, _ in left]

        for (client_id, holder), value in zip(left, await self._in_thread(read), strict=True):
            if self._claims.holders.get(client_id) != holder or client_id in arrivals:
                continue
            known = _presence(value) or Presence(
                client_id=client_id, online=True, since=0.0, gateway="", principal=holder.principal
            )
            adopted = replace(
                known,
                gateway=self._gateway,
                online=False,
                since=self._clock() if known.online else known.since,
                reason=f"gateway {holder.gateway} is gone" if known.online else known.reason,
                clean=not holder.durable,
            )
            arrivals.adopt(client_id, self._book.claim(adopted, adopts=holder.epoch))


def _presence(value: bytes | None) -> Presence | None:
    if value is None:
        return None
    try:
        return contract.decode(Presence, value)
    except MalformedRecord as error:
        log.warning("a presence record is unreadable: %s", error)
        return None
