"""Sessions that join get everything once: what they missed, what was on its way at that moment, and what follows."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import Record, TopicPartition
from gateway import contract
from gateway.moving.missed import Missed
from gateway.mqtt.fanout import Fanout
from gateway.policy import Rights
from gateway.ports import Message, Subscription

PLACE = TopicPartition("t", 0)


def record(offset: int) -> Record:
    headers = ((contract.H_TOPIC, b"a"), (contract.H_QOS, b"1"))
    return Record("t", 0, offset, 1000, None, b"%d" % offset, headers)


class Box:
    """A mailbox: what it was given."""

    def __init__(self) -> None:
        self.client_id = "x"
        self.limit = 1000
        self.dropped = 0
        self.rights = Rights((), "x", "", unrestricted=True)
        self.subscriptions = {"a": Subscription(filter="a", qos=1)}
        self.given: list[int] = []

    @property
    def state(self) -> Box:
        return self

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        self.given.append(int(message.payload))
        return True


class Log:
    """A consumer that has everything up to an end."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._at = 0
        self.ends: dict[TopicPartition, int] = {}

    def assign(self, places: dict[TopicPartition, int]) -> None:
        self._at = places[PLACE]

    def poll(self, _: int, __: float) -> list[Record]:
        found = [record(offset) for offset in range(self._at, self._end)]
        self._at = self._end
        self.ends[PLACE] = self._end
        return found

    def close(self) -> None:
        pass


@settings(max_examples=100, deadline=None)
@given(
    since=st.integers(0, 10),
    further=st.integers(0, 10),
    passing=st.lists(st.booleans(), max_size=8),
    meanwhile=st.integers(0, 5),
)
async def test_nothing_is_missed_or_given_twice(since: int, further: int, passing: list[bool], meanwhile: int) -> None:
    """`passing`: what was on its way into the log when the session joined, and whether it passes unseen."""
    fanout = Fanout(lambda session, topic: True, lambda *_: None)
    tail = {PLACE: since + further}
    end = since + further + len(passing) + meanwhile

    def arrives(*, seen: bool) -> None:
        if seen:
            fanout.deliver(Message("a", b"%d" % tail[PLACE], 1, origin=("t", 0, tail[PLACE])))
        tail[PLACE] += 1

    async def barrier() -> None:
        for unseen in passing:
            arrives(seen=not unseen)

    def consumer() -> Any:
        return Log(end)

    def may_read(session: Any, topic: str) -> bool:
        for _ in range(meanwhile if tail[PLACE] < end else 0):
            arrives(seen=True)  # while what was missed is read
        return True

    box: Any = Box()
    missed = Missed(
        fanout=fanout,
        consumer=consumer,
        positions=lambda: tail,
        may_read=may_read,
        down=lambda record, whose: False,
        entering=lambda bucket: None,
        barrier=barrier,
    )
    await missed.join([(box, {PLACE: since})])
    while tail[PLACE] < end:
        arrives(seen=True)
    arrives(seen=True)
    missed.close()
    assert box.given == list(range(since, end + 1))
