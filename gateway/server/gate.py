"""The gate before listeners of one kind: who comes in now, who waits for their turn, and who is shut out for a while.

Below the sockets' shell: moments are given, and `later` calls back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.server.pace import BRIEF, RUBBISH, Pace, network_of, shown
from gateway.server.shutting import Listening, Shutters

SOON: Final = 2.0  # seconds: a connection that ends within them was brief
DEAR: Final = 12.0  # so many times what was done at once for an address is its trouble: a twelfth of the time at most
SHUT: Final = 1.0  # seconds that an address with too many waiting is shut out, as its clients' systems try again


class Gate:
    """See the module. Addresses are "host:port", moments seconds."""

    def __init__(
        self,
        rate: float,
        patience: float,
        *,
        later: Callable[[float, Callable[[], None]], Any],
        turned_away: Callable[[str], None],
        shutters: Shutters | None = None,
    ) -> None:
        """`rate` as in `Pace`; with more than `patience` seconds to wait a connection is turned away, which
        `turned_away` hears of. `later(seconds, call)` calls once."""
        self.pace = Pace(rate)
        self._patience = patience
        self._later = later
        self._turned_away = turned_away
        self._shutters = Shutters() if shutters is None else shutters

    def watch(self, sockets: Iterable[Listening]) -> None:
        """These are the listening sockets behind it."""
        self._shutters.watch(sockets)

    def unwatch(self) -> None:
        """The listening sockets are closed."""
        self._shutters.forget()

    def closed(self, address: str, now: float) -> bool:
        """Whether the turn of a new connection would come too late: known before anything is made for it."""
        if self.pace.ahead(address, now) <= self._patience:
            return False
        self._turned_away(address)
        network = network_of(address)
        if network not in self._shutters.networks and self._shutters.shut(network):
            self._later(SHUT, lambda: self._shutters.open((network,)))
        return True

    def wait(self, address: str, now: float) -> float | None:
        """The peer says its first word: seconds that it has to wait for its turn; None: it is turned away."""
        wait = self.pace.wait(address, now)
        if wait <= self._patience:
            return wait
        self._turned_away(address)
        return None

    def spoiled(self, address: str, now: float) -> None:
        """It broke the protocol, or never said anything."""
        self.pace.spoil(address, now, RUBBISH)

    def slowed(self, now: float, most: int) -> list[tuple[str, float, bool]]:
        """Whom it slows down: network, seconds that its next connection would wait, and whether the system drops its
        attempts now. The slowest first."""
        return [(shown(each), wait, each in self._shutters.networks) for each, wait in self.pace.slowed(now)[:most]]

    def left(self, address: str, now: float) -> None:
        """A connection is over soon after its turn."""
        self.pace.spoil(address, now, BRIEF)

    def worked(self, address: str, now: float, seconds: float) -> None:
        """So much was done at once for what it asked."""
        self.pace.spoil(address, now, DEAR * seconds)
