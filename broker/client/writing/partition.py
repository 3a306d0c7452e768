"""One partition's batches: what waits, what is under way, and in which order everything becomes durable.

Rules (KIP-98, as Java's producer keeps them, and stricter where that costs nothing):

- sequence numbers are given when a batch is sent first, and a batch is sent again with the same bytes;
- at most five batches are under way, all to the same broker: that many a broker remembers, so that it knows a repeat;
- after a failure nothing is sent until everything under way has come back; then again from the first batch without an
  outcome on, and only one until that is stored (`_alone`). Likewise at first, and after a rest: a broker that knows
  nothing of a producer takes any number for its first, so the second of two batches could become durable when the
  first was refused, which would then pass for a repeat;
- what is certainly refused leaves a gap, and those behind it are numbered anew; one of which an attempt may have been
  stored under its old number can't be (`Broken`).
"""

from __future__ import annotations

from collections import deque

from broker.client.writing.batches import WRAP, Sealed, Share, seal

UNDER_WAY = 5
LARGEST = 1_000_000  # bytes of a batch: below the default of `max.message.bytes`, 1,048,588
SMALLEST = 16_384  # to which batches shrink where they are too large
REST = 60.0  # seconds after which a broker may have forgotten a producer; it remembers for longer as a rule
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5


class Broken(Exception):
    """What the log holds of this partition can't be known any more."""


class Partition:
    """Sends nothing and knows no time: the caller says it, in seconds of one clock."""

    __slots__ = (
        "_alone",
        "_begun",
        "_next",
        "_recovering",
        "_rested_since",
        "_stored",
        "_troubles",
        "again",
        "flying",
        "index",
        "leader",
        "not_before",
        "queue",
        "room",
        "sent_to",
        "topic",
    )

    def __init__(self, topic: str, index: int) -> None:
        self.topic = topic
        self.index = index
        self.leader = -1
        self.queue: deque[Share] = deque()
        self.again: list[Sealed] = []  # numbered, and to be sent again; in order unless `_recovering`
        self.flying: list[Sealed] = []  # under way, in order
        self.sent_to = -1
        self.not_before = 0.0
        self.room = LARGEST
        self._begun = 0  # batches
        self._next = 0  # sequence number of the next new batch
        self._stored = 0  # the one after the last batch that is stored
        self._alone = True
        self._recovering = False
        self._rested_since = 0.0
        self._troubles = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.queue and not self.again

    def may_send(self, now: float) -> bool:
        """Whether the next batch may leave now, to `leader`."""
        if self._recovering or now < self.not_before:
            return False
        flying = len(self.flying)
        if not flying:
            if now - self._rested_since > REST:
                self._alone = True
            return True
        return not self._alone and flying < UNDER_WAY and self.sent_to == self.leader

    def send(self, producer_id: int, epoch: int) -> Sealed:
        """The next batch, which is under way from now on."""
        if self.again:
            sealed = self.again.pop(0)
        else:
            self._begun += 1
            sealed = seal(self.queue, self.room, (self._begun,))
            sealed.number(producer_id, epoch, self._next)
            self._next = (self._next + sealed.count) % WRAP
        self.flying.append(sealed)
        self.sent_to = self.leader
        return sealed

    # --- outcomes of what is under way

    def stored(self, sealed: Sealed, now: float) -> None:
        """The log holds it. Raises Broken if one before it is not stored."""
        if self.flying[0] is not sealed or any(each.order < sealed.order for each in self.again):
            raise Broken("a batch was stored before the one that precedes it")
        self.flying.remove(sealed)
        self._stored = (sealed.sequence + sealed.count) % WRAP
        self._rested_since = now
        self._troubles = 0
        if not self._recovering:
            self._alone = False

    def precedes(self, sealed: Sealed) -> bool:
        """Whether one before it has no outcome, or what precedes it is being put in order."""
        return self._recovering or self.flying[0] is not sealed

    def overtakes(self, sealed: Sealed) -> bool:
        """Whether all that precede it without an outcome may be stored, and some do: as it is stored itself, they are
        too, and will be known for repeats."""
        earlier = [each for each in self.again if each.order < sealed.order]
        return bool(earlier) and self.flying[0] is sealed and all(each.ambiguous for each in earlier)

    def retry(self, sealed: Sealed, now: float, *, pause: bool) -> None:
        """Send it again."""
        self.flying.remove(sealed)
        self.again.append(sealed)
        if pause and not self._recovering:
            self.not_before = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._troubles)
            self._troubles = min(self._troubles + 1, 10)
        self._recovering = True

    def replace(self, sealed: Sealed, instead: list[Sealed]) -> None:
        """It is certainly not stored: send these in its place."""
        self.flying.remove(sealed)
        self.again += instead
        self._recovering = True

    def recover(self, producer_id: int, epoch: int) -> None:
        """Once everything under way has come back: put what is sent again in order. Raises Broken."""
        if not self._recovering or self.flying:
            return
        self._recovering = False
        self._alone = True
        self.again.sort(key=lambda sealed: sealed.order)
        at = self._stored
        for sealed in self.again:
            if sealed.sequence != at:
                if sealed.ambiguous:
                    raise Broken("a batch that may be stored would have to be numbered anew")
                sealed.number(producer_id, epoch, at)
            at = (at + sealed.count) % WRAP
        self._next = at

    def shrink(self, size: int) -> None:
        """A batch of so many bytes was too large here."""
        self.room = max(SMALLEST, min(self.room, size // 2))

    def forget(self) -> list[Share]:
        """The partition is gone: everything that waited for it."""
        gone = [share for sealed in self.again for share in sealed.shares] + list(self.queue)
        self.again.clear()
        self.queue.clear()
        self._stored = self._next
        self._alone = True
        self._recovering = False
        return gone

    def drop(self) -> tuple[list[Share], list[Share]]:
        """Everything that may be stored, and everything that was never sent."""
        numbered = sorted((*self.flying, *self.again), key=lambda sealed: sealed.order)
        sent, unsent = [share for sealed in numbered for share in sealed.shares], list(self.queue)
        self.flying.clear()
        self.again.clear()
        self.queue.clear()
        return sent, unsent
