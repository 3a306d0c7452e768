"""Bytes that mean harm: read or refused, nothing else, and never at the price of the machine's memory."""

import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.unit.broker.wire import hostile

ROOT = Path(__file__).parents[4]
OBJECT = 240  # bytes of memory that the worst element (of four bytes) becomes
SLACK = 64 << 10


def flood(kind: str, count: int, seed: int) -> dict[str, Any]:
    """Run the flood in a process with 512 MiB of address space; what it counted."""
    command = [sys.executable, "-m", "tests.unit.broker.wire.hostile", kind, str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_harmless(outcome: dict[str, Any], count: int) -> None:
    assert outcome["wrong"] == {}
    assert outcome["read"] + outcome["refused"] + outcome["unsupported"] == count
    assert outcome["refused"] > count // 2  # or the mutations are too tame to mean anything
    assert outcome["read"] > 0
    assert outcome["grown"] < 16 << 20


@pytest.mark.parametrize(("kind", "count"), [("frames", 100_000), ("batches", 30_000)])
def test_mutated_bytes_are_read_or_refused_in_flat_memory(kind: str, count: int) -> None:
    assert_harmless(flood(kind, count, random.SystemRandom().randrange(1 << 32)), count)


@pytest.mark.torture
@pytest.mark.parametrize(("kind", "count"), [("frames", 10_000_000), ("batches", 1_000_000)])
def test_mutated_bytes_without_end_are_read_or_refused_in_flat_memory(kind: str, count: int) -> None:
    assert_harmless(flood(kind, count, random.SystemRandom().randrange(1 << 32)), count)


def test_no_frame_takes_more_memory_than_its_size_times_a_small_constant() -> None:
    source = hostile.frames(random.Random(20_261_121))
    attempts = [next(source) for _ in range(4_000)]
    for data, attempt in attempts:
        attempt(data)  # codecs are made on first use
    tracemalloc.start()
    try:
        for data, attempt in attempts:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            attempt(data)
            assert tracemalloc.get_traced_memory()[1] - before < len(data) * OBJECT / 4 + SLACK, data.hex()
    finally:
        tracemalloc.stop()
