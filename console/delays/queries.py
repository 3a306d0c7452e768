"""What the page of pending deliveries shows: asked of the delay service, under a deadline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from console import kafka

PER_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for: text in the target's name, a whole key, a whole id; and where the page begins."""

    target: str = ""
    key: str = ""
    id: str = ""
    after: tuple[int, int, int] | None = None

    @property
    def narrowed(self) -> bool:
        return bool(self.target or self.key or self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`counts` and `rows` are None where nothing is known; `missing` says what wasn't told and why."""

    counts: Any
    rows: Sequence[Any] | None
    more: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)

    def horizon(self, *names: str) -> int | None:
        """How many are due within these horizons; None while a partition is unknown."""
        if self.counts is None or self.counts.unknown:
            return None
        return sum(int(self.counts.horizons[name]) for name in names)


def search(wanted: Search) -> Found:
    """One page and the counts."""
    missing: dict[str, str] = {}
    counts = rows = None
    more = ""
    try:
        delays = kafka.delays()
        counts = delays.counts()
        page = delays.page(
            target=wanted.target,
            key=wanted.key.encode() if wanted.key else None,
            id=wanted.id,
            after=wanted.after,
            limit=PER_PAGE,
        )
        rows = page.rows
        if page.more and page.rows:
            more = "-".join(str(part) for part in page.rows[-1].place)
        for partition, why in {**counts.unknown, **page.unknown}.items():
            missing[_("Partition %(n)d") % {"n": partition}] = why
    except (kafka.ClientError, kafka.SettingsError) as error:
        missing[_("Delay service")] = str(error)
    return Found(counts=counts, rows=rows, more=more, missing=missing)


def place(text: str) -> tuple[int, int, int] | None:
    """Where a page begins, as its address has it; None for anything else."""
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])
