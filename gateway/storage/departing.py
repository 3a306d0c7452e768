"""When a batch of messages leaves for the log, and what it waits for.

Theory. A request to the broker, with its fsync and the waking of two processes, costs as much as some three hundred
messages in it (0.2 ms of CPU here and 0.3 there; 1 and 0.4 µs a message). All partitions share it. So

- the more messages a second come, the longer a batch gathers after the last one left: ten thousand devices whose
  messages come one by one would pay for a request each;
- whoever publishes again right after an acknowledgement *hurries*: its batch leaves as soon as none is under way. Those
  that the batch before it answered are about to publish again too, so it waits for as many as that, for a part of the
  time that batch took: else the first one to be answered would leave alone and all others a batch behind it. A lone
  device finds itself complete and waits for nothing;
- with batches under way another one leaves when it is large, the larger the more there are. Else a broker that is slow
  for a moment is given ever smaller ones, and is slower for each.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from math import inf

GATHER = 0.02  # at most between two batches that nobody hurries
GATHER_PER = 4e-6  # of that for each message a second
MEASURED = 0.05  # over which messages a second are counted
AGAIN = 0.05  # within which a device that publishes again, or again after its acknowledgement, waits for each
ENOUGH = 300  # messages that make a batch worth its requests
UNDER_WAY = 2  # batches beside which only a large one leaves
LONGEST = 0.25  # that a batch waits whatever is under way
PATIENCE = 0.002  # at most, for those who were answered just now
SHARE = 0.5  # of the time that their batch took, likewise


class Departures:
    """What was seen of the last batches."""

    __slots__ = (
        "_answered_at",
        "_answered_since",
        "_counted",
        "_counted_since",
        "_expected",
        "_gap",
        "_last",
        "_patient_until",
    )

    def __init__(self) -> None:
        self._last = -inf  # when the last batch left
        self._counted = 0  # messages that left since
        self._counted_since = 0.0
        self._gap = 0.0  # that a batch gathers after the last one left
        self._expected = 0  # who hurry when all are back that the last outcome answered
        self._patient_until = 0.0
        self._answered_at = -inf  # the last outcome
        self._answered_since = inf  # when its batch began

    def hurries(self, now: float, last: float) -> bool:
        """Whether a device that publishes, and did so last then, waits for each acknowledgement."""
        return now - last < AGAIN or (last >= self._answered_since and now - self._answered_at < AGAIN)

    def left(self, now: float, count: int) -> None:
        """A batch of so many messages leaves."""
        self._last = now
        self._counted += count
        passed = now - self._counted_since
        if passed >= MEASURED:
            self._gap = min(GATHER, self._counted / passed * GATHER_PER)
            self._counted, self._counted_since = 0, now

    def settled(self, now: float, began: float, left: float, answered: int, hurrying: int) -> None:
        """A batch that began and left then has its outcome: so many who hurried are answered, and so many hurry in the
        one that gathers."""
        self._expected = answered + hurrying
        self._patient_until = now + min(PATIENCE, (now - left) * SHARE)
        self._answered_at, self._answered_since = now, began

    def due(self, count: int, hurrying: int, under_way: int) -> float:
        """When a batch of so many messages is to leave, as things are; may be long ago."""
        if count >= ENOUGH << max(0, under_way - 1):
            return -inf
        if hurrying and not under_way:
            return -inf if hurrying >= self._expected else self._patient_until
        return self._last + (self._gap if under_way < UNDER_WAY else LONGEST)
