"""Server-side assignors (KIP-848): who of a group should own which partition.

Both are pure and deterministic: the same members, owners and topics give the same target.

* `uniform`: everybody gets the same number of partitions, give or take one where subscriptions allow it, and keeps
  as many of its own as that allows.
* `range`: of each topic every subscriber gets a contiguous share, in the order of instance id, then member id, so that
  topics of equal size end up co-partitioned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Partition = tuple[bytes, int]
"""Topic id and index."""

Target = dict[str, frozenset[Partition]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A member as an assignor sees it."""

    id: str
    instance_id: str | None
    topics: frozenset[bytes]
    owned: frozenset[Partition]


def uniform(candidates: Mapping[str, Candidate], topics: Mapping[bytes, int]) -> Target:
    """Equal shares that stay where they are as far as possible. `topics` gives partition counts."""
    order = sorted(candidates)
    all_partitions = [(topic, i) for topic in sorted(topics) for i in range(topics[topic])]
    shares: dict[str, set[Partition]] = {member: set() for member in order}
    taken: set[Partition] = set()
    for member in order:
        candidate = candidates[member]
        for partition in sorted(candidate.owned):
            topic, index = partition
            if topic in candidate.topics and index < topics.get(topic, 0) and partition not in taken:
                shares[member].add(partition)
                taken.add(partition)
    free = [p for p in all_partitions if p not in taken]
    if order and all(c.topics == candidates[order[0]].topics for c in candidates.values()):
        _level(order, shares, free, candidates[order[0]].topics)
    else:
        _balance(order, shares, free, candidates)
    return {member: frozenset(share) for member, share in shares.items()}


def _level(
    order: list[str], shares: dict[str, set[Partition]], free: list[Partition], wanted: frozenset[bytes]
) -> None:
    """All members want the same topics: quotas decide."""
    free = [p for p in free if p[0] in wanted]
    total = len(free) + sum(len(share) for share in shares.values())
    quota, extra = divmod(total, len(order))
    # Those who own most keep the odd ones.
    by_size = sorted(order, key=lambda m: -len(shares[m]))
    limits = {member: quota + (1 if rank < extra else 0) for rank, member in enumerate(by_size)}
    for member in order:
        surplus = sorted(shares[member])[limits[member] :]
        shares[member].difference_update(surplus)
        free += surplus
    free.sort()
    for member in order:
        missing = limits[member] - len(shares[member])
        if missing > 0:
            shares[member].update(free[:missing])
            free = free[missing:]


def _balance(
    order: list[str],
    shares: dict[str, set[Partition]],
    free: list[Partition],
    candidates: Mapping[str, Candidate],
) -> None:
    """Subscriptions differ: hand out to the least loaded, then move until no move makes it more even."""
    subscribers: dict[bytes, list[str]] = {}
    for member in order:
        for topic in candidates[member].topics:
            subscribers.setdefault(topic, []).append(member)
    for partition in sorted(free, key=lambda p: (len(subscribers.get(p[0], ())), p)):
        takers = subscribers.get(partition[0])
        if takers:
            shares[min(takers, key=lambda m: len(shares[m]))].add(partition)
    moved = True
    while moved:
        moved = False
        for giver in sorted(order, key=lambda m: -len(shares[m])):
            for partition in sorted(shares[giver]):
                taker = min(subscribers[partition[0]], key=lambda m: len(shares[m]))
                if len(shares[taker]) + 1 < len(shares[giver]):
                    shares[giver].discard(partition)
                    shares[taker].add(partition)
                    moved = True


def range_(candidates: Mapping[str, Candidate], topics: Mapping[bytes, int]) -> Target:
    """Contiguous shares of each topic."""
    order = sorted(candidates, key=lambda m: (candidates[m].instance_id or "", m))
    shares: dict[str, set[Partition]] = {member: set() for member in order}
    for topic in sorted(topics):
        takers = [m for m in order if topic in candidates[m].topics]
        if not takers:
            continue
        quota, extra = divmod(topics[topic], len(takers))
        start = 0
        for rank, member in enumerate(takers):
            size = quota + (1 if rank < extra else 0)
            shares[member].update((topic, i) for i in range(start, start + size))
            start += size
    return {member: frozenset(share) for member, share in shares.items()}


ASSIGNORS: dict[str, Callable[[Mapping[str, Candidate], Mapping[bytes, int]], Target]] = {
    "uniform": uniform,
    "range": range_,
}
"""By the name members ask for; the first is the default."""
