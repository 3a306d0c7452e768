"""Who holds which client id, among all the gateways of a cluster.

Theory. `__sluice_presence` has one partition, so all gateways read the same claims in the same order and come to the
same answer without asking each other: the newest claim that counts holds the client id. A claim's offset is its epoch,
and what a gateway writes about a session names the epoch it holds it under. Whoever reads that another gateway's claim
is newer lets go, whatever it was doing: a gateway that slept for a minute reads, when it wakes, that it was replaced.

A claim doesn't count
- when the client id is another principal's, connected or kept, at another gateway;
- when it is an adopter's (`adopts`) and a newer claim than the one it wants to replace was made meanwhile.
The record of a claim that doesn't count stands in the log in place of the one that does, as long as nobody writes
again; so does that of a gateway which hadn't heard yet. The holder hears of both as `Overwritten`, and writes again.

Since every gateway reads the claims of all, each knows how many sessions of a principal are kept anywhere: those whose
claims it has read, and its own claims on their way count already.

Pure: fed with records in the order of their offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.contract import Presence


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The newest claim to a client id. `durable`: there is a session that outlives the connection."""

    gateway: str
    epoch: int
    principal: str
    online: bool
    durable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Won:
    """A claim of this gateway counts. `previous` held the client id until then."""

    client_id: str
    token: str
    epoch: int
    previous: Holder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A claim of this gateway doesn't count."""

    client_id: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Another gateway's claim replaced this one's (`mine`). `fresh`: what was kept is to be forgotten;
    `adopted`: this gateway was taken for dead."""

    client_id: str
    mine: Holder
    by: Holder
    fresh: bool
    adopted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overwritten:
    """The record of what this gateway holds was replaced by one that doesn't count."""

    client_id: str
    mine: Holder


Heard = Won | Denied | Taken | Overwritten


class Claims:
    """`claiming` before a claim is written, `hear` for every record read."""

    def __init__(self, gateway: str) -> None:
        self.holders: dict[str, Holder] = {}
        self.latest: dict[str, str] = {}  # the gateway of each client's newest record, until `started`
        self._counts: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}  # connections of a principal at other gateways
        self._kept: dict[str, int] = {}  # sessions of a principal that outlive their connections, at any gateway
        self._new: dict[str, str] = {}  # claims on their way to one of these that is new: token → principal
        self._started = False
        self._gateway = gateway
        self._unheard: dict[str, set[str]] = {}

    def started(self) -> None:
        """What an earlier run left is dealt with."""
        self._started = True
        self.latest = {}

    def gateways(self) -> list[str]:
        """Those that hold anything."""
        return [name for name, count in self._counts.items() if count > 0]

    def claiming(self, client_id: str, token: str, keeps: str | None = None) -> None:
        """A claim with this token is about to be written. `keeps`: for a session of this principal that outlives its
        connection."""
        if keeps is not None and not self.keeps(client_id, keeps):
            self._new[token] = keeps
            self._count(keeps, 1)
        self._unheard.setdefault(client_id, set()).add(token)

    def failed(self, token: str) -> None:
        """Whether the claim is in the log is not known."""
        principal = self._new.pop(token, None)
        if principal is not None:
            self._count(principal, -1)

    def given_up(self, client_id: str, token: str) -> None:
        """The claim was certainly not stored, or nobody cares any more."""
        self.failed(token)
        tokens = self._unheard.get(client_id)
        if tokens is not None:
            tokens.discard(token)
            if not tokens:
                del self._unheard[client_id]

    def unheard(self, client_id: str) -> bool:
        """Whether a claim of this gateway is on its way: it will be newer than all that was read so far."""
        return client_id in self._unheard

    def elsewhere(self, client_id: str) -> Holder | None:
        """Who else holds the client id, as far as was read."""
        found = self.holders.get(client_id)
        return None if found is None or found.gateway == self._gateway else found

    def connected_elsewhere(self, principal: str) -> int:
        """How many clients of a principal are connected at other gateways, as far as was read."""
        return self._elsewhere.get(principal, 0)

    def kept(self, principal: str) -> int:
        """How many sessions of a principal outlive their connections, whether these last or are over."""
        return self._kept.get(principal, 0)

    def keeps(self, client_id: str, principal: str) -> bool:
        """Whether one of them is this client's."""
        known = self.holders.get(client_id)
        if known is not None and known.durable and known.principal == principal:
            return True
        return any(self._new.get(token) == principal for token in self._unheard.get(client_id, ()))

    def hear(self, client_id: str, record: Presence | None, offset: int) -> Heard | None:
        """Take the record at this offset; what it means for this gateway."""
        known = self.holders.get(client_id)
        if record is None:
            self._drop(client_id)
            return None
        if record.token and not record.epoch:
            return self._claimed(client_id, known, record, offset)
        # an update; or a record of a release that knew no claims, which stands for one
        epoch = record.epoch if record.token else offset
        if known is not None and epoch < known.epoch:
            return self._overwritten(client_id, known)
        self._keep(client_id, record, epoch)
        return None

    def _claimed(self, client_id: str, known: Holder | None, record: Presence, offset: int) -> Heard | None:
        mine = record.token in self._unheard.get(client_id, ())
        if mine:
            self.given_up(client_id, record.token)
        if not _counts(record, known):
            if mine:
                return Denied(client_id=client_id, token=record.token)
            return self._overwritten(client_id, known) if known is not None else None
        holder = self._keep(client_id, record, offset)
        if mine:
            return Won(client_id=client_id, token=record.token, epoch=offset, previous=known)
        if record.gateway != self._gateway and known is not None and known.gateway == self._gateway:
            return Taken(
                client_id=client_id,
                mine=known,
                by=holder,
                fresh=record.fresh,
                adopted=record.adopts is not None,
            )
        return None

    def _overwritten(self, client_id: str, known: Holder) -> Overwritten | None:
        return Overwritten(client_id=client_id, mine=known) if known.gateway == self._gateway else None

    def _keep(self, client_id: str, record: Presence, epoch: int) -> Holder:
        holder = Holder(
            gateway=record.gateway,
            epoch=epoch,
            principal=record.principal,
            online=record.online,
            durable=not record.clean,
        )
        if not self._started:
            self.latest[client_id] = record.gateway
        self._drop(client_id)
        if holder.online or holder.durable:
            self.holders[client_id] = holder
            self._counts[holder.gateway] = self._counts.get(holder.gateway, 0) + 1
            self._tally(holder, 1)
        return holder

    def _drop(self, client_id: str) -> None:
        known = self.holders.pop(client_id, None)
        if known is not None:
            self._counts[known.gateway] -= 1
            self._tally(known, -1)

    def _count(self, principal: str, more: int) -> None:
        count = self._kept[principal] = self._kept.get(principal, 0) + more
        if not count:
            del self._kept[principal]

    def _tally(self, holder: Holder, more: int) -> None:
        if holder.durable:
            self._count(holder.principal, more)
        if holder.online and holder.principal and holder.gateway != self._gateway:
            count = self._elsewhere[holder.principal] = self._elsewhere.get(holder.principal, 0) + more
            if not count:
                del self._elsewhere[holder.principal]


def _counts(record: Presence, known: Holder | None) -> bool:
    if record.adopts is not None:
        return known is not None and known.epoch == record.adopts
    return known is None or known.gateway == record.gateway or known.principal == record.principal
