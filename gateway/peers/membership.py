"""Which gateways there are, and whose care a client is in when its gateway is gone.

All gateways of a cluster are members of one Kafka consumer group over the partitions of `__sluice_sessions`. They read
nothing through it: its coordinator notices a member that died and gives its partitions to another, and that is what the
group is for. A member is known by its instance id, the gateway's name, so that a quick restart disturbs nobody, and two
gateways of one name find out.

A gateway counts as dead when the group doesn't have it *and* its status record wasn't renewed for a while, or says that
it stopped. The time is measured where the records are read: clocks of other machines play no part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import zlib
from collections.abc import Callable

from broker.client import AsyncAdmin, Consumer, TopicPartition
from broker.client.errors import ClientError
from gateway.contract import SESSIONS, GatewayStatus

log = logging.getLogger("gateway.membership")

GROUP = "__sluice_gateways"
SESSION_TIMEOUT = 6.0  # the least that brokers grant by default
STALE = 5.0  # seconds without a status record
ASK_INTERVAL = 1.0


class Gateways:
    """What is known of each gateway of the cluster. Pure."""

    def __init__(self, name: str, partitions: int, now: float) -> None:
        self._name = name
        self._awake = now
        self._count = partitions
        self._heard: dict[str, tuple[float, GatewayStatus]] = {}
        self.members: frozenset[str] = frozenset({name})
        self.mine: frozenset[int] = frozenset()

    def heard(self, status: GatewayStatus, now: float) -> None:
        """A status record was read (`now`: monotonic seconds)."""
        self._heard[status.gateway] = (now, status)

    def awake(self, now: float) -> None:
        """This process stood still until now: that it heard nothing of others says nothing about them."""
        self._awake = now

    def alive(self, gateway: str, now: float) -> bool:
        if gateway == self._name:
            return True
        found = self._heard.get(gateway)
        if found is not None and found[1].stopped:
            return False
        heard = self._awake if found is None else max(found[0], self._awake)
        return gateway in self.members or now - heard < STALE

    def with_members(self, share_filter: str, now: float) -> list[str]:
        """Other gateways that say they have members of this share group."""
        return [
            name
            for name, (_, status) in self._heard.items()
            if name != self._name and share_filter in status.shares and self.alive(name, now)
        ]

    def others(self, now: float) -> bool:
        """Whether there is another gateway."""
        return any(name != self._name and self.alive(name, now) for name in (*self._heard, *self.members))

    def cares(self, client_id: str) -> bool:
        """Whether a client whose gateway died is this gateway's to look after."""
        return partition_of(client_id, self._count) in self.mine


def partition_of(client_id: str, partitions: int) -> int:
    return zlib.crc32(client_id.encode()) % max(1, partitions)


class Membership:
    """This gateway's seat in the group, held by a thread; `start` it, `stop` it."""

    def __init__(
        self,
        gateways: Gateways,
        *,
        name: str,
        consumer: Callable[[], Consumer],
        admin: AsyncAdmin,
        changed: Callable[[], None],
    ) -> None:
        """`consumer` makes a member of `GROUP`; `changed` is called on the loop when members or partitions did."""
        self._gateways = gateways
        self._name = name
        self._make = consumer
        self._admin = admin
        self._changed = changed
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mine: set[int] = set()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._hold, name="membership", daemon=True)
        self._thread.start()
        self._task = self._loop.create_task(self._ask())

    # --- the thread

    def _hold(self) -> None:
        while not self._stopping.is_set():
            consumer = self._make()
            try:
                self._sit(consumer)
            except ClientError as error:
                log.warning("the seat among the gateways is lost, it is taken again: %s", error)
            finally:
                with contextlib.suppress(ClientError):
                    consumer.close()
            self._lose()
            self._stopping.wait(1.0)

    def _sit(self, consumer: Consumer) -> None:
        def assigned(partitions: list[TopicPartition]) -> None:
            consumer.add(dict.fromkeys(partitions, -1))
            consumer.pause(partitions)
            self._mine |= {each.partition for each in partitions}
            self._tell()

        def revoked(partitions: list[TopicPartition]) -> None:
            self._mine -= {each.partition for each in partitions}
            self._tell()
            consumer.remove(partitions)

        consumer.subscribe([SESSIONS], assigned=assigned, revoked=revoked, lost=revoked)
        while not self._stopping.is_set():
            try:
                consumer.poll(1, 0.2)
            except ClientError as error:
                if consumer.fatal is not None:
                    raise
                log.debug("membership: %s", error)

    def _lose(self) -> None:
        self._mine.clear()
        self._tell()

    def _tell(self) -> None:
        mine = frozenset(self._mine)

        def take() -> None:
            if mine != self._gateways.mine:
                self._gateways.mine = mine
                self._changed()

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(take)

    # --- the loop

    async def _ask(self) -> None:
        """Who is in the group."""
        while True:
            try:
                found = (await self._admin.describe_groups([GROUP])).get(GROUP)
            except ClientError as error:
                log.debug("the gateways' group can't be looked at: %s", error)
                found = None
            if found is not None:
                members = frozenset(each.instance or each.client_id for each in found.members) | {self._name}
                if members != self._gateways.members:
                    log.info("gateways: %s", ", ".join(sorted(members)))
                    self._gateways.members = members
                    self._changed()
            await asyncio.sleep(ASK_INTERVAL)

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 3.0)
