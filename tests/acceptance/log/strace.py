"""Faults injected into a running process's system calls, by strace."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

INSTALLED = shutil.which("strace") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="strace is not installed")


def _tracers(pid: int) -> set[int]:
    """Who traces the process's threads; 0 for nobody."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            found.add(int(status.read_text().partition("TracerPid:")[2].split()[0]))
    return found


@contextlib.contextmanager
def injected(pid: int, calls: str, fault: str) -> Iterator[None]:
    """While this lasts, these calls (`fdatasync`, `pwritev,pwrite64`) of the process do `fault` (`error=EIO`)."""
    what = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), *what], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while _tracers(pid) != {tracer.pid}:
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"not run: strace: {tracer.stderr.read().decode().strip()}")
            assert time.monotonic() < deadline, "strace did not take hold of the process"
            time.sleep(0.01)
        yield
    finally:
        tracer.terminate()
        tracer.wait(60)
