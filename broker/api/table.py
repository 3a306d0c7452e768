"""Every handler of the broker, by API key."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from broker import api
from broker.api.registry import Api, table
from broker.wire.codec import struct


def handlers() -> dict[int, Api]:
    """The `Api`s of all modules in `broker.api`."""
    modules = [importlib.import_module(f"{api.__name__}.{found.name}") for found in pkgutil.iter_modules(api.__path__)]
    return table(modules)


def advertised(apis: Iterable[Api]) -> list[Any]:
    """The ApiVersions entries of the handlers, by key."""
    entry = struct("ApiVersionsResponse.ApiVersion")
    return [
        entry(
            api_key=one.key,
            min_version=one.min if one.advertised_min is None else one.advertised_min,
            max_version=one.max,
        )
        for one in sorted(apis, key=lambda one: one.key)
    ]
