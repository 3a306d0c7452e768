"""Publishing where topic plugins decide: once they have answered, in order; what they refuse is dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.ports import PublishItem, Receipt, Session, settled
from gateway.publishing.uplinks import Uplinks
from gateway.receipts import follow, gather


def publish_asked(uplinks: Uplinks, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
    """The receipt settles when all that was allowed is durable. `session.state.asked` knows the plugins."""
    connection = session.state
    topics = dict.fromkeys(item[0].mqtt_topic for item in items)
    waiting = [
        connection.asked.known("publish", topic) for topic in topics if connection.asked.get("publish", topic) is None
    ]
    if connection.last is not None and not connection.last.settled:
        waiting.append(connection.last)

    def publish() -> Receipt[Any]:
        allowed = [item for item in items if connection.asked.get("publish", item[0].mqtt_topic)]
        for target, *_ in (item for item in items if item not in allowed):
            uplinks.refuse(target)
        return uplinks.publish(session, allowed) if allowed else settled()

    if not waiting:
        return publish()
    receipt: Receipt[Any] = Receipt()
    connection.last = submitted = Receipt[Any]()

    def go() -> None:
        follow(publish(), receipt)
        submitted.settle()

    gather(waiting, go)
    return receipt
