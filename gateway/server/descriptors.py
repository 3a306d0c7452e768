"""The process's file descriptor limit: each connection needs one."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Use all the descriptors the machine allows this process; gives how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
