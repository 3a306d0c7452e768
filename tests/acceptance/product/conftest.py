"""One running product for this folder's tests that only look; tests that kill or stop start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running_product import Product, running_product


@pytest.fixture(scope="package")
def product() -> Iterator[Product]:
    with running_product(password=None) as started:
        yield started
