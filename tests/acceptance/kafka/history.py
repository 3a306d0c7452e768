"""What clients were told by a log and what was read back: and whether the two agree.

Like Jepsen's queue workload: every value is unique, every writer numbers its values and sends them in order to one
partition. An outcome is acknowledged (with its place), refused, or unknown. A checker never seen to fail proves
nothing: tests/acceptance/kafka/test_history.py breaks histories on purpose.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

Place = tuple[str, int, int]


@dataclass
class Transaction:
    """`outcome` is committed, aborted or unknown; `values` those whose sends were acknowledged within it."""

    values: list[str]
    outcome: str


@dataclass
class History:
    """Everything that clients saw. `read` maps a place to the value found there, committed and uncommitted readers
    apart; `contradictions` are places that told two values at different times."""

    acknowledged: dict[str, Place] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    transactions: list[Transaction] = field(default_factory=list)
    observed: dict[Place, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    committed_reads: list[tuple[Place, str]] = field(default_factory=list)
    offsets_acknowledged: dict[str, int] = field(default_factory=dict)
    offsets_attempted: dict[str, int] = field(default_factory=dict)
    offsets_found: dict[str, int] = field(default_factory=dict)

    def observe(self, place: Place, value: str) -> None:
        known = self.observed.setdefault(place, value)
        if known != value:
            self.contradictions.append(f"{place} held {known} and then {value}")

    def problems(self) -> list[str]:
        """Everything that a log must not do, by name."""
        return [
            *self.contradictions,
            *self._lost(),
            *self._doubled(),
            *self._reordered(),
            *self._isolation(),
            *self._offsets(),
        ]

    def _lost(self) -> Iterable[str]:
        for value, place in self.acknowledged.items():
            found = self.observed.get(place)
            if found is None:
                yield f"lost: {value} was acknowledged at {place} and is not there"
            elif found != value:
                yield f"lost: {value} was acknowledged at {place}, where {found} is"

    def _doubled(self) -> Iterable[str]:
        places: dict[str, Place] = {}
        for place, value in self.observed.items():
            if value in places:
                yield f"doubled: {value} is at {places[value]} and at {place}"
            places[value] = place
            if value in self.refused:
                yield f"invented: {value} was refused and is at {place}"

    def _reordered(self) -> Iterable[str]:
        newest: dict[tuple[str, str, int], int] = {}
        for (topic, partition, offset), value in sorted(self.observed.items()):
            writer, _, number = value.rpartition("-")
            key = (writer, topic, partition)
            if int(number) < newest.get(key, -1):
                yield f"reordered: {value} at {(topic, partition, offset)} comes after number {newest[key]}"
            newest[key] = max(newest.get(key, -1), int(number))

    def _isolation(self) -> Iterable[str]:
        committed: dict[str, int] = {}
        for _, value in self.committed_reads:
            committed[value] = committed.get(value, 0) + 1
        for transaction in self.transactions:
            seen = [value for value in transaction.values if value in committed]
            if transaction.outcome == "aborted" and seen:
                yield f"aborted and read: {seen}"
            if transaction.outcome == "committed" and len(seen) != len(transaction.values):
                yield f"committed and not read: {sorted(set(transaction.values) - set(seen))}"
            if transaction.outcome == "unknown" and seen and len(seen) != len(transaction.values):
                yield f"torn transaction: of {transaction.values} only {seen} are read"
        for value, times in committed.items():
            if times > 1:
                yield f"doubled for committed readers: {value}"

    def _offsets(self) -> Iterable[str]:
        for group, least in self.offsets_acknowledged.items():
            found = self.offsets_found.get(group, -1)
            if not least <= found <= self.offsets_attempted[group]:
                yield (
                    f"offset of {group}: {found} is not between {least} (acknowledged) and "
                    f"{self.offsets_attempted[group]} (attempted)"
                )
