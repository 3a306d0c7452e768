"""A timer finer than the event loop's: uvloop's and asyncio's count in milliseconds, and a log on a good disk answers
in less. Linux has one that is a file (timerfd_create(2)); elsewhere there is none, and the loop's has to do: `timer`
gives the best there is.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are these


class _Times(ctypes.Structure):
    """struct itimerspec: interval, then value."""

    _fields_ = (("again", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


class NoFineTimer(OSError):
    """This system has no timerfd."""


class FineTimer:
    """Calls back on the loop, once for each `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Raises NoFineTimer."""
        try:
            library = ctypes.CDLL(None, use_errno=True)
            self._set = library.timerfd_settime
            self._file = library.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        except (OSError, AttributeError) as error:
            raise NoFineTimer(str(error)) from error
        if self._file < 0:
            raise NoFineTimer(ctypes.get_errno(), "timerfd_create failed")
        times = _Times()
        self._first, self._times = times.first, ctypes.byref(times)
        self._loop = loop
        self._call = call
        try:
            loop.add_reader(self._file, self._fired)
        except NotImplementedError as error:
            os.close(self._file)
            raise NoFineTimer("the event loop watches no files") from error

    def start(self, seconds: float) -> None:
        """Call back in so long, less than a second; what was asked for before is forgotten."""
        self._first[1] = max(1, int(seconds * 1e9))
        self._set(self._file, 0, self._times, None)

    def _fired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was started again meanwhile
            return
        self._call()

    def close(self) -> None:
        """On the loop's thread."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1


class CoarseTimer:
    """The same with the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Call back in so long; what was asked for before is forgotten."""
        self.close()
        self._handle = self._loop.call_later(seconds, self._call)

    def close(self) -> None:
        """Forget what was asked for."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def timer(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> FineTimer | CoarseTimer:
    """Calls back on the loop, once for each `start`; `close` it on the loop's thread."""
    try:
        return FineTimer(loop, call)
    except NoFineTimer:
        return CoarseTimer(loop, call)
