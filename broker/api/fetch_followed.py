"""What a client follows: the partitions of its fetches, watched once and kept from request to request.

A `Followed` belongs to a connection (clients without fetch sessions) or to a fetch session. It knows which partitions
moved since they were last answered for, so that idle ones are neither read nor encoded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.api.failures import error_of
from broker.log.failures import LogError
from broker.wire.codec import encode, struct
from broker.wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.api.fetch_request import Ask
    from broker.log.partition import Partition, Slice
    from broker.server.waiting import Poll, Waiting

PartitionAnswer = struct("FetchResponse.PartitionData")
AbortedTransaction = struct("FetchResponse.AbortedTransaction")
EpochEndOffset = struct("FetchResponse.EpochEndOffset")

Key = tuple[bytes | str, int]


class Wanted:
    """One partition of a fetch and what was found in it so far."""

    __slots__ = (
        "_empty",
        "_empty_for",
        "current_epoch",
        "diverging",
        "error",
        "index",
        "key",
        "last_fetched_epoch",
        "max_bytes",
        "offset",
        "partition",
        "round",
        "sent_high_watermark",
        "sent_start",
        "slice",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: bytes, index: int, key: Key) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.key = key
        self.partition: Partition | None = None
        self.offset = 0
        self.max_bytes = 0
        self.current_epoch = -1
        self.last_fetched_epoch = -1
        self.error = ErrorCode.NONE
        self.slice: Slice | None = None
        self.diverging: Any = None
        self.sent_high_watermark = -1
        self.sent_start = -1
        self.round = 0
        """The request that named the partition last."""
        self._empty = b""
        self._empty_for: tuple[int, int, int, int, bool] | None = None

    def asks(self, asked: Ask) -> None:
        """Take over what a request says of the partition."""
        _, self.current_epoch, self.offset, self.last_fetched_epoch, _, self.max_bytes, _ = asked

    def read(self, max_bytes: int, committed: bool, at_least_one: bool) -> int:
        """Read once; the bytes found. Errors are kept for the answer."""
        self.slice = None
        self.diverging = None
        partition = self.partition
        if partition is None:
            return 0
        self.error = ErrorCode.NONE
        if self.current_epoch >= 0 and self.current_epoch != partition.leader_epoch:
            newer = self.current_epoch > partition.leader_epoch
            self.error = ErrorCode.UNKNOWN_LEADER_EPOCH if newer else ErrorCode.FENCED_LEADER_EPOCH
            return 0
        if self.last_fetched_epoch >= 0:
            epoch, end = partition.end_offset_for_epoch(self.last_fetched_epoch)
            if epoch < 0 and self.last_fetched_epoch > partition.leader_epoch:
                self.error = ErrorCode.OFFSET_OUT_OF_RANGE
                return 0
            if epoch >= 0 and (epoch < self.last_fetched_epoch or end < self.offset):
                self.diverging = EpochEndOffset(epoch=epoch, end_offset=end)
                return 0
        if self.offset == partition.high_watermark or (max_bytes <= 0 and not at_least_one):
            return 0  # nothing there, or the answer is full
        try:
            found = partition.read(
                self.offset, min(self.max_bytes, max_bytes), committed=committed, at_least_one=at_least_one
            )
        except LogError as error:
            self.error = error_of(error)
            return 0
        self.slice = found
        return found.size

    @property
    def urgent(self) -> bool:
        """Whether the answer can't wait for more bytes."""
        return bool(self.error) or self.diverging is not None

    def refuse(self, code: ErrorCode) -> None:
        """The partition can't be read: answer with the code."""
        self.partition = None
        self.slice = None
        self.diverging = None
        self.error = code

    def answer(self, committed: bool, version: int) -> Any:
        """The partition's part of the response; encoded already, and kept, where it has nothing to tell."""
        partition, found = self.partition, self.slice
        if partition is None or self.error:
            out_of_range = partition is not None and self.error == ErrorCode.OFFSET_OUT_OF_RANGE
            return PartitionAnswer(
                partition_index=self.index,
                error_code=self.error,
                high_watermark=-1,
                log_start_offset=partition.log_start_offset if partition is not None and out_of_range else -1,
                records=b"",
                aborted_transactions=None,
            )
        if self.diverging is None and (found is None or not found.size):
            return self._nothing(partition, committed, version)
        answer = self._told(partition)
        if found is not None:
            answer.records = list(found.buffers)
            if found.aborted is not None:
                answer.aborted_transactions = [
                    AbortedTransaction(producer_id=one.producer_id, first_offset=one.first_offset)
                    for one in found.aborted
                ]
        if self.diverging is not None:
            answer.diverging_epoch = self.diverging
        return answer

    def _told(self, partition: Partition) -> Any:
        return PartitionAnswer(
            partition_index=self.index,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable_offset,
            log_start_offset=partition.log_start_offset,
            aborted_transactions=None,
            records=b"",
        )

    def _nothing(self, partition: Partition, committed: bool, version: int) -> bytes:
        state = (
            partition.high_watermark,
            partition.last_stable_offset,
            partition.log_start_offset,
            version,
            committed,
        )
        if state != self._empty_for:
            answer = self._told(partition)
            if committed:
                answer.aborted_transactions = []
            self._empty, self._empty_for = encode(answer, version), state
        return self._empty


class Followed:
    """The partitions one client follows, and which of them moved."""

    def __init__(self, waiting: Waiting) -> None:
        self.poll: Poll | None = None
        """The request that waits for them to move, if one does."""
        self._waiting = waiting
        self._wanted: dict[Key, Wanted] = {}
        self._by_partition: dict[Partition, Wanted] = {}
        self._round = 0

    def __len__(self) -> int:
        return len(self._wanted)

    def next_round(self) -> int:
        """A request begins."""
        self._round += 1
        return self._round

    def get(self, key: Key) -> Wanted | None:
        return self._wanted.get(key)

    def follow(self, one: Wanted, partition: Partition | None) -> None:
        """Follow a partition, or what took its place under its name."""
        before = one.partition
        if self._wanted.get(one.key) is not one:
            self._wanted[one.key] = one
        if before is partition:
            return
        if before is not None:
            self._unwatch(before)
        one.partition = partition
        if partition is not None:
            self._by_partition[partition] = one
            self._waiting.watch(partition, self._touched)

    def forget(self, key: Key) -> None:
        gone = self._wanted.pop(key, None)
        if gone is not None and gone.partition is not None:
            self._unwatch(gone.partition)

    def refuse(self, one: Wanted, code: ErrorCode) -> None:
        """The partition can't be read (any more): answer with the code until the client asks anew."""
        if one.partition is not None:
            self._unwatch(one.partition)
        one.refuse(code)

    def close(self) -> None:
        for partition in self._by_partition:
            self._waiting.unwatch(partition, self._touched)
        self._by_partition.clear()
        self._wanted.clear()

    def keep_only(self, asked: Sequence[Wanted]) -> None:
        """Forget what the request under way did not name."""
        if len(asked) != len(self._wanted):
            for key in [key for key, one in self._wanted.items() if one.round != self._round]:
                self.forget(key)

    def moved(self, partitions: set[Partition]) -> list[Wanted]:
        """What to look at again for these partitions."""
        find = self._by_partition.get
        return [one for one in map(find, partitions) if one is not None]

    def _touched(self, partition: Partition) -> None:
        if self.poll is not None:
            self.poll.touched(partition)

    def _unwatch(self, partition: Partition) -> None:
        self._by_partition.pop(partition, None)
        self._waiting.unwatch(partition, self._touched)
