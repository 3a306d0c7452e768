"""`ctx.broker.transactions`: the transaction coordinator in its shell, with the partitions and groups it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from broker.api.registry import Broker, Later
from broker.groups.ports import StateUnwritable
from broker.groups.shell import Shell, StateTopic
from broker.log.failures import LogRefusal, StorageFailure
from broker.transactions.coordinator import ProducerIdNeeded, TransactionCoordinator
from broker.wire.errors import ErrorCode

T = TypeVar("T")

STATE_TOPIC = "__transaction_state"
COORDINATOR_EPOCH = 0
"""One broker, one coordinator: there is never another to be fenced off."""


class Ends:
    """The coordinator's `Outcomes`: markers into partitions, settled offsets into groups."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def mark(self, place: tuple[str, int], producer_id: int, epoch: int, *, commit: bool, now: int) -> None:
        """Append a marker."""
        partition = self._broker.partition(*place)
        if partition is None:
            return  # deleted meanwhile: nobody can read there what the marker would decide
        try:
            partition.append_control(producer_id, epoch, commit=commit, coordinator_epoch=COORDINATOR_EPOCH, now=now)
        except StorageFailure as failure:
            raise StateUnwritable(str(failure)) from failure
        except LogRefusal:
            return  # an operator has ended it there under a newer epoch (WriteTxnMarkers)

    def settle(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        """Apply or drop staged offsets."""
        self._broker.groups.step(lambda groups, at: groups.settle_offsets(group_id, producer_id, commit=commit, now=at))


class TransactionService(Shell[TransactionCoordinator]):
    """The transaction coordinator as handlers ask it."""

    def __init__(self, broker: Broker) -> None:
        log = StateTopic(broker, STATE_TOPIC)
        super().__init__(broker, "transactions", log, lambda: TransactionCoordinator(log=log, outcomes=Ends(broker)))

    def topic_deleted(self, name: str, topic_id: bytes) -> None:
        """Partitions of open transactions may go: their markers are passed over."""

    def check_produce(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        places: Collection[tuple[str, int]],
        *,
        implicit: bool = False,
    ) -> ErrorCode | Awaitable[ErrorCode]:
        """Whether a transactional batch may be appended now; `implicit` (Produce 12 on, KIP-890) adds them.

        What this writes lies before the batch in the journal, so the batch need not wait for it.
        """
        try:
            return self.step(
                lambda coordinator, now: coordinator.check_produce(
                    transactional_id, producer_id, epoch, places, implicit=implicit, now=now
                )
            )
        except StateUnwritable:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE

    def ask_with_id(
        self,
        call: Callable[[TransactionCoordinator, int | None, int], T],
        shape: Callable[[T], Any],
        refused: Callable[[ErrorCode], Any],
    ) -> Any:
        """`ask` for a step that may need a producer id never used before; most don't."""
        try:
            return self.ask(lambda coordinator, now: call(coordinator, None, now), shape, refused)
        except ProducerIdNeeded:
            return asyncio.ensure_future(self._ask_with_fresh_id(call, shape, refused))

    async def _ask_with_fresh_id(
        self,
        call: Callable[[TransactionCoordinator, int | None, int], T],
        shape: Callable[[T], Any],
        refused: Callable[[ErrorCode], Any],
    ) -> Any:
        fresh_id = await self._broker.metadata.next_producer_id()
        response = self.ask(lambda coordinator, now: call(coordinator, fresh_id, now), shape, refused)
        if not isinstance(response, Later):
            return response
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        response.then(future.set_result)
        return await future


def make(broker: Broker) -> TransactionService:
    """The transaction service of this broker."""
    return TransactionService(broker)
