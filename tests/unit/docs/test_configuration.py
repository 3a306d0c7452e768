"""docs/configuration.md lists every environment variable that the code reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VARIABLE = re.compile(r"[\"'`](SLUICE_[A-Z0-9_]*[A-Z0-9])[\"'`=]|^\s+(SLUICE_[A-Z_]+[A-Z])\b", re.MULTILINE)


def read_by_the_code() -> set[str]:
    found = set()
    for package in ("broker", "gateway", "console"):
        for path in (ROOT / package).rglob("*.py"):
            found |= {first or second for first, second in VARIABLE.findall(path.read_text())}
    return found


def listed() -> set[str]:
    rows = [line for line in (ROOT / "docs/configuration.md").read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(SLUICE_[A-Z0-9_]+)`", row.split(" | ")[0])}


def test_every_variable_is_listed() -> None:
    assert read_by_the_code() - listed() == set()


def test_no_variable_is_listed_that_nobody_reads() -> None:
    assert listed() - read_by_the_code() == set()
