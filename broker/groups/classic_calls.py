"""The calls of the classic group protocol and their answers, as values."""

from __future__ import annotations

from dataclasses import dataclass

from broker.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """JoinGroup: enter the group, or come back for the next generation."""

    group_id: str
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    require_member_id: bool = True
    skip_assignment: bool = False
    """Whether the client understands `skip_assignment` (JoinGroup 9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedMember:
    """One member as its leader sees it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Answer to `Join`; `members` is filled for the leader alone."""

    error: ErrorCode = ErrorCode.NONE
    generation_id: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    member_id: str = ""
    members: tuple[JoinedMember, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """SyncGroup: the leader hands in the assignment, everybody else asks for theirs."""

    group_id: str
    generation_id: int
    member_id: str
    instance_id: str | None
    protocol_type: str | None
    protocol_name: str | None
    assignments: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """Answer to `Sync`."""

    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaver:
    """One member that leaves: by id, or by instance id with an empty member id."""

    member_id: str
    instance_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicSettings:
    """Limits of the classic protocol, in milliseconds."""

    initial_rebalance_delay_ms: int = 100
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    new_member_join_timeout_ms: int = 300_000
    max_size: int = 2**31 - 1
