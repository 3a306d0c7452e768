"""Several broker calls for one page, side by side, under one deadline: what is late is left out, and said."""

import concurrent.futures
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from console import kafka

PAGE_SECONDS = 1.5
_pool = concurrent.futures.ThreadPoolExecutor(max_workers=16, thread_name_prefix="page")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What came in time by name, and why the others are missing."""

    found: Mapping[str, Any]
    missing: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        """The answer, or None."""
        return self.found.get(name)


def gather(calls: Mapping[str, Callable[[], Any]], seconds: float = PAGE_SECONDS) -> Answers:
    """Runs the calls at once. A call that fails for the cluster's reasons, or is late, is in `missing`."""
    futures = {name: _pool.submit(call) for name, call in calls.items()}
    concurrent.futures.wait(futures.values(), timeout=seconds)
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, future in futures.items():
        if not future.done():
            future.cancel()
            missing[name] = f"no answer within {seconds:g} s"
            continue
        try:
            found[name] = future.result()
        except (kafka.ClientError, kafka.SettingsError) as error:
            missing[name] = str(error)
    return Answers(found=found, missing=missing)
