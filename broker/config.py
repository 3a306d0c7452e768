"""The broker's settings: environment only, each with a default, one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listening address. `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    name: str
    protocol: str
    host: str
    port: int
    internal: bool = False

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the broker is told from outside."""

    data: Path
    listeners: tuple[Listener, ...]
    super_users: frozenset[str]
    auto_create_topics: bool = True
    default_partitions: int = 1
