"""Ports for the processes that tests start, and start again on the same port.

A port that was free a moment ago is not free when a process binds it seconds later: the system hands it to whoever asks
for any port, or connects somewhere. So these lie outside the range that it chooses from, each is locked for as long as
the process that took it lives, against tests that run beside it, and none is given twice.
"""

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

FIRST, LAST = 15_000, 32_000
_taken: set[int] = set()
_locks: list[IO[bytes]] = []


def free_port() -> int:
    """A port of 127.0.0.1 that is this process's from now on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    start = FIRST + os.getpid() * 61 % (LAST - FIRST)  # not all processes try the same ones first
    found: list[int] = []
    for port in itertools.chain(range(start, LAST), range(FIRST, start)):
        if len(found) == count:
            break
        if port not in _taken and _lock(port) and _unused(port):
            found.append(port)
    assert len(found) == count, f"no {count} ports are free between {FIRST} and {LAST}"
    return found


def _lock(port: int) -> bool:
    """Locks one byte of a file, which ends with the process."""
    if not _locks:
        path = Path(tempfile.gettempdir()) / f"sluice-test-ports-{os.getuid()}"
        _locks.append(path.open("ab"))
    try:
        fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _taken.add(port)
    return True


def _unused(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
