"""One broker and one gateway, as processes of their own, for all the foreign clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.acceptance.gateway.stack import Stack
from tests.ports import free_port


@dataclass(frozen=True)
class Product:
    host: str
    port: int
    web_port: int


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("mqtt-clients")
    web = free_port()
    stack = Stack(folder)
    stack.environ["SLUICE_MQTT_LISTENERS"] += f",ws://127.0.0.1:{web}/mqtt"
    try:
        stack.start()
        yield Product("127.0.0.1", stack.port, web)
    finally:
        stack.stop()


@pytest.fixture
def prefix() -> str:
    """A topic prefix nobody else uses."""
    return f"t{uuid.uuid4().hex[:12]}"
