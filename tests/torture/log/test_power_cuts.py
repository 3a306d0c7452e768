"""Acknowledged is durable: what lost power at any moment holds all it promised; and the checker would see if not."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.torture.log.mutants import FOCUS, MUTANTS
from tests.torture.log.scenario import Scenario, Totals

SEEDS_FOR_A_MUTANT = 40


@pytest.mark.parametrize("seed", range(8))
def test_nothing_acknowledged_is_lost_or_changed_by_power_cuts(seed: int) -> None:
    totals = Scenario(seed).run(cuts=10)
    assert totals.records > 0
    assert len(totals.distinct) > 10


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_broken_log_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        MUTANTS[name](patch)
        for seed in range(SEEDS_FOR_A_MUTANT):
            try:
                Scenario(seed, states_per_cut=4, **FOCUS.get(name, {})).run(cuts=8)
            except Exception:  # a Violation, or the store tripping over what it finds
                return
    pytest.fail(f"{name}: {SEEDS_FOR_A_MUTANT} lives went by and nothing was noticed")


@pytest.mark.torture
def test_a_thousand_power_cuts_and_a_hundred_thousand_crash_states(
    record_property: Callable[[str, object], None],
) -> None:
    """Replay one life: SLUICE_TORTURE_SEED=<seed> pytest -m torture tests/torture/log -k thousand."""
    first = int(os.environ.get("SLUICE_TORTURE_SEED", "0"))
    lives = 1 if "SLUICE_TORTURE_SEED" in os.environ else 100_000
    totals = Totals()
    for seed in range(first, first + lives):
        try:
            Scenario(seed, totals, states_per_cut=12, batch=20).run(cuts=12)
        except BaseException as error:
            record_property("totals", f"{totals} · life {seed}: {error!r}; SLUICE_TORTURE_SEED={seed} replays it")
            raise
        if seed % 100 == 99:
            print(f"life {seed}: {totals}", flush=True)
        if len(totals.distinct) >= 100_000 and totals.cuts >= 1000 and totals.acknowledged >= 1_000_000:
            break
    record_property("totals", f"{totals} · lost 0 · wrong 0")
