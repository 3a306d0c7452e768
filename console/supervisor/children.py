"""What runs: the product's processes, in the order in which they are stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One process: its name in the logs, its command, and whether it needs the migrated database to start."""

    name: str
    command: tuple[str, ...]
    needs_database: bool


def children(*, embedded: bool, http: str) -> list[Child]:
    """The product's processes. The broker is last, since all the others write to it until they end."""
    python = (sys.executable, "-u")
    host, _, port = http.rpartition(":")
    web = (
        *python, "-m", "uvicorn", "console.asgi:application", "--host", host.strip("[]"), "--port", port,
        "--ws", "websockets-sansio", "--lifespan", "off", "--timeout-graceful-shutdown", "3",
        "--no-access-log", "--log-level", "warning",        "--no-proxy-headers", "--no-server-header",
    )  # fmt: skip
    worker = (
        *python, "-m", "celery", "-q", "-A", "console", "worker", "-B", "--pool", "threads", "--concurrency", "4",
        "--loglevel", "warning", "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    found = [
        Child(name="web", command=web, needs_database=True),
        Child(name="worker", command=worker, needs_database=True),
        Child(name="monitor", command=(*python, "manage.py", "monitor"), needs_database=True),
        Child(name="bridge", command=(*python, "-m", "gateway.bridge"), needs_database=False),
        Child(name="delay", command=(*python, "-m", "broker.delay"), needs_database=False),
        Child(name="gateway", command=(*python, "-m", "gateway"), needs_database=False),
    ]
    if embedded:
        found.append(Child(name="broker", command=(*python, "-m", "broker"), needs_database=False))
    return found
