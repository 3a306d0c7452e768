"""How fast one address may connect, and how an address that makes trouble is slowed down.

Theory. An address has two buckets that drain with time. One takes a share for each connection that says something;
what is over the rate isn't refused at once: it waits until its time has come, so that thousands of devices behind one
address connect at the rate, and a flood is a trickle. The other takes a share for each connection that was *trouble*:
one that ended soon after it began (`BRIEF`, and more if it was dear), or that broke the protocol (`RUBBISH`). Once that
one is over its depth, and until both are empty again, the address is slow: each connection takes as large a share as
the trouble it makes, and nothing may come at once, nor before the trouble is back at its depth. So a fleet that stays
connected comes back as fast as the gateway can take it, even with a few broken devices in it, and whoever connects for
nothing is let in no faster than others can bear.

Addresses are forgotten once their buckets are empty; of IPv6 the first 64 bits count, which is what one customer has.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address
from typing import Final

DEPTH: Final = 2.0  # seconds of the rate that may come at once
BRIEF: Final = 1 / 200  # seconds of trouble: a connection that ended soon
RUBBISH: Final = 1 / 100  # one that said what no device says, or nothing
TROUBLE: Final = 1.0  # seconds of trouble that an address may have at once
REMEMBERED: Final = 20_000  # addresses
LISTED: Final = 500  # of these, slow ones that `slowed` knows of


class _Address:
    """When its buckets are empty; the share that each connection takes while it is slow, else 0."""

    __slots__ = ("free_at", "share", "worst")

    def __init__(self, now: float) -> None:
        self.free_at = now
        self.worst = now
        self.share = 0.0


class Pace:
    """`wait` says how long a new connection has to. Addresses are "host:port", moments and times seconds."""

    def __init__(self, rate: float) -> None:
        """`rate`: connections a second; 0: unlimited, whatever they do."""
        self._share = 1 / rate if rate else 0.0
        self._known: OrderedDict[str, _Address] = OrderedDict()
        self._slow: dict[str, _Address] = {}  # those that were told to be, to be looked through

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._known)

    def ahead(self, address: str, now: float) -> float:
        """How long the next one from this address would have to wait. Counts nothing."""
        known = self._known.get(network_of(address)) if self._known else None
        return 0.0 if known is None else _wait(known, now)

    def wait(self, address: str, now: float) -> float:
        """How long a connection from this address has to wait. Counts it."""
        if not self._share:
            return 0.0
        known = self._find(address, now)
        wait = _wait(known, now)
        known.free_at = max(known.free_at, now + wait) + (known.share or self._share)
        return wait

    def spoil(self, address: str, now: float, cost: float) -> None:
        """A connection from this address was trouble: `BRIEF` or `RUBBISH`."""
        if not self._share:
            return
        known = self._find(address, now)
        cost = max(cost, self._share)
        known.worst = min(max(known.worst, now) + cost, now + 2 * TROUBLE)
        if known.share or known.worst - now > TROUBLE:
            known.share = max(known.share, cost)
            if len(self._slow) < LISTED:
                self._slow[network_of(address)] = known

    def slowed(self, now: float) -> list[tuple[str, float]]:
        """The networks that are slow for the trouble they made, at most `LISTED`, and how long the next connection of
        each would have to wait; the longest first."""
        self._slow = {network: known for network, known in self._slow.items() if _slow(known, now)}
        waits = [(network, _wait(known, now)) for network, known in self._slow.items()]
        return sorted(waits, key=lambda each: -each[1])

    def _find(self, address: str, now: float) -> _Address:
        network = network_of(address)
        known = self._known.pop(network, None) or _Address(now)
        self._known[network] = known
        while len(self._known) > 1 and (len(self._known) > REMEMBERED or _free(next(iter(self._known.values())), now)):
            self._known.popitem(last=False)
        if not _slow(known, now):
            known.share = 0.0
        return known


def _free(known: _Address, now: float) -> bool:
    return known.free_at <= now and known.worst <= now


def _slow(known: _Address, now: float) -> bool:
    """It was trouble lately, or some wait that came while it was."""
    return known.share > 0.0 and not _free(known, now)


def _wait(known: _Address, now: float) -> float:
    if not _slow(known, now):
        return max(0.0, known.free_at - now - DEPTH)
    return max(0.0, known.free_at - now, known.worst - TROUBLE - now)


def shown(network: str) -> str:
    """A network as people write it."""
    return f"{IPv6Address(int(network, 16) << 64)}/64" if len(network) == 16 and "." not in network else network


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, in hexadecimal."""
    host = address.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    try:
        found = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return f"{int(found) >> 64:016x}" if found.ipv4_mapped is None else str(found.ipv4_mapped)
