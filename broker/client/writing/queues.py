"""The producer without its sockets: messages in, requests out, answers in, outcomes out.

Theory. Messages are spread over partitions as they come. Whoever owns the sockets asks for `requests` after everything
that may have made one possible, sends them, and says what became of each: `answered` or `lost`. Outcomes are told by
`tell` alone, when everything else is in order, so that whoever hears of one may hand over more.

An outcome is *stored* (a broker has answered with acks=all), *refused* for certain (`ClusterError`), or *unknown*
(`TimedOut`). After an unknown one the sequence of its partition has a hole, or may have: then this producer has ended
(`fatal`), and everything it holds fails. `partition` has the rules of order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import NamedTuple

from broker.client.errors import ClientError, TimedOut, from_code
from broker.client.outgoing import Sending
from broker.client.writing.batches import Batch, Sealed, Share, failures
from broker.client.writing.partition import Broken, Partition
from broker.client.writing.topic import Memory, Topic
from broker.client.writing.verdicts import UNKNOWN_TOPIC, Verdict, verdict

PATIENCE = 30.0  # seconds for a topic that isn't there to be made
AGAIN = 1.0  # seconds between two looks whether a topic refuses still
BRIEF = 2.0  # likewise, for who only asks how many partitions it has
LARGEST_REQUEST = 16 << 20


class NotSent(ClientError):
    """The producer ended before the message was sent."""


class Answer(NamedTuple):
    """A broker's answer to one batch."""

    code: int
    offset: int = -1
    stamp: int = -1  # of the append, where the topic wants that one
    message: str | None = None
    bad: frozenset[int] = frozenset()  # the records it is about (KIP-467)


@dataclass(eq=False, slots=True)
class Request:
    """Batches under way to one broker, one of each partition."""

    broker: int
    batches: list[tuple[Partition, Sealed]]
    bytes: int = 0


