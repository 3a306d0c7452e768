"""Committed offsets of every group, and those staged in transactions that have not ended.

A staged offset is a record of its own kind, keyed by group, producer id, topic and partition. Ending the
transaction writes, in one batch, the offsets it commits and tombstones for what was staged: replay after a crash sees
all of it or nothing, and doing it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from broker.groups.ports import StateLog, StateRecord
from broker.groups.records import Committed, OffsetKey, offset_record, pending_offset_record

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One partition of a commit."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str


class OffsetBook:
    """Offsets by group. Each change is written before it is applied; StateUnwritable changes nothing."""

    def __init__(self, log: StateLog) -> None:
        self._log = log
        self._committed: dict[str, dict[Place, Committed]] = {}
        self._pending: dict[str, dict[int, dict[Place, Committed]]] = {}

    # -- queries ----------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[str]:
        """Groups with at least one committed or staged offset."""
        yield from self._committed
        yield from (group for group in self._pending if group not in self._committed)

    def has(self, group: str) -> bool:
        """Whether anything is kept for the group."""
        return group in self._committed or group in self._pending

    def committed(self, group: str, topic: str, partition: int) -> Committed | None:
        """The group's position there."""
        return self._committed.get(group, {}).get((topic, partition))

    def places(self, group: str) -> list[Place]:
        """Where the group has committed."""
        return list(self._committed.get(group, ()))

    def unstable(self, group: str, topic: str, partition: int) -> bool:
        """Whether an open transaction is about to move the offset (KIP-447)."""
        return any((topic, partition) in staged for staged in self._pending.get(group, {}).values())

    def has_pending(self, group: str) -> bool:
        """Whether a transaction that has not ended staged offsets for the group."""
        return group in self._pending

    # -- changes ----------------------------------------------------------------------------------------------

    def commit(self, group: str, commits: Sequence[Commit], now: int) -> None:
        """Set the group's positions."""
        made = [(c, Committed(c.offset, c.leader_epoch, c.metadata, now)) for c in commits]
        self._log.append([offset_record(group, c.topic, c.partition, kept) for c, kept in made], now)
        book = self._committed.setdefault(group, {})
        for c, kept in made:
            book[c.topic, c.partition] = kept

    def stage(self, group: str, producer_id: int, commits: Sequence[Commit], now: int) -> None:
        """Set positions that hold once the producer's transaction commits."""
        made = [(c, Committed(c.offset, c.leader_epoch, c.metadata, now)) for c in commits]
        self._log.append(
            [pending_offset_record(group, producer_id, c.topic, c.partition, kept) for c, kept in made], now
        )
        staged = self._pending.setdefault(group, {}).setdefault(producer_id, {})
        for c, kept in made:
            staged[c.topic, c.partition] = kept

    def settle(self, group: str, producer_id: int, *, commit: bool, now: int) -> None:
        """End the producer's transaction in that group; nothing staged means nothing to do."""
        staged = self._pending.get(group, {}).get(producer_id)
        if not staged:
            return
        records: list[StateRecord] = []
        if commit:
            records += [offset_record(group, *place, kept) for place, kept in staged.items()]
        records += [pending_offset_record(group, producer_id, *place, None) for place in staged]
        self._log.append(records, now)
        if commit:
            self._committed.setdefault(group, {}).update(staged)
        self._unstage(group, producer_id)

    def delete(self, group: str, places: Iterable[Place], now: int) -> None:
        """Forget positions."""
        book = self._committed.get(group, {})
        gone = [place for place in places if place in book]
        if gone:
            self._log.append([offset_record(group, *place, None) for place in gone], now)
            self._forget(group, gone)

    def tombstones(self, group: str) -> list[StateRecord]:
        """What deletes everything of the group; `drop` follows once it is written."""
        records = [offset_record(group, *place, None) for place in self._committed.get(group, ())]
        for producer_id, staged in self._pending.get(group, {}).items():
            records += [pending_offset_record(group, producer_id, *place, None) for place in staged]
        return records

    def drop(self, group: str) -> None:
        """Forget the group."""
        self._committed.pop(group, None)
        self._pending.pop(group, None)

    def drop_topic(self, topic: str, now: int) -> None:
        """The topic is gone: so are all positions in it."""
        for group in list(self._committed):
            self.delete(group, [place for place in self._committed[group] if place[0] == topic], now)

    def expired(self, group: str, before: int) -> list[Place]:
        """Positions last committed before that time and not about to be moved by a transaction."""
        return [
            place
            for place, kept in self._committed.get(group, {}).items()
            if kept.timestamp < before and not self.unstable(group, *place)
        ]

    # -- replay -----------------------------------------------------------------------------------------------

    def replay(self, key: OffsetKey, kept: Committed | None) -> None:
        """A committed offset came back from the log."""
        if kept is None:
            self._forget(key.group, [(key.topic, key.partition)])
        else:
            self._committed.setdefault(key.group, {})[key.topic, key.partition] = kept

    def replay_pending(self, group: str, producer_id: int, place: Place, kept: Committed | None) -> None:
        """A staged offset came back from the log."""
        if kept is not None:
            self._pending.setdefault(group, {}).setdefault(producer_id, {})[place] = kept
            return
        staged = self._pending.get(group, {}).get(producer_id, {})
        staged.pop(place, None)
        if not staged:
            self._unstage(group, producer_id)

    def _unstage(self, group: str, producer_id: int) -> None:
        producers = self._pending.get(group, {})
        producers.pop(producer_id, None)
        if not producers:
            self._pending.pop(group, None)

    def _forget(self, group: str, places: Iterable[Place]) -> None:
        book = self._committed.get(group)
        if book is None:
            return
        for place in places:
            book.pop(place, None)
        if not book:
            del self._committed[group]
