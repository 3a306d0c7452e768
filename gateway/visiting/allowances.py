"""What each principal may still send by HTTP: the device's rates, and how much it has under way, over all connections.

A rate is a token bucket of one second's depth, as it is for an MQTT connection; what is sent beyond is refused with the
time after which there is room again. One large message may overdraw the bytes. The table is bounded: whoever was quiet
for longest is forgotten first, and then has a full bucket.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.ports import Limits, Refused

REMEMBERED = 10_000
RATE = 0x96
QUOTA = 0x97


class Allowance:
    """One principal's."""

    __slots__ = ("at", "bytes_left", "messages_left", "under_way")

    def __init__(self, limits: Limits, now: float) -> None:
        self.at = now
        self.messages_left = limits.messages_rate
        self.bytes_left = limits.bytes_rate
        self.under_way = 0


class Allowances:
    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._of: OrderedDict[str, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def take(self, name: str, limits: Limits, size: int, now: float) -> Allowance:
        """Let one message of `size` bytes in; its `under_way` is the caller's to take back. Raises `Refused`."""
        found = self._of.pop(name, None)
        if found is None:
            found = Allowance(limits, now)
        self._of[name] = found
        while len(self._of) > self._most:
            self._of.popitem(last=False)
        if limits.in_flight and found.under_way >= limits.in_flight:
            raise Refused(QUOTA, f"{found.under_way} messages are under way", after=1.0)
        passed, found.at = max(0.0, now - found.at), now
        wait = 0.0
        if limits.messages_rate:
            found.messages_left = min(limits.messages_rate, found.messages_left + passed * limits.messages_rate)
            # a rate below one a second still lets one through
            wait = (min(1.0, limits.messages_rate) - found.messages_left) / limits.messages_rate
        if limits.bytes_rate:
            found.bytes_left = min(limits.bytes_rate, found.bytes_left + passed * limits.bytes_rate)
            wait = max(wait, -found.bytes_left / limits.bytes_rate)
        if wait > 1e-9:
            raise Refused(RATE, "more than the device's rate", after=wait)
        found.messages_left -= 1
        found.bytes_left -= size
        found.under_way += 1
        return found
