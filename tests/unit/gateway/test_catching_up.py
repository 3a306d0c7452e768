"""A gateway that was started again and has not read a partition yet still says where it goes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from broker.client import TopicPartition
from gateway.contract import StoredSession
from gateway.delivering.delivery import Delivery
from gateway.engine import GatewayEngine
from gateway.moving.arrivals import positions_list
from gateway.moving.moves import Moves
from gateway.ports import Receipt
from tests.unit.gateway.test_tail import SilentConsumer

READ, UNREAD = TopicPartition("t", 0), TopicPartition("t", 1)


async def test_a_session_claimed_elsewhere_meanwhile_is_let_go_of_with_the_positions_it_goes_on_from() -> None:
    nothing: Any = None
    consumer: Any = SilentConsumer()
    delivery = Delivery(
        catalogue=nothing,
        fanout=nothing,
        ticks=nothing,
        registry=nothing,
        counters=nothing,
        state=nothing,
        consumer=lambda: consumer,
        clock=lambda: 0.0,
        command=nothing,
        checkpoint=nothing,
    )
    written: list[StoredSession] = []

    async def settled(mailbox: Any) -> bool:
        return True

    def write(each: StoredSession) -> Receipt[Any]:
        written.append(each)
        outcome: Receipt[Any] = Receipt()
        outcome.settle()
        return outcome

    engine: Any = SimpleNamespace(delivery=delivery)
    record = StoredSession(client_id="x", owner="", gateway="a", expiry=100)
    moves = Moves(
        gateway="a",
        sessions=SimpleNamespace(leave=lambda mailbox: None),  # type: ignore[arg-type]  # fakes, as the next ones
        inbox=SimpleNamespace(settle_whole=settled, forget=lambda mailbox: None),  # type: ignore[arg-type]
        records=SimpleNamespace(of_mailbox=lambda mailbox: record, write=write),  # type: ignore[arg-type]
        wills=nothing,
        claims=nothing,
        book=nothing,
        cluster=nothing,
        clock=lambda: 0.0,
        positions=lambda: GatewayEngine._positions(engine),
        rows=nothing,
        held=lambda: True,
        checkpointed=dict,
    )
    mailbox: Any = SimpleNamespace(client_id="x", inbound={})
    try:
        delivery.resume({READ: 7, UNREAD: 9}, 1.0)
        moves.release(mailbox, 3)
        await asyncio.gather(*moves._tasks)
        assert not moves.arrivals.behind()
        assert written[0].released and written[0].positions == positions_list({READ: 7, UNREAD: 9})
        delivery.tail.add({READ: 8})
        moves.release(mailbox, 4)
        await asyncio.gather(*moves._tasks)
        assert written[1].positions == positions_list({READ: 8, UNREAD: 9})
    finally:
        consumer.stop.set()
        await delivery.stop()
