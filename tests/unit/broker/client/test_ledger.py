"""The ledger's rules, on a real file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.client.ledger import Claim, ClaimState, LeaseLost, SqliteLedger, UnknownVersion


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(tmp_path / "ledger")
    yield made
    made.close()


def test_of_two_claims_one_is_held_off(ledger: SqliteLedger) -> None:
    first = ledger.claim("a", "one", now=0, lease=10)
    second = ledger.claim("a", "two", now=5, lease=10)
    assert (first.state, second.state, second.until) == (ClaimState.CLAIMED, ClaimState.HELD, 10)


def test_done_is_final(ledger: SqliteLedger) -> None:
    ledger.done(ledger.claim("a", "one", now=0, lease=10), now=1)
    assert ledger.claim("a", "two", now=1000, lease=10).state is ClaimState.DONE


def test_a_crashed_holder_is_taken_over_when_its_lease_has_run_out(ledger: SqliteLedger) -> None:
    first = ledger.claim("a", "one", now=0, lease=10)
    second = ledger.claim("a", "two", now=10, lease=10)
    assert second.state is ClaimState.CLAIMED
    assert second.token == first.token + 1
    with pytest.raises(LeaseLost):
        ledger.done(first, now=11)
    with pytest.raises(LeaseLost):
        ledger.renew(first, now=11, lease=10)
    ledger.done(second, now=12)
    with pytest.raises(LeaseLost):
        ledger.done(second, now=13)


def test_a_renewed_lease_holds_others_off_for_longer(ledger: SqliteLedger) -> None:
    claim = ledger.renew(ledger.claim("a", "one", now=0, lease=10), now=9, lease=10)
    assert ledger.claim("a", "two", now=15, lease=10).state is ClaimState.HELD
    ledger.done(claim, now=16)


def test_a_released_key_is_free_at_once_and_its_old_claim_is_dead(ledger: SqliteLedger) -> None:
    claim = ledger.claim("a", "one", now=0, lease=10)
    ledger.release(claim)
    assert ledger.claim("a", "two", now=1, lease=10).state is ClaimState.CLAIMED
    with pytest.raises(LeaseLost):
        ledger.done(claim, now=2)


def test_what_is_done_is_remembered_by_the_next_process_and_can_be_forgotten(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger")
    ledger.done(ledger.claim("a", "one", now=0, lease=10), now=1)
    ledger.close()
    ledger = SqliteLedger(tmp_path / "ledger")
    assert ledger.claim("a", "two", now=2, lease=10).state is ClaimState.DONE
    assert ledger.forget(before=1) == 0
    assert ledger.forget(before=2) == 1
    assert ledger.claim("a", "two", now=2, lease=10).state is ClaimState.CLAIMED
    ledger.close()


def test_a_file_of_a_later_release_is_refused(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger")
    ledger._database.execute("PRAGMA user_version=99")
    ledger.close()
    with pytest.raises(UnknownVersion):
        SqliteLedger(tmp_path / "ledger")


class LedgerAgainstItsModel(RuleBasedStateMachine):
    """Any order of claims, renewals, ends and passing time: one live claim per key, done once."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = SqliteLedger(":memory:")
        self.now = 0.0
        self.claims: list[Claim] = []
        self.newest: dict[str, Claim] = {}
        self.done: set[str] = set()
        self.completions = 0

    @rule(key=st.sampled_from("ab"), lease=st.integers(1, 10))
    def claim(self, key: str, lease: int) -> None:
        claim = self.ledger.claim(key, "x", now=self.now, lease=lease)
        held = self.newest.get(key)
        if key in self.done:
            assert claim.state is ClaimState.DONE
        elif held is not None and held.until > self.now:
            assert claim.state is ClaimState.HELD
        else:
            assert claim.state is ClaimState.CLAIMED
            assert held is None or claim.token > held.token
            self.newest[key] = claim
            self.claims.append(claim)

    @rule(data=st.data(), end=st.sampled_from(["done", "renew", "release"]))
    def end(self, data: st.DataObject, end: str) -> None:
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims))
        newest = self.newest[claim.key]
        mine = newest.token == claim.token and claim.key not in self.done
        if end == "release":
            self.ledger.release(claim)
            if mine:
                self.newest[claim.key] = Claim(ClaimState.CLAIMED, claim.key, claim.token, 0)
            return
        try:
            if end == "done":
                self.ledger.done(claim, now=self.now)
                self.done.add(claim.key)
            else:
                self.newest[claim.key] = self.ledger.renew(claim, now=self.now, lease=5)
        except LeaseLost:
            assert not mine
        else:
            assert mine

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def done_stays_done(self) -> None:
        for key in self.done:
            assert self.ledger.claim(key, "y", now=self.now, lease=1).state is ClaimState.DONE

    def teardown(self) -> None:
        self.ledger.close()


LedgerAgainstItsModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLedgerAgainstItsModel = LedgerAgainstItsModel.TestCase
