"""The leash: ends the children, and theirs, of a supervisor that was killed without a chance to do it.

A small process of its own reads a pipe whose writing end only the supervisor holds. The supervisor writes `+<group>`
when a child starts and `-<group>` when it is gone. At the end of the pipe, however the supervisor ended, every process
group still named is asked to stop and, after a grace period, killed. Process groups rather than processes, so that a
worker's own children go with it. (PR_SET_PDEATHSIG reaches direct children only.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import BinaryIO

GRACE_SECONDS = 5.0


def alive(group: int) -> bool:
    """Whether a process group has a process left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(groups: set[int], grace: float = GRACE_SECONDS) -> None:
    """SIGTERM to all, SIGKILL to what is left after `grace` seconds."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def hold(pipe: BinaryIO) -> None:
    """Follow the supervisor's notes to their end, then end what is still running."""
    groups: set[int] = set()
    for line in pipe:
        group = int(line[1:])
        if line[:1] == b"+":
            groups.add(group)
        else:
            groups.discard(group)
    end(groups)


if __name__ == "__main__":
    # in a session of its own: the terminal's Ctrl-C and the supervisor's end are not its end
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hold(sys.stdin.buffer)
