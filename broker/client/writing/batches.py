"""What callers hand over, and the batches made of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from broker.client.errors import ClientError
from broker.client.outgoing import Failure, PlacedAt, Sending
from broker.client.writing.encoding import write
from broker.wire import batch

WRAP = 1 << 31  # sequence numbers start again at 0


class Batch:
    """Messages whose outcomes are counted together. `send_all` any number of times, `seal` once."""

    __slots__ = ("_done", "_sealed", "_take", "failures", "pending", "size")

    def __init__(self, take: Callable[[Batch, Sequence[Sending]], int], done: Callable[[Batch], None]) -> None:
        self._take = take
        self._done = done
        self._sealed = False
        self.pending = 0
        self.size = 0  # bytes of payload of those without an outcome, and of others handed over with them
        self.failures: list[Failure] = []

    def send_all(self, messages: Sequence[Sending]) -> int:
        """Queue many, in order: how many were taken before the queue was full. A message that can't be sent counts as
        taken, and is among the failures. Whoever wants to know a message's place is told before `done`, in the order
        of offsets within a partition."""
        return self._take(self, messages)

    def seal(self) -> None:
        """No more messages follow. `done` is called from here if everything already has its outcome."""
        if not self._sealed:
            self._sealed = True
            if not self.pending:
                self._done(self)

    def settle(self, count: int) -> None:
        """So many have their outcome."""
        self.pending -= count
        if self._sealed and not self.pending:
            self._done(self)


class Share:
    """Messages of one caller's batch that go to one partition (or topic, while its partitions aren't known)."""

    __slots__ = ("deadline", "messages", "owner", "stamp")

    def __init__(self, owner: Batch, messages: Sequence[Sending], stamp: int, deadline: float) -> None:
        self.owner = owner
        self.messages = messages
        self.stamp = stamp  # epoch milliseconds
        self.deadline = deadline

    def cut(self, at: int) -> tuple[Share, Share]:
        """What is before this number, and the rest."""
        return (
            Share(self.owner, self.messages[:at], self.stamp, self.deadline),
            Share(self.owner, self.messages[at:], self.stamp, self.deadline),
        )


class Sealed:
    """A batch with its sequence numbers. `order` sorts those of one partition."""

    __slots__ = (
        "_base",
        "_last",
        "ambiguous",
        "asked",
        "body",
        "count",
        "data",
        "deadline",
        "order",
        "sequence",
        "shares",
    )

    def __init__(
        self, shares: list[Share], body: bytes, asked: list[tuple[int, PlacedAt | None]], order: tuple[int, ...]
    ) -> None:
        self.shares = shares
        self.body = body
        self.asked = asked
        self.order = order
        self.count = sum(len(share.messages) for share in shares)
        self.deadline = min(share.deadline for share in shares)
        self._base = shares[0].stamp
        self._last = max(share.stamp for share in shares)
        self.sequence = -1
        self.data: tuple[bytes, bytes] = (b"", b"")
        self.ambiguous = False  # whether an attempt may have appended it

    @property
    def stamps(self) -> list[int]:
        """The timestamp of each record."""
        return list(itertools.chain.from_iterable([share.stamp] * len(share.messages) for share in self.shares))

    def number(self, producer_id: int, epoch: int, sequence: int) -> None:
        """Give it its sequence numbers."""
        self.sequence = sequence
        header = batch.header(
            self.body,
            self.count,
            base_timestamp=self._base,
            max_timestamp=self._last,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
        )
        self.data = header, self.body

    def without(self, numbers: set[int]) -> list[Sealed]:
        """The batch of its other records, if there are any."""
        kept: deque[Share] = deque()
        first = 0
        for share in self.shares:
            left = [message for at, message in enumerate(share.messages, first) if at not in numbers]
            if left:
                kept.append(Share(share.owner, left, share.stamp, share.deadline))
            first += len(share.messages)
        return [seal(kept, 1 << 31, (*self.order, 0))] if kept else []

    def only(self, numbers: set[int]) -> list[Share]:
        """Its records of these numbers."""
        found = []
        first = 0
        for share in self.shares:
            these = [message for at, message in enumerate(share.messages, first) if at in numbers]
            if these:
                found.append(Share(share.owner, these, share.stamp, share.deadline))
            first += len(share.messages)
        return found

    def halves(self) -> list[Sealed]:
        """Two batches of its records."""
        middle = self.count // 2
        one = set(range(middle))
        return [
            seal(deque(self.only(one)), 1 << 31, (*self.order, 0)),
            seal(deque(self.only(set(range(middle, self.count)))), 1 << 31, (*self.order, 1)),
        ]


def seal(queue: deque[Share], room: int, order: tuple[int, ...]) -> Sealed:
    """A batch of what stands at the head of a queue that isn't empty, of about `room` bytes; it is taken from there."""
    base = queue[0].stamp
    pieces: list[bytes] = []
    asked: list[tuple[int, PlacedAt | None]] = []
    shares: list[Share] = []
    number = size = 0
    while queue:
        share = queue[0]
        taken, more = write(pieces, share.messages, share.stamp - base, number, room - size, asked)
        number += taken
        size += more
        if taken == len(share.messages):
            shares.append(queue.popleft())
            continue
        if taken:
            head, queue[0] = share.cut(taken)
            shares.append(head)
        break
    return Sealed(shares, b"".join(pieces), asked, order)


def failures(share: Share, partition: int, error: ClientError) -> list[Failure]:
    """Every message of a share as failed."""
    return [Failure(message[0], partition, message[2], message[1], error) for message in share.messages]
