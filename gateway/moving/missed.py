"""What sessions missed while they moved here: read again, matched for them alone, in order.

Another gateway had delivered up to some positions, this one's tail is at others, further on. At one moment the sessions
enter the fan-out, where what arrives for them from then on is held. What was on its way into the log at that moment may
pass the tail unseen, since nobody here had subscribed (`Delivery.fresh`): so a barrier follows, and the positions after
it are where they join. What lies before is read by a consumer of its own and matched against their subscriptions only;
then what was held follows, from there on. So each gets every record once, in the order of its partition. Sessions that
wait at the same time share one reading: it costs what passed meanwhile, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from broker.client import Consumer, Record, TopicPartition
from broker.client.errors import ClientError
from gateway.delivering.messages import message_of
from gateway.moving.shares import Bucket
from gateway.mqtt.fanout import Fanout
from gateway.mqtt.topics import split_share
from gateway.ports import Message
from gateway.sessions.mailbox import Mailbox

log = logging.getLogger("gateway.missed")

Positions = Mapping[TopicPartition, int]
BATCH = 2000
QUIET = 30.0  # seconds without a record after which reading again is given up


class _Later:
    """Stands in the fan-out for a session that isn't ready, and holds what comes."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.client_id = mailbox.client_id
        self.held: deque[tuple[Message, int, bool, tuple[int, ...]]] = deque()

    @property
    def state(self) -> Any:
        return self.mailbox

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        if len(self.held) > self.mailbox.limit:
            self.held.popleft()
            self.mailbox.dropped += 1
        self.held.append((message, qos, retain, identifiers))
        return True


class _Between:
    """Stands for a session while records are read again; passes over what it had already."""

    def __init__(self, mailbox: Mailbox, since: Positions, until: Positions) -> None:
        self.mailbox = mailbox
        self.client_id = mailbox.client_id
        self._since = since
        self._until = until

    @property
    def state(self) -> Any:
        return self.mailbox

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        topic, partition, offset = message.origin
        if self.missed(TopicPartition(topic, partition), offset):
            return self.mailbox.deliver(message, qos, retain, identifiers)
        return True

    def missed(self, place: TopicPartition, offset: int) -> bool:
        until = self._until.get(place, 0)
        return self._since.get(place, until) <= offset < until


class Missed:
    """`join` brings sessions into the fan-out."""

    def __init__(
        self,
        *,
        fanout: Fanout,
        consumer: Callable[[], Consumer],
        positions: Callable[[], Positions],
        may_read: Callable[[Any, str], bool],
        down: Callable[[Record, Callable[[str], bool]], bool],
        entering: Callable[[Bucket], None],
        barrier: Callable[[], Awaitable[None]],
    ) -> None:
        """`positions`: where this gateway's tail is, `barrier` comes back when it has dealt with all that was handed
        over before. `down` takes a record with a downlink route for the clients that
        the callback names; False: there is none. `entering` is told of buckets from then on here."""
        self._fanout = fanout
        self._make = consumer
        self._positions = positions
        self._may_read = may_read
        self._down = down
        self._entering = entering
        self._barrier = barrier
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="missed")
        self._turn = asyncio.Lock()

    async def join(self, arriving: Sequence[tuple[Any, Positions]]) -> None:
        """Mailboxes, or buckets of share groups. Each had everything before its positions (of a partition that isn't
        named: everything before now).

        Raises ClientError; then nothing was changed but that some messages may have been delivered already."""
        async with self._turn:
            until: dict[TopicPartition, int] = {}
            waiting = [(self._begin(mailbox), since) for mailbox, since in arriving]
            try:
                await self._barrier()
                until.update(self._positions())
                await self._read(waiting, until)
            finally:
                for later, _ in waiting:
                    self._enter(later, until)

    def _begin(self, mailbox: Any) -> _Later:
        later = _Later(mailbox)
        if isinstance(mailbox, Bucket):
            mailbox.begin()
            self._entering(mailbox)
            return later
        for each in mailbox.subscriptions.values():
            if split_share(each.filter)[0] is None:
                self._fanout.subscribe(later, replace(each, check=True))  # type: ignore[arg-type]  # stands for its session
        return later

    def _enter(self, later: _Later, until: Positions) -> None:
        mailbox: Any = later.mailbox
        if isinstance(mailbox, Bucket):
            mailbox.held = deque(each for each in mailbox.held or () if _from(each, until))
            mailbox.enter()
            return
        for message, qos, retain, identifiers in later.held:
            if _from(message, until):
                mailbox.deliver(message, qos, retain, identifiers)
        for each in mailbox.subscriptions.values():
            if split_share(each.filter)[0] is None:
                self._fanout.unsubscribe(later, each.filter)  # type: ignore[arg-type]  # stands for its session
            self._fanout.subscribe(mailbox, replace(each, check=True))

    async def _read(self, waiting: list[tuple[_Later, Positions]], until: dict[TopicPartition, int]) -> None:
        start: dict[TopicPartition, int] = {}
        fanout = Fanout(self._may_read, lambda *_: None)
        betweens: dict[str, _Between] = {}
        for later, since in waiting:
            behind = {place: at for place, at in since.items() if at < until.get(place, 0)}
            for place, at in behind.items():
                start[place] = min(at, start.get(place, at))
            if behind:
                between = betweens[later.client_id] = _Between(later.mailbox, since, until)
                for each in later.mailbox.subscriptions.values():
                    if split_share(each.filter)[0] is None:
                        fanout.subscribe(between, replace(each, check=True))  # type: ignore[arg-type]  # stands for its session
        if not start:
            return
        loop = asyncio.get_running_loop()
        consumer = await loop.run_in_executor(self._thread, self._make)
        try:
            await loop.run_in_executor(self._thread, consumer.assign, start)
            await self._match(consumer, fanout, betweens, set(start), until)
        finally:
            await loop.run_in_executor(self._thread, consumer.close)

    async def _match(
        self,
        consumer: Consumer,
        fanout: Fanout,
        betweens: Mapping[str, _Between],
        left: set[TopicPartition],
        until: dict[TopicPartition, int],
    ) -> None:
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while left:
            records = await loop.run_in_executor(self._thread, consumer.poll, BATCH, 0.05)
            for record in records:
                place = TopicPartition(record.topic, record.partition)
                if record.offset >= until[place] - 1:
                    left.discard(place)
                if record.offset >= until[place]:
                    continue

                def missed_it(client_id: str, place: TopicPartition = place, offset: int = record.offset) -> bool:
                    return client_id in betweens and betweens[client_id].missed(place, offset)

                if self._down(record, missed_it):
                    continue
                message = message_of(record)
                if message is not None:
                    fanout.deliver(message)
            for place, end in list(consumer.ends.items()):
                if end >= until.get(place, 0):
                    left.discard(place)
            if records:
                moved = loop.time()
            elif loop.time() - moved > QUIET:
                raise ClientError(f"records of {', '.join(sorted({each.topic for each in left}))} could not be read")

    def close(self) -> None:
        self._thread.shutdown(wait=False)


def _from(message: Message, until: Positions) -> bool:
    """Whether it is none of those that were read again."""
    if message.origin is None:
        return True
    topic, partition, offset = message.origin
    return bool(offset >= until.get(TopicPartition(topic, partition), 0))
