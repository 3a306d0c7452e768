"""At what pace a session reads: reasons to hold, and the device's rate.

Reading is held, for any of the reasons `HANDSHAKE` ... `AHEAD`, by not asking the link for more; what had already
been read waits in `_rest` and is taken first when the last reason is gone. `SUBSCRIBING` alone lets the link read on:
only who reads hears that the peer is gone, and that the work for its filters is for nobody.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from gateway.mqtt.surroundings import Link, Moment
from gateway.ports import ConnectRequest, Identity, PublishItem

HANDSHAKE: Final = 1  # the engine is asked who this is
IN_FLIGHT: Final = 2  # too many unacknowledged messages
RATE: Final = 4  # over the device's rate
CONGESTED: Final = 8  # commits fall behind
WRITING: Final = 16  # the peer doesn't take what we send
SUBSCRIBING: Final = 32  # a SUBSCRIBE or UNSUBSCRIBE takes effect before what is behind it
AHEAD: Final = 128  # and so much was read of that already that it can wait with its sender
CROWDED: Final = 64  # it sends more packets than have a use: others' turn


class Paced(ABC):
    """Base of `acknowledging.Acknowledging`; see the module."""

    __slots__ = (
        "_bytes_left",
        "_held",
        "_link",
        "_messages_left",
        "_moment",
        "_need",
        "_rate_checked",
        "_rest",
        "closed",
        "connected",
        "heard",
        "identity",
        "request",
    )

    request: ConnectRequest
    identity: Identity

    def __init__(self, link: Link, moment: Moment) -> None:
        self._link = link
        self._moment = moment
        self._rest: bytearray | None = None  # read, and not taken yet
        self._need = 0  # how many bytes the frame at its start has
        self._held = 0
        self._rate_checked = moment.monotonic
        self._messages_left = 0.0
        self._bytes_left = 0.0
        self.connected = False
        self.closed = False
        self.heard = moment.monotonic

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Take every complete frame of these bytes."""

    def hold(self, reason: int) -> None:
        """Take nothing more for now."""
        if reason != SUBSCRIBING and not self._held & ~SUBSCRIBING and not self.closed:
            self._link.pause_reading()
        self._held |= reason

    def let_go(self, reason: int) -> None:
        """End one reason to hold; the last one resumes reading, after what had been read already."""
        if not self._held & reason:
            return
        paused = self._held & ~SUBSCRIBING
        self._held &= ~(reason | AHEAD)
        if not self._held and not self.closed and self._rest is not None and len(self._rest) >= self._need:
            data = bytes(self._rest)
            self._rest = None
            self._take(data)
        if not self._held and not self.closed:
            self.heard = self._moment.monotonic
        if paused and not self._held & ~SUBSCRIBING and not self.closed:
            self._link.resume_reading()

    @property
    def held(self) -> int:
        return self._held

    def _meter(self, items: Sequence[PublishItem]) -> None:
        """Two token buckets of one second's depth each; a deficit holds reading until it is made up."""
        limits, now = self.identity.limits, self._moment.monotonic
        passed = now - self._rate_checked
        self._rate_checked = now
        wait = 0.0
        if limits.messages_rate:
            self._messages_left = min(limits.messages_rate, self._messages_left + passed * limits.messages_rate) - len(
                items
            )
            wait = -self._messages_left / limits.messages_rate
        if limits.bytes_rate:
            size = sum(len(item[1]) for item in items)
            self._bytes_left = min(limits.bytes_rate, self._bytes_left + passed * limits.bytes_rate) - size
            wait = max(wait, -self._bytes_left / limits.bytes_rate)
        if wait > 0 and not self._held & RATE:
            self.hold(RATE)
            self._link.wake_after(wait)

    def rate_recovered(self) -> None:
        """The link's answer to `wake_after`."""
        if not self.closed:
            self.let_go(RATE)
