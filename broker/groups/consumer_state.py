"""What a consumer group (KIP-848) consists of, the call its members make, and the records that keep it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.groups.assignors import Partition
from broker.groups.ports import StateRecord
from broker.groups.records import CONSUMER_GROUP, CONSUMER_MEMBER, own_key, own_value, pack, read_value, unpack
from broker.wire.errors import ErrorCode

JOINING = 0
LEAVING = -1
LEAVING_FOR_NOW = -2
"""Member epochs with a meaning of their own."""


class MemberState(enum.Enum):
    """Where a member stands on its way to its target."""

    STABLE = "stable"
    UNREVOKED = "unrevoked"
    """It must give up partitions first."""
    UNRELEASED = "unreleased"
    """It waits for partitions others have not given up yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicFace:
    """What a member that speaks the classic protocol keeps of it while the group is a consumer group."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerMember:
    """One member; changed by making a new one."""

    id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = 300_000
    topics: frozenset[str] = frozenset()
    regex: str | None = None
    regex_topics: frozenset[str] = frozenset()
    assignor: str | None = None
    epoch: int = 0
    previous_epoch: int = 0
    state: MemberState = MemberState.STABLE
    assigned: frozenset[Partition] = frozenset()
    revoking: frozenset[Partition] = frozenset()
    classic: ClassicFace | None = None

    @property
    def subscribed(self) -> frozenset[str]:
        """Topic names it wants, by name and by pattern."""
        return self.topics | self.regex_topics

    @property
    def holds(self) -> frozenset[Partition]:
        """Partitions nobody else may have now."""
        return self.assigned | self.revoking


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """The group's epoch, and what everybody should own in it."""

    epoch: int = 0
    target: Mapping[str, frozenset[Partition]] = field(default_factory=dict)
    topics: Mapping[bytes, int] = field(default_factory=dict)
    """Partition counts of the subscribed topics the target was made for."""
    assignor: str = "uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHeartbeat:
    """ConsumerGroupHeartbeat; None means: as before."""

    group_id: str
    member_id: str
    member_epoch: int
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    regex: str | None = None
    assignor: str | None = None
    owned: frozenset[Partition] | None = None
    client_id: str = ""
    client_host: str = ""
    may_see: Callable[[str], bool] = field(default=lambda name: True)
    """Which topics a pattern may find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerBeat:
    """Answer to `ConsumerHeartbeat`; `assignment` None means: as before."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    member_id: str | None = None
    epoch: int = 0
    interval_ms: int = 0
    assignment: frozenset[Partition] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """Defaults of consumer groups, in milliseconds; group configs override the first two."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    waiting_interval_ms: int = 500
    """Heartbeat interval of a member that waits for somebody else's partitions."""
    max_size: int = 2**31 - 1


class Refused(Exception):
    """The call is answered with this error."""

    def __init__(self, error: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


def by_topic(partitions: Iterable[Partition]) -> dict[bytes, list[int]]:
    """Partition indexes of each topic, in order."""
    topics: dict[bytes, list[int]] = {}
    for topic, index in sorted(partitions):
        topics.setdefault(topic, []).append(index)
    return topics


def _packed(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    return {topic.hex(): indexes for topic, indexes in by_topic(partitions).items()}


def _unpacked(packed: Mapping[str, list[int]]) -> frozenset[Partition]:
    return frozenset((bytes.fromhex(topic), index) for topic, indexes in packed.items() for index in indexes)


def epochs_record(group_id: str, epochs: Epochs | None) -> StateRecord:
    """The group's own record, or its tombstone."""
    key = own_key(CONSUMER_GROUP, group_id)
    if epochs is None:
        return key, None
    return key, own_value(
        {
            "epoch": epochs.epoch,
            "assignor": epochs.assignor,
            "target": {member: _packed(partitions) for member, partitions in epochs.target.items()},
            "topics": {topic.hex(): count for topic, count in epochs.topics.items()},
        }
    )


def read_epochs(value: bytes) -> Epochs:
    """What `epochs_record` wrote."""
    fields = read_value(value)
    return Epochs(
        epoch=fields["epoch"],
        assignor=fields["assignor"],
        target={member: _unpacked(packed) for member, packed in fields["target"].items()},
        topics={bytes.fromhex(topic): count for topic, count in fields["topics"].items()},
    )


def member_record(group_id: str, member_id: str, member: ConsumerMember | None) -> StateRecord:
    """One member's record, or its tombstone."""
    key = own_key(CONSUMER_MEMBER, group_id, member_id)
    if member is None:
        return key, None
    fields: dict[str, Any] = {
        "instance": member.instance_id,
        "rack": member.rack_id,
        "client": member.client_id,
        "host": member.client_host,
        "rebalance": member.rebalance_timeout_ms,
        "topics": sorted(member.topics),
        "regex": member.regex,
        "found": sorted(member.regex_topics),
        "assignor": member.assignor,
        "epoch": member.epoch,
        "previous": member.previous_epoch,
        "state": member.state.value,
        "assigned": _packed(member.assigned),
        "revoking": _packed(member.revoking),
    }
    if member.classic is not None:
        fields["classic"] = {
            "session": member.classic.session_timeout_ms,
            "protocols": [[name, pack(metadata)] for name, metadata in member.classic.protocols],
        }
    return key, own_value(fields)


def read_member(member_id: str, value: bytes) -> ConsumerMember:
    """What `member_record` wrote."""
    fields = read_value(value)
    classic = fields.get("classic")
    return ConsumerMember(
        id=member_id,
        instance_id=fields["instance"],
        rack_id=fields["rack"],
        client_id=fields["client"],
        client_host=fields["host"],
        rebalance_timeout_ms=fields["rebalance"],
        topics=frozenset(fields["topics"]),
        regex=fields["regex"],
        regex_topics=frozenset(fields["found"]),
        assignor=fields["assignor"],
        epoch=fields["epoch"],
        previous_epoch=fields["previous"],
        state=MemberState(fields["state"]),
        assigned=_unpacked(fields["assigned"]),
        revoking=_unpacked(fields["revoking"]),
        classic=None
        if classic is None
        else ClassicFace(
            session_timeout_ms=classic["session"],
            protocols=tuple((name, unpack(metadata)) for name, metadata in classic["protocols"]),
        ),
    )