class Queues:
    """See the module. Times are seconds of one clock."""

    def __init__(self, *, delivery_timeout: float, most: int, most_bytes: int) -> None:
        """`most`: messages without an outcome, and `most_bytes` of their payload, beyond which none are taken."""
        self._timeout = delivery_timeout
        self._most = most
        self._most_bytes = most_bytes
        self._topics: dict[str, Topic] = {}
        self._memory = Memory()
        self._waiting: dict[Partition, None] = {}  # those with something to send
        self._outcomes: deque[Callable[[], None]] = deque()
        self._turn = 0
        self._now = 0.0  # of the last call that took messages
        self._look = 0.0  # before then nothing is overdue
        self.messages = 0  # without an outcome
        self.bytes = 0
        self.producer_id = -1
        self.epoch = -1
        self.stale = False  # whether metadata is to be asked for
        self.fatal: ClientError | None = None

    # --- messages

    def take(self, owner: Batch, messages: Sequence[Sending], now: float, stamp: int) -> int:
        """Queue messages: how many were taken. `stamp`: their timestamp, epoch milliseconds."""
        room = self._most - self.messages
        if room <= 0 or self.bytes >= self._most_bytes:
            return 0
        if len(messages) > room:
            messages = messages[:room]
        count = len(messages)
        owner.pending += count
        self.messages += count
        if self.fatal is not None:
            self._fail([Share(owner, messages, stamp, now)], -1, NotSent(str(self.fatal)))
            return count
        self._turn += 1
        self._now = now
        size = self._spread(Share(owner, messages, stamp, now + self._timeout))
        owner.size += size
        self.bytes += size
        return count

    def _spread(self, share: Share) -> int:
        """Put the messages of a share where they belong; their bytes."""
        groups: dict[Partition | Topic, list[Sending]] = {}
        topics, turn = self._topics, self._turn
        size = 0
        same: list[Sending] = []  # where the message before went, whose topic and key mostly are this one's
        name_before: str | None = None
        key_before: bytes | None = None
        number_before: int | None = None
        for message in share.messages:
            name, value, key, _, _, number = message
            if value is not None:
                size += len(value)
            if key is key_before and name is name_before and number == number_before:
                same.append(message)
                continue
            topic = topics.get(name)
            if topic is None:
                topic = self._topic(name)
            where: Partition | Topic = (topic.find(key, turn) if number < 0 else topic.at(number)) or topic
            if where not in groups:
                groups[where] = []
            same = groups[where]
            same.append(message)
            name_before, key_before, number_before = name, key, number
        for where, some in groups.items():
            part = Share(share.owner, some, share.stamp, share.deadline)
            if isinstance(where, Partition):
                where.queue.append(part)
                self._waiting[where] = None
                if where.leader < 0:
                    self.stale = True
            elif where.refusal is not None:
                self._ask_again(where)
                self._fail([part], -1, where.refusal)
            else:
                self.stale = True
                if not where.queue:
                    where.missing_since = None  # it has not been waited for
                where.queue.append(part)
        return size

    def _ask_again(self, topic: Topic) -> None:
        """A topic that refuses is asked about again now and then."""
        if self._now - topic.asked > AGAIN:
            topic.asked = self._now
            self.stale = True

    def _topic(self, name: str) -> Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = Topic(name, self._memory)
        return found

    # --- requests

    def requests(self, now: float, able: Callable[[int], bool]) -> list[Request]:
        """What may leave now, to brokers that are `able` to take it."""
        made: list[Request] = []
        if self.producer_id < 0 or self.fatal is not None:
            return made
        went = True
        while went and self._waiting:
            went = False
            by_broker: dict[int, Request] = {}
            for partition in list(self._waiting):
                broker = partition.leader
                if broker < 0 or not partition.may_send(now) or not able(broker):
                    continue
                request = by_broker.get(broker)
                if request is None or request.bytes > LARGEST_REQUEST:
                    request = by_broker[broker] = Request(broker, [])
                    made.append(request)
                sealed = partition.send(self.producer_id, self.epoch)
                request.batches.append((partition, sealed))
                request.bytes += len(sealed.body)
                if partition.idle:
                    del self._waiting[partition]
                else:
                    went = True
        return made

    def due(self, now: float) -> float | None:
        """When the next partition that pauses may be sent to; None: none does."""
        return min((each.not_before for each in self._waiting if each.not_before > now), default=None)

    # --- outcomes of requests

    def answered(self, request: Request, answers: dict[tuple[str, int], Answer], now: float) -> None:
        """A broker has answered. A partition that is missing in its answer may hold the batch."""
        for partition, sealed in request.batches:
            if self.fatal is not None:
                return
            answer = answers.get((partition.topic, partition.index), Answer(-1))
            try:
                self._judge(partition, sealed, answer, now)
                partition.recover(self.producer_id, self.epoch)
            except Broken as error:
                self.end(TimedOut(f"{partition.topic} {partition.index}: {error}"))

    def lost(self, request: Request, now: float) -> None:
        """There will be no answer: the batches may be stored, or not."""
        self.stale = True
        for partition, sealed in request.batches:
            if self.fatal is not None:
                return
            sealed.ambiguous = True
            self._again(partition, sealed, now, pause=False)
            try:
                partition.recover(self.producer_id, self.epoch)
            except Broken as error:
                self.end(TimedOut(f"{partition.topic} {partition.index}: {error}"))

    def _judge(self, partition: Partition, sealed: Sealed, answer: Answer, now: float) -> None:
        found = verdict(answer.code)
        if found is Verdict.REPEATED and not sealed.ambiguous:
            raise Broken("the broker takes a batch for one that it has, and it was sent once")
        if found in (Verdict.STORED, Verdict.REPEATED) and partition.overtakes(sealed):
            # the leader has both, and had said of the first only that its followers were slow: each is asked for again
            sealed.ambiguous = True
            self._again(partition, sealed, now, pause=False)
        elif found in (Verdict.STORED, Verdict.REPEATED):
            partition.stored(sealed, now)
            self._stored(partition, sealed, answer)
        elif found in (Verdict.LATER, Verdict.PERHAPS):
            self.stale = True
            sealed.ambiguous |= found is Verdict.PERHAPS
            self._again(partition, sealed, now, pause=True)
        elif found is Verdict.GAP and partition.precedes(sealed):
            self._again(partition, sealed, now, pause=False)
        elif found in (Verdict.CONTENT, Verdict.PLACE) and not sealed.ambiguous:
            self._refused(partition, sealed, answer, found)
        else:
            raise Broken(str(from_code(answer.code, answer.message)))

    def _again(self, partition: Partition, sealed: Sealed, now: float, *, pause: bool) -> None:
        partition.retry(sealed, now, pause=pause)
        self._waiting[partition] = None

    def _refused(self, partition: Partition, sealed: Sealed, answer: Answer, found: Verdict) -> None:
        """Certainly not stored. Of several records those that are to blame are found by halving, unless the broker has
        named them."""
        error = from_code(answer.code, answer.message)
        instead: list[Sealed] = []
        refused = sealed.shares
        if found is Verdict.CONTENT and sealed.count > 1:
            bad = {number for number in answer.bad if number < sealed.count}
            if bad:
                refused, instead = sealed.only(bad), sealed.without(bad)
            else:
                refused, instead = [], sealed.halves()
                partition.shrink(len(sealed.body))
        partition.replace(sealed, instead)
        if instead or partition.again or partition.queue:
            self._waiting[partition] = None
        self._fail(refused, partition.index, error)

    # --- metadata

    @property
    def topics(self) -> list[str]:
        """Those that metadata is to be asked for."""
        return list(self._topics)

    def want(self, topic: str) -> None:
        """Learn of this one too."""
        if not self._topic(topic).partitions:
            self.stale = True

    def partitions(self, topic: str, now: float) -> int | ClientError | None:
        """How many partitions there are, or why there are none; None: not known yet."""
        found = self._topics.get(topic)
        if found is None:
            return None
        if found.missing_since is not None and now - found.missing_since > BRIEF:
            return from_code(3, f"{topic} is not there")
        return len(found.partitions) or found.refusal

    def learn(self, topic: str, code: int, leaders: dict[int, int], now: float) -> None:
        """What metadata says: an error, or the leader of each partition, -1 where there is none."""
        found = self._topics.get(topic)
        if found is None:
            return
        if not code and leaders:
            found.learn(leaders)
            waiting, found.queue = found.queue, type(found.queue)()
            for share in waiting:
                self._spread(share)
            self.stale |= any(each.leader < 0 for each in self._waiting)
            return
        if found.queue or not all(partition.idle for partition in found.all()):
            self.stale = True
        if code in UNKNOWN_TOPIC or not code:
            if found.missing_since is None:
                found.missing_since = now
            for partition in found.all():
                partition.leader = -1
        elif verdict(code) is Verdict.PLACE:
            found.refusal = from_code(code)
            self._fail(list(found.queue), -1, found.refusal)
            found.queue.clear()

    # --- time

    def expire(self, now: float) -> None:
        """Messages whose time is up, and topics that are not there. All partitions are looked at, but only when there
        may be one of these: what comes after a look has all of its time before it."""
        if self.fatal is not None or now < self._look:
            return
        look = now + min(PATIENCE, self._timeout)
        for topic in self._topics.values():
            if topic.missing_since is not None and now - topic.missing_since > PATIENCE:
                self._missing(topic)
            elif topic.missing_since is not None:
                look = min(look, topic.missing_since + PATIENCE)
            look = min(look, self._overdue(topic, -1, now))
            for partition in topic.all():
                for sealed in (*partition.flying[:1], *partition.again[:1]):
                    look = min(look, sealed.deadline)
                    if sealed.deadline < now:
                        message = f"no answer for {topic.name} {partition.index} within {self._timeout:g} s"
                        self.end(TimedOut(message))
                        return
                if partition.queue:
                    look = min(look, self._overdue(partition, partition.index, now))
                    if partition.idle:
                        self._waiting.pop(partition, None)
        self._look = look

    def _overdue(self, where: Topic | Partition, index: int, now: float) -> float:
        """Fails what is; when what is left will be."""
        queue = where.queue
        while queue and queue[0].deadline < now:
            self._fail([queue.popleft()], index, TimedOut(f"it could not be sent within {self._timeout:g} s"))
        return queue[0].deadline if queue else inf

    def _missing(self, topic: Topic) -> None:
        """What waits for a topic that is not there can't be stored, nor is anything that was."""
        topic.refusal = error = from_code(3, f"{topic.name} is not there")
        self._fail(list(topic.queue), -1, error)
        topic.queue.clear()
        for partition in topic.all():
            if not partition.flying:
                self._fail(partition.forget(), partition.index, error)
                self._waiting.pop(partition, None)
        topic.close()

    # --- the end

    def end(self, error: ClientError) -> None:
        """Nothing more can be sent: what may be stored is unknown, everything else was not sent."""
        if self.fatal is not None:
            return
        self.fatal = error
        unknown, never = TimedOut(str(error)), NotSent(str(error))
        for topic in self._topics.values():
            self._fail(list(topic.queue), -1, never)
            topic.queue.clear()
            for partition in topic.all():
                sent, unsent = partition.drop()
                self._fail(sent, partition.index, unknown)
                self._fail(unsent, partition.index, never)
        self._waiting.clear()

    # --- telling

    @property
    def pending(self) -> bool:
        """Whether there is an outcome to tell."""
        return bool(self._outcomes)

    def tell(self) -> None:
        """Tell the outcomes there are."""
        while self._outcomes:
            self._outcomes.popleft()()

    def _stored(self, partition: Partition, sealed: Sealed, answer: Answer) -> None:
        if sealed.asked and answer.offset >= 0:
            self._outcomes.append(partial(_place, partition, sealed, answer))
        for share in sealed.shares:
            self._outcomes.append(partial(self._settle, share.owner, len(share.messages)))

    def _fail(self, shares: Iterable[Share], index: int, error: ClientError) -> None:
        for share in shares:
            self._outcomes.append(partial(self._failed, share, index, error))

    def _failed(self, share: Share, index: int, error: ClientError) -> None:
        share.owner.failures += failures(share, index, error)
        self._settle(share.owner, len(share.messages))

    def _settle(self, owner: Batch, count: int) -> None:
        self.messages -= count
        if owner.pending == count:
            self.bytes -= owner.size
            owner.size = 0
        owner.settle(count)


def _place(partition: Partition, sealed: Sealed, answer: Answer) -> None:
    """Tell where messages are to those who want to know."""
    topic, index, offset = partition.topic, partition.index, answer.offset
    stamps = sealed.stamps if answer.stamp < 0 else None
    after = iter(sealed.asked)
    next(after)
    for number, placed in sealed.asked:
        end, _ = next(after, (sealed.count, None))
        if placed is not None:
            stamp = answer.stamp if stamps is None else stamps[number]
            placed(topic, index, offset + number, stamp, end - number)
