"""kill -9 in mid-work, again and again: nothing acknowledged is lost, doubled, reordered or half committed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.gateway.stack import Stack
from tests.acceptance.kafka.torment import Torment


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """In a folder of its own, which stays, and is named, when something was wrong: it is the evidence."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-torment-"))
    made = Stack(folder)
    failed = request.session.testsfailed
    yield made
    made.stop()
    if request.session.testsfailed > failed:
        print(f"the data is kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def torment(stack: Stack, kills: int, *, seed: int, pause: float) -> str:
    run = Torment(stack, seed, pause=pause)
    looked = 0
    while run.kills < kills:
        run.disturb()
        if run.kills >= looked + 100:
            looked = run.kills
            run.look()
            print(f"so far {dict(run.done)}", flush=True)
    history = run.finish()
    problems = run.problems()
    print(run.totals(), problems[:20], flush=True)
    assert problems == []
    assert len(history.acknowledged) > kills * 10
    assert {"committed", "aborted"} <= {transaction.outcome for transaction in history.transactions}
    assert all(each.acknowledged for each in run.devices.publishers)
    return f"{run.totals()} · lost 0 · duplicated 0 · reordered 0"


def test_a_few_kills_harm_nothing(stack: Stack) -> None:
    torment(stack, 5, seed=1, pause=0.0)


@pytest.mark.torture
def test_five_hundred_kills_harm_nothing(stack: Stack, record_property: Callable[[str, object], None]) -> None:
    kills = int(os.environ.get("SLUICE_TORTURE_KILLS", "500"))
    seed = int(os.environ.get("SLUICE_TORTURE_SEED", "2"))
    record_property("totals", torment(stack, kills, seed=seed, pause=0.03))
