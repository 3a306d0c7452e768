"""What test modules leave running in the process of the tests: librdkafka's handles and child processes.

A handle that outlives its broker tries to connect for ever, a child process outlives the run. Each is noted with the
module in whose time it appeared; what still runs when everything was torn down is told by that name.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

TASKS = Path("/proc/self/task")
PATIENCE = 10.0


class Leftovers:
    """`note` after each module, `found` at the end."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def note(self, module: str) -> None:
        for each in running():
            self._seen.setdefault(each, module)

    def found(self) -> list[str]:
        """What runs and should not, once what is ending had time to."""
        deadline = time.monotonic() + PATIENCE
        while (left := set(running())) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.1)
        return sorted(f"{self._seen.get(each, 'a module before')} left {each} running" for each in left)


def running() -> Iterator[str]:
    """Each of this process's handles (by the thread that each has) and children; none where /proc isn't Linux's."""
    if not TASKS.exists():
        return
    for task in TASKS.iterdir():
        try:
            if (task / "comm").read_text() == "rdk:main\n":
                yield f"a Kafka client (thread {task.name})"
            children = (task / "children").read_text().split()
        except OSError:  # it ended meanwhile, or this kernel doesn't tell of children
            continue
        for child in children:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if command and "resource_tracker" not in command:  # a zombie has none; multiprocessing's own stays
                yield f"process {child} ({command[:120].strip()})"
