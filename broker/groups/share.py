"""A share group's members (KIP-932): who reads which partitions. Several may read one; nobody owns any.

Members are not durable: after a restart each is told that it is not known and joins again, which costs it one
heartbeat, while the records it held come back to it or to others. The epoch is durable: it never runs backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from broker.groups.assignors import Partition
from broker.groups.consumer_state import JOINING, LEAVING, Refused
from broker.groups.deadlines import Deadlines
from broker.groups.ports import StateRecord, Topics
from broker.groups.records import SHARE_GROUP, own_key, own_value, read_value
from broker.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareMember:
    """One member; changed by making a new one."""

    id: str
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    epoch: int = 0
    previous_epoch: int = 0
    assigned: frozenset[Partition] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeartbeat:
    """ShareGroupHeartbeat; None means: as before."""

    group_id: str
    member_id: str
    member_epoch: int
    rack_id: str | None = None
    topics: frozenset[str] | None = None
    client_id: str = ""
    client_host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBeat:
    """Answer to `ShareHeartbeat`; `assignment` None means: as before."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    member_id: str | None = None
    epoch: int = 0
    interval_ms: int = 0
    assignment: frozenset[Partition] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSettings:
    """Defaults of share groups, in milliseconds; group configs override them."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    max_size: int = 200


LATE_MS = 2_000
"""How late a heartbeat may be of a member whose connection closed."""


def share_record(group_id: str, epoch: int | None) -> StateRecord:
    """The group's record, or its tombstone."""
    key = own_key(SHARE_GROUP, group_id)
    return key, None if epoch is None else own_value({"epoch": epoch})


def read_share(value: bytes) -> int:
    """The epoch in a group's record."""
    epoch: int = read_value(value)["epoch"]
    return epoch


def spread(subscriptions: Mapping[str, frozenset[bytes]], topics: Mapping[bytes, int]) -> dict[str, set[Partition]]:
    """Every partition to somebody, everybody to some partition: members share where there are more of them.

    A partition has two members where there are two, so that the death of one leaves its records nobody's only until
    the broker sees it, not until the group has noticed and told the others.
    """
    shares: dict[str, set[Partition]] = {member: set() for member in subscriptions}
    turn = 0
    for topic in sorted(topics):
        takers = [m for m in sorted(subscriptions) if topic in subscriptions[m]]
        count = topics[topic]
        if not takers or not count:
            continue
        for step in range(max(len(takers), count)):
            shares[takers[(turn + step) % len(takers)]].add((topic, step % count))
        if len(takers) > 1:
            for index in range(count):
                if sum((topic, index) in shares[taker] for taker in takers) == 1:
                    second = (turn + index + 1) % len(takers)
                    shares[takers[second]].add((topic, index))
        turn += count % len(takers)
    return shares


