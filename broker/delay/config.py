"""The delay service's settings: environment only, each with a default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.client.delaying import DELAY_PARTITIONS

VARIABLES: tuple[tuple[str, str, str], ...] = (
    ("SLUICE_DATA", "./data", "folder of the internal credential and, below delay/, of the local copies"),
    ("SLUICE_DELAY_PARTITIONS", "", f"partitions that sluice.delay has at least; empty: made with {DELAY_PARTITIONS}"),
    ("SLUICE_DELAY_HTTP", "", "host:port that answers GET /healthz and GET /metrics; empty: none"),
    ("SLUICE_KAFKA", "", "bootstrap addresses of a Kafka cluster; empty: the embedded broker"),
    ("SLUICE_KAFKA_SECURITY", "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL (with SLUICE_KAFKA_SASL_…)"),
    ("SLUICE_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class BadSettings(Exception):
    """The environment asks for something that can't be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What one service runs with. `http` is (host, port) or None; `partitions` 0: as they are."""

    data: Path
    partitions: int = 0
    http: tuple[str, int] | None = None
    log_level: str = "INFO"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """Where the local copies lie."""
        return self.data / "delay"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Raises BadSettings."""
        env = os.environ if environ is None else environ
        partitions = env.get("SLUICE_DELAY_PARTITIONS", "").strip()
        if partitions and not (partitions.isdigit() and 1 <= int(partitions) <= 1000):
            raise BadSettings(f"SLUICE_DELAY_PARTITIONS is {partitions!r}; it must be a number from 1 to 1000")
        level = env.get("SLUICE_LOG_LEVEL", "").strip() or "INFO"
        if level not in LEVELS:
            raise BadSettings(f"SLUICE_LOG_LEVEL is {level!r}; it must be one of {', '.join(LEVELS)}")
        return cls(
            data=Path(env.get("SLUICE_DATA", "") or "./data"),
            partitions=int(partitions or 0),
            http=_address(env.get("SLUICE_DELAY_HTTP", "").strip()),
            log_level=level,
            environ=dict(env),
        )


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadSettings(f"SLUICE_DELAY_HTTP is {text!r}; it must be host:port")
    return host.strip("[]"), int(port)


def describe() -> str:
    """The `--help` text."""
    lines = ["usage: python -m broker.delay", "", "The delay service. Configured by environment variables:", ""]
    for name, default, meaning in VARIABLES:
        lines += [f"  {name} ({default or 'empty'})", f"      {meaning}"]
    return "\n".join(lines)
