"""Dead letters: how ours are written, and how everybody's are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.client.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What a dead letter tells about itself. Unknown is None. `convention` is one of "sluice", "kafka"
    (KIP-1191), "spring", "connect", "rocketmq", "pulsar", "rabbitmq", "artemis" or "" (none recognised);
    `timestamp` is epoch ms of the original; `reason` a short slug or class name to count by; `detail` for
    people; `extra` whatever else the convention says, decoded to text."""

    convention: str
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    group: str | None = None
    message_id: str | None = None
    redrives: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)


def describe(record: Record) -> DeadLetter:
    """What this record says about why it is a dead letter and where it came from, by any known convention."""
    raise NotImplementedError
