"""Random lives of transactional ids over a journal that a crash cuts anywhere: all or nothing, everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.groups.ports import StateRecord
from broker.transactions.coordinator import Init, Producer, ProducerIdNeeded, TransactionCoordinator
from broker.wire.errors import ErrorCode

PLACES = [("t", 0), ("t", 1), ("u", 0)]
GROUPS = ["g", "h"]


class Journal:
    """One order of everything appended, as the store keeps it: state, data, markers, offsets."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, object]] = []

    def append(self, records: Sequence[StateRecord], now: int) -> None:
        self.entries += [("state", record) for record in records]

    def mark(self, place: tuple[str, int], producer_id: int, epoch: int, *, commit: bool, now: int) -> None:
        self.entries.append(("marker", (place, producer_id, commit)))

    def settle(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        self.entries.append(("marker", ((group_id, -1), producer_id, commit)))

    def write(self, place: tuple[str, int], producer_id: int, serial: int) -> None:
        self.entries.append(("data", (place, producer_id, serial)))

    def outcome(self) -> dict[int, dict[tuple[str, int], bool | None]]:
        """For each transaction (by its serial): what became of it in each place; None while open."""
        open_in: dict[tuple[tuple[str, int], int], set[int]] = {}
        fate: dict[int, dict[tuple[str, int], bool | None]] = {}
        for kind, entry in self.entries:
            if kind == "data":
                place, producer_id, serial = entry  # type: ignore[misc]  # told apart by kind
                fate.setdefault(serial, {})[place] = None
                open_in.setdefault((place, producer_id), set()).add(serial)
            elif kind == "marker":
                place, producer_id, commit = entry  # type: ignore[misc]  # told apart by kind
                for serial in open_in.pop((place, producer_id), set()):
                    fate[serial][place] = commit
        return fate


class TransactionLife(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.journal = Journal()
        self.now = 1_000_000
        self.ids = 100
        self.serial = 0
        self.producers: dict[str, list[Producer]] = {"x": [], "y": []}
        self.serials: dict[tuple[str, Producer], int] = {}
        self.told: dict[int, bool] = {}
        self.boot()

    def boot(self) -> None:
        self.coordinator = TransactionCoordinator(log=self.journal, outcomes=self.journal)
        for kind, entry in list(self.journal.entries):
            if kind == "state":
                self.coordinator.replay(*entry)  # type: ignore[misc]  # told apart by kind
        self.coordinator.resume(self.now)

    @rule(name=st.sampled_from("xy"), named=st.booleans())
    def init(self, name: str, named: bool) -> None:
        known = self.producers[name]
        call = Init(transactional_id=name, timeout_ms=10_000)
        if named and known:
            last = known[-1]
            call = Init(transactional_id=name, timeout_ms=10_000, producer_id=last.producer_id, epoch=last.epoch)
        try:
            producer = self.coordinator.init(call, None, self.now)
        except ProducerIdNeeded:
            self.ids += 1
            producer = self.coordinator.init(call, self.ids, self.now)
        if producer.error is ErrorCode.NONE:
            known.append(producer)

    @rule(
        name=st.sampled_from("xy"),
        back=st.integers(1, 2),
        place=st.sampled_from(PLACES),
        implicit=st.booleans(),
    )
    def produce(self, name: str, back: int, place: tuple[str, int], implicit: bool) -> None:
        if len(self.producers[name]) < back:
            return
        producer = self.producers[name][-back]
        who = (name, producer.producer_id, producer.epoch)
        if not implicit:
            self.coordinator.add(*who, partitions=[place], now=self.now)
        if self.coordinator.check_produce(*who, [place], implicit=implicit, now=self.now) is ErrorCode.NONE:
            assert back == 1 or self.producers[name][-1] == producer, "a fenced producer wrote"
            self.journal.write(place, producer.producer_id, self.current(name, producer))

    @rule(name=st.sampled_from("xy"), group=st.sampled_from(GROUPS))
    def send_offsets(self, name: str, group: str) -> None:
        if self.producers[name]:
            producer = self.producers[name][-1]
            error = self.coordinator.add(name, producer.producer_id, producer.epoch, groups=[group], now=self.now)
            if error is ErrorCode.NONE:
                self.journal.write((group, -1), producer.producer_id, self.current(name, producer))

    def current(self, name: str, producer: Producer) -> int:
        if (name, producer) not in self.serials:
            self.serial += 1
            self.serials[name, producer] = self.serial
        return self.serials[name, producer]

    @rule(name=st.sampled_from("xy"), commit=st.booleans(), bump=st.booleans())
    def end(self, name: str, commit: bool, bump: bool) -> None:
        if not self.producers[name]:
            return
        producer = self.producers[name][-1]
        self.ids += 1
        ended = self.coordinator.end(
            name, producer.producer_id, producer.epoch, commit=commit, bump=bump, fresh_id=self.ids, now=self.now
        )
        if ended.error is ErrorCode.NONE:
            serial = self.serials.pop((name, producer), None)
            if serial is not None:
                self.told[serial] = commit
            if bump:
                self.producers[name].append(Producer(producer_id=ended.producer_id, epoch=ended.epoch))

    @rule(ms=st.sampled_from([100, 4_000, 11_000]))
    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.coordinator.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.coordinator.tick(self.now)
        self.now = end

    @rule(lost=st.integers(0, 6))
    def crash_and_lose_what_was_not_synced(self, lost: int) -> None:
        """Up to `lost` newest entries are gone. Nobody was told of them: forget what rested on them."""
        if lost:
            del self.journal.entries[-lost:]
            self.told = {}
            self.producers = {"x": [], "y": []}
            self.serials = {}
        self.boot()

    @invariant()
    def a_transaction_ends_the_same_way_everywhere(self) -> None:
        for serial, places in self.journal.outcome().items():
            fates = {fate for fate in places.values() if fate is not None}
            assert len(fates) <= 1, f"transaction {serial} is both committed and aborted"
            if fates:
                assert None not in places.values(), f"transaction {serial} has ended in some places only"

    @invariant()
    def what_was_told_is_so(self) -> None:
        fates = self.journal.outcome()
        for serial, commit in self.told.items():
            assert set(fates[serial].values()) == {commit}

    def teardown(self) -> None:
        if hasattr(self, "coordinator"):
            self.pass_time(20_000)
            for places in self.journal.outcome().values():
                assert None not in places.values(), "a transaction hangs"


TransactionLife.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTransactionLife = TransactionLife.TestCase
