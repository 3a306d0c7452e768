"""What operators are told about groups, and the calls of the offset APIs, as values."""

from __future__ import annotations

from dataclasses import dataclass

from broker.groups.offsets import Commit
from broker.groups.records import Committed
from broker.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One line of ListGroups; `type` is Classic, Consumer or Share."""

    group_id: str
    protocol_type: str
    state: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedMember:
    """One member of a described classic group."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A classic group as DescribeGroups shows it."""

    error: ErrorCode = ErrorCode.NONE
    error_message: str | None = None
    group_id: str
    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[DescribedMember, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetCommitCall:
    """OffsetCommit or TxnOffsetCommit; generation -1 with an empty member id commits from outside the group."""

    group_id: str
    generation_or_epoch: int = -1
    member_id: str = ""
    instance_id: str | None = None
    commits: tuple[Commit, ...] = ()
    epoch_aware: bool = True
    """Whether the client knows STALE_MEMBER_EPOCH (OffsetCommit 9 and up)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetFetchCall:
    """OffsetFetch of one group; `member_id` and `member_epoch` are checked where the client sends them."""

    group_id: str
    places: tuple[tuple[str, int], ...] | None = None
    member_id: str | None = None
    member_epoch: int = -1
    require_stable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedOffset:
    """A position, or `committed` None where there is none."""

    topic: str
    partition: int
    committed: Committed | None
    error: ErrorCode = ErrorCode.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedOffsets:
    """Answer to `OffsetFetchCall`."""

    group_id: str
    error: ErrorCode = ErrorCode.NONE
    offsets: tuple[FetchedOffset, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """Limits that hold for every group."""

    metadata_max_bytes: int = 4096
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_check_ms: int = 600_000
