"""Simulated devices report plausible, repeatable telemetry, and the reader's pace falls behind and catches up."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from console.simulation.reader import WAVE_SECONDS, pace
from console.simulation.telemetry import Machine


def test_the_same_seed_reports_the_same() -> None:
    first, second = (Machine(number=3, seed=9) for _ in range(2))
    assert [first.report(t) for t in range(5)] == [second.report(t) for t in range(5)]


def test_devices_have_names_of_their_own() -> None:
    assert len({Machine(number=n, seed=1).client_id for n in range(500)}) == 500


@given(st.integers(0, 10_000), st.lists(st.floats(0, 2e9), min_size=2, max_size=20))
def test_a_meter_never_counts_back_and_every_report_is_json(number: int, times: list[float]) -> None:
    machine = Machine(number=number, seed=1)
    readings = [json.loads(machine.report(now)) for now in sorted(times)]
    totals = [reading["energy_kwh"] for reading in readings]
    assert totals == sorted(totals)
    assert all(-50 < reading["temperature"] < 250 for reading in readings)


def test_a_wave_falls_behind_and_more_than_catches_up() -> None:
    wave = [pace(100, second) for second in range(int(WAVE_SECONDS))]
    assert min(wave) < 100 < max(wave)
    assert sum(wave) >= 100 * len(wave)
