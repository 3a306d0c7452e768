"""How this process keeps memory: large buffers come and go all the time, objects of the start stay to the end.

glibc gives every buffer of a megabyte back to the system at once and fetches the next one zeroed, page by page: a
quarter of the CPU of a busy broker. Told to keep a little, it uses the same warm pages again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

_TRIM_THRESHOLD: Final = -1  # M_… of malloc.h
_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 16 << 20  # free bytes at the heap's end that are kept
_LARGE: Final = 32 << 20  # buffers beyond this go back at once; the largest that glibc takes


def keep_buffers() -> None:
    """Have freed buffers used again. Does nothing where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGE)


def settle() -> None:
    """After the start: what is there now is there to stay, so full collections pass over it (no pause of 10 ms)."""
    gc.collect()
    gc.freeze()
