"""The composition root: what it does once the gateway is ready."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import __main__ as main
from gateway.config import Settings


@pytest.fixture
def collector() -> Iterator[None]:
    """Leaves this process's garbage collector as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_is_there_at_the_start_is_never_looked_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def started(*_: object, ready: Callable[[], None], **__: object) -> None:
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        ready()
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))

    monkeypatch.setattr(main, "run_until_stopped", started)
    assert asyncio.run(main.run(Settings(data=tmp_path, listeners=(), name="g"))) == 0
    (before, _), (after, threshold) = seen
    assert before < after
    assert threshold == 20_000
