"""A broker on free ports with a data folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.broker.wire_client import Running, settings, started


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with started(settings(tmp_path)) as one:
        yield one
