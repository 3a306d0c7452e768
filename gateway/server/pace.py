"""How fast one address may connect: a CONNECT costs records in the log, so a flood of them would be everybody's.

A bucket per address, two seconds deep. What is over the rate isn't refused at once: it waits until its time has come,
so that thousands of devices behind one address connect at the rate, and a flood is a trickle. Only whoever says
something counts. Addresses are forgotten once their bucket is full again; of IPv6 the first 64 bits count, which is
what one customer has.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address

DEPTH = 2.0  # seconds of the rate that may come at once
REMEMBERED = 20_000  # addresses


class Pace:
    """`wait` says how long a new connection has to."""

    def __init__(self, rate: float) -> None:
        """`rate`: CONNECTs a second; 0: unlimited."""
        self._rate = rate
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when the next one wouldn't wait even without a burst

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._free_at)

    def ahead(self, address: str, now: float) -> float:
        """Seconds that the next one from this address would have to wait. Counts nothing."""
        if not self._rate:
            return 0.0
        return max(0.0, self._free_at.get(network_of(address), now) - now - DEPTH)

    def wait(self, address: str, now: float) -> float:
        """Seconds that a connection from this address, "host:port", has to wait. Counts it."""
        if not self._rate:
            return 0.0
        network = network_of(address)
        free_at = max(self._free_at.pop(network, now), now)
        self._free_at[network] = free_at + 1 / self._rate
        while self._free_at and (len(self._free_at) > REMEMBERED or next(iter(self._free_at.values())) < now):
            self._free_at.popitem(last=False)
        return max(0.0, free_at - now - DEPTH)


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits."""
    host = address.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    try:
        return str(int(IPv6Address(host.partition("%")[0])) >> 64)
    except ValueError:
        return host
