"""What the figures were measured on, and what processes cost."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> str:
    """One line: processor, cores, memory, kernel, Python."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{os.cpu_count()} × {model}, {kilobytes / 2**20:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def touch_memory(size: int = 2 << 30) -> None:
    """Fill and drop so much of the page cache: on a virtual machine memory that was never used, or not lately, has to
    be fetched from the host page by page, at a tenth of the speed, and whoever is measured first would pay for it."""
    chunk = os.urandom(8 << 20)
    with tempfile.TemporaryFile() as file:
        for _ in range(size // len(chunk)):
            file.write(chunk)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far: CPU seconds and resident bytes."""

    cpu: float
    rss: int


def usage(pid: int) -> Usage:
    """The usage of a process and of all its descendants."""
    cpu, rss, pending = 0.0, 0, [pid]
    while pending:
        current = pending.pop()
        try:
            fields = Path(f"/proc/{current}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            rss += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            for task in Path(f"/proc/{current}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Usage(cpu, rss)
