"""What a classic group consists of: its states, its members, and the snapshot that is durable."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from broker.groups.classic_calls import Joined, Synced
from broker.groups.ports import Reply


class State(enum.Enum):
    """States, named as ListGroups and DescribeGroups spell them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(slots=True, kw_only=True)
class Member:
    """One member, with the reply it waits for."""

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""
    skip_assignment: bool = False
    join: Reply[Joined] | None = field(default=None, repr=False)
    sync: Reply[Synced] | None = field(default=None, repr=False)

    def metadata(self, protocol: str | None) -> bytes:
        """What the member said about itself under that protocol."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is durable of a classic group: its last generation, complete with assignments."""

    group_id: str
    generation: int
    protocol_type: str | None
    protocol: str | None
    leader: str | None
    changed_at: int
    members: tuple[Member, ...]
