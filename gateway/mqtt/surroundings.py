"""What a session is given: the link to its peer, the server-wide settings, and the moment it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Link(Protocol):
    """The way to the peer. Writes are gathered and leave together once per turn of the loop."""

    writable: bool  # False while the peer doesn't take what was written

    def write(self, data: bytes) -> None:
        """Send, in order, soon."""

    def close(self, *, spoken: bool) -> None:
        """Send what was written, then close. Nothing arrives after this.

        `spoken`: the last write tells the peer why, so it shall have the time to read it (a socket that is closed
        with unread bytes in it takes back what was sent).
        """

    def pause_reading(self) -> None:
        """Ask the peer for nothing more; may be said twice."""

    def resume_reading(self) -> None: ...

    def wake_after(self, seconds: float) -> None:
        """Call the session's `rate_recovered` after so long."""


class Moment:
    """The time, set by the shell before it calls in and once a second; nobody below the shells reads a clock."""

    __slots__ = ("monotonic", "wall")

    def __init__(self, monotonic: float = 0.0, wall: float = 0.0) -> None:
        self.monotonic = monotonic
        self.wall = wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for every connection of a server."""

    connect_timeout: float = 5.0  # seconds until CONNECT must be complete
    open_timeout: float = 30.0  # seconds for the session of an authenticated client to be found
    stalled: float = 60.0  # seconds a peer may leave what we sent unread
    first_packet: int = 65_536  # largest CONNECT, bytes
    receive_maximum: int = 65_535  # upper bound of Limits.in_flight that MQTT 5 clients are told
    outbound_aliases: int = 16  # most topic aliases we use towards one client
    response_information: str = ""  # given to MQTT 5 clients that ask, "{client_id}" replaced
    server_reference: str = ""  # where MQTT 5 clients are sent when the server stops
    reason_strings: bool = True  # tell MQTT 5 clients why
