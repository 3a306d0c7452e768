"""The table of groups: every group by its id, with what all of them share: the state log, topics, deadlines, offsets.

A group id belongs to one kind of group at a time. A group nobody is in changes its kind by being used.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.groups.classic import ClassicGroup
from broker.groups.classic_calls import ClassicSettings
from broker.groups.classic_state import Snapshot
from broker.groups.consumer import ConsumerGroup
from broker.groups.consumer_state import ConsumerSettings, epochs_record, member_record, read_epochs, read_member
from broker.groups.deadlines import Deadlines
from broker.groups.directory import GroupSettings
from broker.groups.live_settings import LiveSettings
from broker.groups.migration import classic_from_consumer
from broker.groups.offsets import OffsetBook
from broker.groups.ports import GroupConfigs, StateLog, StateRecord, StateUnwritable, Topics
from broker.groups.records import (
    CLASSIC_GROUP,
    CONSUMER_GROUP,
    CONSUMER_MEMBER,
    OFFSET,
    PENDING_OFFSET,
    SHARE_GROUP,
    classic_record,
    read_classic,
    read_key,
    read_offset,
    read_offset_key,
)
from broker.groups.share import ShareGroup, ShareSettings, read_share, share_record

Group = ClassicGroup | ConsumerGroup | ShareGroup

RETRY_MS = 1_000

Gone = Callable[[str, str], None]
"""Told of a share group (by id) whose member (by id) has left or fallen silent."""


class GroupTable:
    """Every group, kept durable and on time."""

    def __init__(
        self,
        *,
        log: StateLog,
        topics: Topics,
        configs: GroupConfigs,
        new_id: Callable[[], str],
        classic: ClassicSettings | None = None,
        consumer: ConsumerSettings | None = None,
        share: ShareSettings | None = None,
        settings: GroupSettings | None = None,
        share_member_gone: Gone = lambda group_id, member_id: None,
    ) -> None:
        self._log = log
        self._topics = topics
        self._new_id = new_id
        self.settings = LiveSettings(configs, classic=classic, consumer=consumer, share=share, groups=settings)
        self._share_member_gone = share_member_gone
        self._deadlines: Deadlines[tuple[str, ...]] = Deadlines()
        self._groups: dict[str, Group] = {}
        self.offsets = OffsetBook(log)

    # -- start ----------------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take one state record back in, in log order."""
        kind, parts = read_key(key)
        if kind == OFFSET:
            self.offsets.replay(read_offset_key(key), None if value is None else read_offset(value))
        elif kind == PENDING_OFFSET:
            group, producer_id, topic, partition = parts
            kept = None if value is None else read_offset(value)
            self.offsets.replay_pending(group, producer_id, (topic, partition), kept)
        elif kind == CLASSIC_GROUP:
            self._replay_classic(parts[0], value)
        elif kind == CONSUMER_GROUP:
            self._replay_consumer(parts[0], value)
        elif kind == SHARE_GROUP:
            if value is not None:
                self._new_share(parts[0], 0).epoch = read_share(value)
            elif isinstance(self._groups.get(parts[0]), ShareGroup):
                del self._groups[parts[0]]
        elif kind == CONSUMER_MEMBER:
            group_id, member_id = parts
            member = None if value is None else read_member(member_id, value)
            found = self._groups.get(group_id)
            if isinstance(found, ConsumerGroup):
                found.replay_member(member_id, member)
            elif member is not None:
                # A member's record can come before its group's: compaction keeps each key's newest.
                self._new_consumer(group_id, 0).replay_member(member_id, member)

    def _replay_classic(self, group_id: str, value: bytes | None) -> None:
        if value is not None:
            self._new_classic(group_id, 0).restore(read_classic(group_id, value))
        elif isinstance(self._groups.get(group_id), ClassicGroup):
            del self._groups[group_id]

    def _replay_consumer(self, group_id: str, value: bytes | None) -> None:
        found = self._groups.get(group_id)
        if value is not None:
            if not isinstance(found, ConsumerGroup):
                found = self._new_consumer(group_id, 0)
            found.replay_epochs(read_epochs(value))
        elif isinstance(found, ConsumerGroup):
            del self._groups[group_id]

    def resume(self, now: int) -> None:
        """Replay is over: sessions begin, and groups that exist by their offsets alone are known."""
        for group_id in list(self.offsets.groups()):
            self._ensure(group_id, now)
        for group in self._groups.values():
            group.resume(now)

    # -- time -------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in milliseconds; None for never."""
        return self._deadlines.next()

    def tick(self, now: int) -> None:
        """Do what has become due. What can't be written stays due a little later."""
        for key in self._deadlines.due(now):
            group = self._groups.get(key[0])
            if group is None:
                continue
            try:
                group.expire(key[1], key[2] if len(key) > 2 else "", now)
                self._settle_kind(group, now)
            except StateUnwritable:
                self._deadlines.set(key, now + RETRY_MS)

    def abandon(self) -> None:
        """Answer whatever is parked; this coordinator will not be asked again."""
        for group in self._groups.values():
            group.die()

    # -- groups -----------------------------------------------------------------------------------------------------

    def _ensure(self, group_id: str, now: int) -> Group:
        return self._groups.get(group_id) or self._new_classic(group_id, now)

    def _new_classic(self, group_id: str, now: int) -> ClassicGroup:
        group = self._groups[group_id] = ClassicGroup(
            group_id,
            settings=self.settings.classic,
            deadlines=self._deadlines,
            write=self._write_classic,
            new_id=self._new_id,
            now=now,
        )
        return group

    def _new_consumer(self, group_id: str, now: int) -> ConsumerGroup:
        group = self._groups[group_id] = ConsumerGroup(
            group_id,
            topics=self._topics,
            settings=lambda: self.settings.consumer(group_id),
            deadlines=self._deadlines,
            write=self._log.append,
            now=now,
        )
        return group

    def _new_share(self, group_id: str, now: int) -> ShareGroup:
        group = self._groups[group_id] = ShareGroup(
            group_id,
            topics=self._topics,
            settings=lambda: self.settings.share(group_id),
            deadlines=self._deadlines,
            write=self._log.append,
            gone=self._share_member_gone,
            now=now,
        )
        return group

    def _write_classic(self, snapshot: Snapshot, now: int) -> None:
        self._log.append([classic_record(snapshot.group_id, snapshot)], now)

    def _tombstones(self, group: Group) -> list[StateRecord]:
        """What makes the log forget the group itself; its offsets are another matter."""
        if isinstance(group, ClassicGroup):
            return [classic_record(group.id, None)]
        if isinstance(group, ShareGroup):
            return [share_record(group.id, None)]
        return [epochs_record(group.id, None), *(member_record(group.id, m, None) for m in group.members)]

    def _drop(self, group: Group) -> None:
        group.die()
        del self._groups[group.id]

    def _settle_kind(self, group: Group, now: int) -> None:
        """Make the group what its members are, after one has gone (KIP-848's downgrade)."""
        if isinstance(group, ConsumerGroup) and group.members and all(m.classic for m in group.members.values()):
            snapshot = classic_from_consumer(group, now)
            self._log.append([*self._tombstones(group), classic_record(group.id, snapshot)], now)
            self._drop(group)
            classic = self._new_classic(group.id, now)
            classic.restore(snapshot)
            classic.resume(now)
            classic.rebalance(now)
