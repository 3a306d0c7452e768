"""A cluster in memory that keeps the broker's own rules of sequence numbers, and loses what it is told to lose."""

from __future__ import annotations

from collections import deque

from broker.client.writing.partition import Partition
from broker.client.writing.queues import Answer, Queues, Request
from broker.log import producers
from broker.log.failures import DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence
from broker.wire import batch

LARGE, BAD = b"large", b"bad"


class Log:
    """One partition, replicated without loss."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.values: list[bytes] = []
        self.producers: dict[int, producers.Producer] = {}

    def append(self, data: bytes, fault: int) -> Answer:
        (one,) = batch.validate(data, 1 << 30)
        values = [record.value or b"" for record in batch.records(one)]
        if any(value.startswith(LARGE) for value in values):
            return Answer(10)
        bad = frozenset(number for number, value in enumerate(values) if value.startswith(BAD))
        if bad:
            return Answer(87, bad=bad)
        if fault in (6, 19, -1):
            return Answer(fault)
        state = self.producers.get(one.producer_id)
        repeat = producers.repeated(state, one.producer_epoch, one.base_sequence, one.last_sequence)
        if repeat is not None:
            return Answer(fault, repeat.base_offset)
        first = len(self.values)
        try:
            self.producers[one.producer_id] = producers.follow(
                state,
                epoch=one.producer_epoch,
                first=one.base_sequence,
                last=one.last_sequence,
                base_offset=first,
                last_offset=first + one.count - 1,
                timestamp=one.max_timestamp,
                transactional=False,
                check=True,
            )
        except DuplicateSequence:
            return Answer(46)
        except OutOfOrderSequence:
            return Answer(45)
        except InvalidProducerEpoch:
            return Answer(47)
        self.values += values
        return Answer(fault, first)


class Wire:
    """A connection to one broker: what is sent is processed, and answered, in order."""

    def __init__(self) -> None:
        self.requests: deque[tuple[Request, dict[tuple[str, int], bytes]]] = deque()
        self.answers: deque[tuple[Request, dict[tuple[str, int], Answer]]] = deque()
        self.under_way: list[Request] = []


class Cluster:
    """Two brokers, and the writer's connections to them."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = topic
        self.logs = {(topic, number): Log(number % 2) for number in range(partitions)}
        self.wires = {0: Wire(), 1: Wire()}
        self.late: list[tuple[int, dict[tuple[str, int], bytes]]] = []  # of connections that are lost

    def leaders(self) -> dict[int, int]:
        return {number: log.leader for (_, number), log in self.logs.items()}

    def send(self, request: Request) -> None:
        """The bytes are taken as they are now."""
        content = {(part.topic, part.index): b"".join(sealed.data) for part, sealed in request.batches}
        wire = self.wires[request.broker]
        wire.requests.append((request, content))
        wire.under_way.append(request)

    def process(self, broker: int, fault: int = 0) -> None:
        """A broker deals with its next request. `fault`: what it says of each batch it takes; -1, 6 and 19 without
        having stored it, other codes with."""
        wire = self.wires[broker]
        if wire.requests:
            request, content = wire.requests.popleft()
            wire.answers.append((request, self._append(broker, content, fault)))

    def _append(self, broker: int, content: dict[tuple[str, int], bytes], fault: int) -> dict[tuple[str, int], Answer]:
        return {
            place: self.logs[place].append(data, fault) if self.logs[place].leader == broker else Answer(6)
            for place, data in content.items()
        }

    def answer(self, broker: int, queues: Queues, now: float) -> None:
        wire = self.wires[broker]
        if wire.answers:
            request, answers = wire.answers.popleft()
            wire.under_way.remove(request)
            queues.answered(request, answers, now)

    def cut(self, broker: int, queues: Queues, now: float, *, late: bool) -> None:
        """The connection breaks; what was on its way to the broker may come later all the same."""
        wire, self.wires[broker] = self.wires[broker], Wire()
        if late:
            self.late += [(broker, content) for _, content in wire.requests]
        for request in wire.under_way:
            queues.lost(request, now)

    def come_late(self) -> None:
        if self.late:
            self._append(*self.late.pop(0), 0)


def flying(queues: Queues) -> list[Partition]:
    return [part for topic in queues._topics.values() for part in topic.all() if part.flying]
