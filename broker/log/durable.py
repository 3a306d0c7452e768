"""What is durable of a partition: its segments, offsets, producers and open transactions.

Only `apply` changes it, with an entry that the journal has made durable; replaying the journal is the same, with what
the entry did to the producers worked out from its batches again.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from broker.log import batches as stored
from broker.log import producers as rules
from broker.log.batches import CONTROL, TRANSACTIONAL, Info
from broker.log.config import LogConfig
from broker.log.files import Files
from broker.log.index import AbortedTransaction
from broker.log.journal import Kind
from broker.log.producers import Producer
from broker.log.segment import TAIL_BYTES, Segment
from broker.log.staged import Staged, Stager
from broker.wire import batch as wire


class Gap(NamedTuple):
    """Offsets whose records are lost to corruption."""

    start: int
    end: int  # exclusive
    why: str


class DurableLog:
    """The log of one partition, as far as it is durable."""

    def __init__(
        self,
        store: Stager,
        files: Files,
        root: str,
        *,
        topic: str,
        topic_id: bytes,
        index: int,
        folder: str,
        config: LogConfig,
    ) -> None:
        self._store = store
        self._files = files
        self.folder = folder  # name within the root
        self.path = f"{root}/{folder}"
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.config = config
        self.log_start_offset = 0
        self.high_watermark = 0
        self.log_end_offset = 0  # runs ahead: what is staged ends here
        self.last_stable_offset = 0  # first offset of the oldest open transaction, or the high watermark (KIP-98)
        self.leader_epoch = 0  # rises with each unclean restart
        self.cleaned_offset = 0  # compaction has been up to here
        self.loose_offset = 0  # compaction may go up to here: below, offsets need not follow each other
        self.epochs: list[tuple[int, int]] = []  # (leader epoch, its first offset)
        self.gaps: list[Gap] = []
        self.segments: list[Segment] = []
        self.buried = False  # its deletion is durable
        self.dirty = False  # changed since its last capture
        self.internal = topic.startswith("__")
        self._applied: dict[int, Producer] = {}
        self._open: dict[int, int] = {}  # applied: producer -> first offset of its open transaction, oldest first

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def active(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    # -- applying

    def apply(self, staged: Staged) -> None:
        """Take a durable entry in. Memory, and now and then a segment write."""
        self.dirty = True
        kind = staged.kind
        if kind == Kind.RECORDS:
            if staged.roll:
                self._roll(staged.base)
            self._take_state(staged)
            segment = self.segments[-1]
            segment.append(staged.data, staged.base, staged.infos, self.config.index_interval_bytes)
            self.high_watermark = staged.last + 1
            self.settle_stable()
            if segment.tail_bytes >= TAIL_BYTES:
                self._store.grew(self)
        elif kind == Kind.START:
            self.log_start_offset = max(self.log_start_offset, staged.base)
        elif kind == Kind.ROLL:
            self._roll(staged.base)
        elif kind == Kind.LOOSE:
            self.loose_offset = max(self.loose_offset, staged.base)
        elif kind == Kind.EPOCH:
            self._begin_epoch(int.from_bytes(staged.data, "big"), staged.base)

    def _take_state(self, staged: Staged) -> None:
        for producer, state in staged.producers:
            self._applied[producer] = state
        for info in staged.infos:
            if not info.attributes & TRANSACTIONAL:
                continue
            if not info.attributes & CONTROL:
                self._open.setdefault(info.producer_id, info.base_offset)
                continue
            first = self._open.pop(info.producer_id, None)
            if first is not None and not staged.commit:
                stable = next(iter(self._open.values()), info.last_offset + 1)
                self.segments[-1].load_indexes()
                self.segments[-1].transactions.append(
                    AbortedTransaction(info.producer_id, first, info.last_offset, stable)
                )

    def _roll(self, base: int) -> None:
        if self.segments:
            last = self.segments[-1]
            if last.base == base:
                return
            last.seal()
            last.dirty = True
        segment = Segment(self._files, self.path, base)
        segment.dirty = True
        self.segments.append(segment)

    def _begin_epoch(self, epoch: int, start: int) -> None:
        while self.epochs and self.epochs[-1][1] >= start:
            self.epochs.pop()
        self.epochs.append((epoch, start))
        self.leader_epoch = epoch

    def settle_stable(self) -> None:
        """Work out the last stable offset anew."""
        self.last_stable_offset = next(iter(self._open.values()), self.high_watermark)

    def drop_segments(self) -> list[Segment]:
        """Take out the segments that lie wholly before the log's start; the caller removes their files."""
        keep = 0
        while keep + 1 < len(self.segments) and self.segments[keep + 1].base <= self.log_start_offset:
            keep += 1
        gone, self.segments = self.segments[:keep], self.segments[keep:]
        return gone

    def replace_segments(self, slot: int, count: int, fresh: list[Segment]) -> None:
        """Compaction's result stands for `count` segments from `slot` on."""
        self.segments[slot : slot + count] = fresh

    # -- replaying

    def replay(self, staged: Staged) -> None:
        """Apply an entry of the journal: what it did to the producers is worked out again from its batches."""
        if staged.kind == Kind.RECORDS:
            infos = list(stored.walk(staged.data))
            staged.infos, staged.last = infos, infos[-1].last_offset
            states: dict[int, Producer] = {}
            for info in infos:
                commit = self._follow(staged.data, info, states)
                staged.commit = staged.commit if commit is None else commit
            staged.producers = list(states.items())
        self.apply(staged)

    def _follow(self, data: bytes, info: Info, states: dict[int, Producer]) -> bool | None:
        """Bring `states` to where this batch of `data` leaves its producer; a marker's word, None of another batch."""
        producer = info.producer_id
        if producer < 0:
            return None
        old = states.get(producer) or self._applied.get(producer)
        if info.attributes & CONTROL:
            marker = wire.parse_marker(wire.split(data[info.position : info.position + info.size])[0])
            states[producer] = rules.finish(
                old,
                epoch=info.producer_epoch,
                coordinator_epoch=marker.coordinator_epoch,
                timestamp=info.max_timestamp,
                check=False,
            )
            return marker.commit
        if info.base_sequence >= 0:
            states[producer] = rules.follow(
                old,
                epoch=info.producer_epoch,
                first=info.base_sequence,
                last=rules.after(info.base_sequence, info.last_offset - info.base_offset),
                base_offset=info.base_offset,
                last_offset=info.last_offset,
                timestamp=info.max_timestamp,
                transactional=bool(info.attributes & TRANSACTIONAL),
                check=False,
            )
        return None

    def rebuild_producers(self, below: int) -> dict[int, Producer]:
        """The producers' states at `below`, worked out from the stored batches (when a snapshot is not to be had)."""
        states: dict[int, Producer] = {}
        for segment in self.segments:
            for info, data in segment.infos():
                if info.base_offset >= below:
                    return states
                self._follow(data, info, states)
        return states

    def states(self) -> dict[int, Producer]:
        """The applied states, as a snapshot keeps them."""
        return self._applied

    # -- leader epochs

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(the largest epoch at or below `epoch`, where it ended); (-1, -1) when unknown (KIP-320)."""
        if not self.epochs or epoch < 0 or epoch > self.epochs[-1][0]:
            return -1, -1
        if epoch == self.epochs[-1][0]:
            return epoch, self.high_watermark
        slot = bisect_right(self.epochs, epoch, key=lambda known: known[0])
        if not slot:
            return epoch, self.epochs[0][1]
        return self.epochs[slot - 1][0], self.epochs[slot][1]

    def epoch_of(self, offset: int) -> int:
        """The leader epoch of that offset; -1 when unknown."""
        slot = bisect_right(self.epochs, offset, key=lambda known: known[1])
        return self.epochs[slot - 1][0] if slot else -1
