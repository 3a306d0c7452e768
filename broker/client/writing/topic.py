"""One topic's partitions, and which of them a key belongs to."""

from __future__ import annotations

import random
from collections import deque

from broker.client.errors import ClientError
from broker.client.writing.batches import Share
from broker.client.writing.murmur import partition_of
from broker.client.writing.partition import LARGEST, Partition

KEYS = 1 << 17  # whose partition is remembered, at most, of all topics together


class Memory:
    """Which partition a key belongs to costs a hash in Python, so it is remembered; when that becomes too much, all is
    forgotten."""

    def __init__(self) -> None:
        self._count = 0
        self._topics: list[dict[bytes, Partition]] = []

    def add(self, topic: dict[bytes, Partition]) -> None:
        """A topic that remembers here."""
        self._topics.append(topic)

    def note(self, topic: dict[bytes, Partition], key: bytes, partition: Partition) -> None:
        if self._count >= KEYS:
            for each in self._topics:
                each.clear()
            self._count = 0
        self._count += 1
        topic[key] = partition


class Topic:
    """`queue` holds what came before the partitions were known."""

    __slots__ = (
        "_by_key",
        "_memory",
        "_numbered",
        "_sticky",
        "_sticky_at",
        "asked",
        "missing_since",
        "name",
        "partitions",
        "queue",
        "refusal",
    )

    def __init__(self, name: str, memory: Memory) -> None:
        self.name = name
        self.partitions: list[Partition] = []  # those that keys are spread over
        self.queue: deque[Share] = deque()
        self.asked = 0.0  # when somebody wanted to know whether it refuses still
        self.missing_since: float | None = None
        self.refusal: ClientError | None = None  # what becomes of messages until the topic is asked about again
        self._memory = memory
        self._by_key: dict[bytes, Partition] = {}
        memory.add(self._by_key)
        self._numbered: dict[int, Partition] = {}
        self._sticky: Partition | None = None
        self._sticky_at = -1

    def find(self, key: bytes | None, turn: int) -> Partition | None:
        """The key's partition; without a key one that is another every `turn`. None: not known yet."""
        if key is None:
            if not self.partitions:
                return None
            if self._sticky is None or self._sticky_at != turn:
                self._sticky, self._sticky_at = random.choice(self.partitions), turn
            return self._sticky
        found = self._by_key.get(key)
        if found is None and self.partitions:
            found = self.partitions[partition_of(key, len(self.partitions))]
            self._memory.note(self._by_key, key, found)
        return found

    def at(self, number: int) -> Partition | None:
        """A partition by its number; None: nothing is known of the topic yet."""
        if not self.partitions:
            return None
        found = self._numbered.get(number)
        if found is None:
            found = self._numbered[number] = Partition(self.name, number)
        return found

    def all(self) -> list[Partition]:
        return list(self._numbered.values())

    def close(self) -> None:
        """There are no partitions, until `learn`."""
        self.partitions = []
        self._by_key.clear()
        self._sticky = None

    def learn(self, leaders: dict[int, int]) -> None:
        """The leaders of all partitions there are, -1 where there is none."""
        for partition in self._numbered.values():
            partition.leader = leaders.get(partition.index, -1)
            partition.room = LARGEST
        for number, leader in leaders.items():
            if number not in self._numbered:
                self._numbered[number] = Partition(self.name, number)
                self._numbered[number].leader = leader
        known = [self._numbered[number] for number in sorted(leaders)]
        if len(known) != len(self.partitions):
            self._by_key.clear()
            self._sticky = None
        self.partitions = known
        self.missing_since = None
        self.refusal = None