class ShareGroup:
    """State machine of one share group's membership. `gone` is told of each member that fell silent."""

    type_name = "Share"
    protocol_type = "share"

    def __init__(
        self,
        group_id: str,
        *,
        topics: Topics,
        settings: Callable[[], ShareSettings],
        deadlines: Deadlines[tuple[str, ...]],
        write: Callable[[Sequence[StateRecord], int], None],
        gone: Callable[[str, str], None],
        now: int,
    ) -> None:
        self.id = group_id
        self.members: dict[str, ShareMember] = {}
        self.epoch = 0
        self.changed_at = now
        self.topics = topics
        self._target: dict[str, frozenset[Partition]] = {}
        self._counts: dict[bytes, int] = {}
        self._settings = settings
        self._deadlines = deadlines
        self._write = write
        self._gone = gone

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it."""
        return not self.members

    @property
    def state_name(self) -> str:
        """State as ListGroups spells it."""
        return "Stable" if self.members else "Empty"

    @property
    def settled(self) -> bool:
        """Nobody waits for anybody in a share group."""
        return True

    def subscribed(self) -> frozenset[str]:
        """Topics anybody wants."""
        return frozenset(name for m in self.members.values() for name in m.topics)

    def resume(self, now: int) -> None:
        """Replay is over: nobody is in it until they join again."""
        self.changed_at = now

    def heartbeat(self, call: ShareHeartbeat, now: int) -> ShareBeat:
        """One heartbeat; raises Refused."""
        settings = self._settings()
        before = self.members.get(call.member_id)
        if call.member_epoch == LEAVING:
            if before is None:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {call.member_id} is not a member of the group.")
            self.remove(call.member_id, now)
            return ShareBeat(member_id=call.member_id, epoch=LEAVING)
        if before is None:
            if call.member_epoch != JOINING:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {call.member_id} is not a member of the group.")
            if len(self.members) >= settings.max_size:
                raise Refused(ErrorCode.GROUP_MAX_SIZE_REACHED, "The group is full.")
        elif call.member_epoch not in (JOINING, before.epoch, before.previous_epoch):
            raise Refused(
                ErrorCode.FENCED_MEMBER_EPOCH, f"The epoch is {before.epoch}, not {call.member_epoch}: rejoin."
            )
        member = replace(
            before or ShareMember(id=call.member_id),
            rack_id=call.rack_id if call.rack_id is not None else before.rack_id if before else None,
            client_id=call.client_id,
            client_host=call.client_host,
            topics=call.topics if call.topics is not None else before.topics if before else frozenset(),
        )
        self._advance({**self.members, member.id: member}, before is None or before.topics != member.topics, now)
        target = self._target.get(member.id, frozenset())
        if member.epoch != self.epoch:
            member = replace(member, previous_epoch=member.epoch, epoch=self.epoch, assigned=target)
        self.members[member.id] = member
        self._deadlines.set((self.id, "session", member.id), now + settings.session_timeout_ms)
        told = before is None or call.member_epoch != member.epoch or before.assigned != member.assigned
        return ShareBeat(
            member_id=member.id,
            epoch=member.epoch,
            interval_ms=settings.heartbeat_interval_ms,
            assignment=member.assigned if told else None,
        )

    def _advance(self, members: Mapping[str, ShareMember], changed: bool, now: int) -> None:
        found = {n: t for m in members.values() for n in m.topics if (t := self.topics.topic(n)) is not None}
        counts = {topic.id: topic.partitions for topic in found.values()}
        if not changed and counts == self._counts:
            return
        self._write([share_record(self.id, self.epoch + 1)], now)
        self.epoch += 1
        self._counts = counts
        wants = {m.id: frozenset(found[n].id for n in m.topics if n in found) for m in members.values()}
        self._target = {m: frozenset(share) for m, share in spread(wants, counts).items()}

    def remove(self, member_id: str, now: int) -> None:
        """Take the member out."""
        rest = {i: m for i, m in self.members.items() if i != member_id}
        self._advance(rest, True, now)
        self.members = rest
        self._deadlines.clear((self.id, "session", member_id))
        if not rest:
            self.changed_at = now

    def expire(self, kind: str, member_id: str, now: int) -> None:
        """A member has been silent for too long. One that leaves still has its session to end, with its last words."""
        if kind == "session" and member_id in self.members:
            self.remove(member_id, now)
            self._gone(self.id, member_id)

    def cut_off(self, member_id: str, now: int) -> None:
        """The member's connection closed: unless its next heartbeat comes it is gone. Nobody else may have its
        partitions until then, so a killed worker must not keep them for a whole session."""
        key = (self.id, "session", member_id)
        at = self._deadlines.get(key)
        if at is not None:
            self._deadlines.set(key, min(at, now + self._settings().heartbeat_interval_ms + LATE_MS))

    def die(self) -> None:
        """The group is deleted or given up."""
        for member_id in self.members:
            self._deadlines.clear((self.id, "session", member_id))
