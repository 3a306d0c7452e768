from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.gateway.people import Operator, operating
from tests.acceptance.gateway.stack import Stack


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    """A broker and a gateway of this test's own."""
    stack = Stack(tmp_path)
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def operator(running: Stack) -> Iterator[Operator]:
    with operating(running) as made:
        yield made
