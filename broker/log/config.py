"""What a topic's configuration means to its log: Kafka's names, Kafka's defaults, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DAY: Final = 24 * 60 * 60 * 1000
FOREVER: Final = (1 << 63) - 1


class InvalidLogConfig(ValueError):
    """A topic configuration value that is not of its kind or out of range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Configuration of one partition's log. Times in ms, sizes in bytes; -1 means without limit, as in Kafka."""

    retention_ms: int = 7 * DAY
    retention_bytes: int = -1
    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * DAY
    segment_index_bytes: int = 10 << 20
    index_interval_bytes: int = 4096
    cleanup_policy: frozenset[str] = frozenset(("delete",))
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = FOREVER
    delete_retention_ms: int = DAY
    min_cleanable_dirty_ratio: float = 0.5
    message_timestamp_type: str = "CreateTime"
    message_timestamp_before_max_ms: int = FOREVER
    message_timestamp_after_max_ms: int = 60 * 60 * 1000
    max_message_bytes: int = 1_048_588
    compression_type: str = "producer"
    file_delete_delay_ms: int = 60_000

    @property
    def compact(self) -> bool:
        """Whether the newest record of each key is kept (`cleanup.policy` has `compact`)."""
        return "compact" in self.cleanup_policy

    @property
    def delete(self) -> bool:
        """Whether old segments go by time and size (`cleanup.policy` has `delete`)."""
        return "delete" in self.cleanup_policy

    @property
    def log_append_time(self) -> bool:
        """Whether the broker's clock stamps the records."""
        return self.message_timestamp_type == "LogAppendTime"

    @classmethod
    def parse(cls, configs: Mapping[str, str | None]) -> LogConfig:
        """From Kafka's topic configuration names (`retention.ms`, ...); names of other things are passed over.

        Raises InvalidLogConfig for a value that can't be.
        """
        values: dict[str, object] = {}
        for name, text in configs.items():
            field = name.replace(".", "_")
            if text is None or field not in _RULES:
                continue
            values[field] = _RULES[field](name, text)
        return cls(**values)  # type: ignore[arg-type]  # each rule gives its field's type


def _whole(low: int, high: int = FOREVER):  # type: ignore[no-untyped-def]  # a closure of (name, text) -> int
    def rule(name: str, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise InvalidLogConfig(f"{name} is not a whole number: {text!r}") from None
        if not low <= value <= high:
            raise InvalidLogConfig(f"{name} must be between {low} and {high}: {value}")
        return value

    return rule


def _ratio(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InvalidLogConfig(f"{name} is not a number: {text!r}") from None
    if not 0 <= value <= 1:
        raise InvalidLogConfig(f"{name} must be between 0 and 1: {value}")
    return value


def _policy(name: str, text: str) -> frozenset[str]:
    parts = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not parts <= {"compact", "delete"}:
        raise InvalidLogConfig(f"{name} takes compact, delete or both: {text!r}")
    return parts


def _choice(*allowed: str):  # type: ignore[no-untyped-def]  # a closure of (name, text) -> str
    def rule(name: str, text: str) -> str:
        if text not in allowed:
            raise InvalidLogConfig(f"{name} must be one of {', '.join(allowed)}: {text!r}")
        return text

    return rule


_INT32: Final = (1 << 31) - 1
_RULES: Final = {
    "retention_ms": _whole(-1),
    "retention_bytes": _whole(-1),
    "segment_bytes": _whole(14, _INT32),
    "segment_ms": _whole(1),
    "segment_index_bytes": _whole(4, _INT32),
    "index_interval_bytes": _whole(0, _INT32),
    "cleanup_policy": _policy,
    "min_compaction_lag_ms": _whole(0),
    "max_compaction_lag_ms": _whole(1),
    "delete_retention_ms": _whole(0),
    "min_cleanable_dirty_ratio": _ratio,
    "message_timestamp_type": _choice("CreateTime", "LogAppendTime"),
    "message_timestamp_before_max_ms": _whole(0),
    "message_timestamp_after_max_ms": _whole(0),
    "max_message_bytes": _whole(0, _INT32),
    "compression_type": _choice("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
    "file_delete_delay_ms": _whole(0),
}
