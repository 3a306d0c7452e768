"""Copies of the broker's store as a whole, for who owns the data folder: taken while the broker runs, and put back.

Neutral ground between the broker and the command that backs the product up: the log's own backup on the real disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.log import backup as stored
from broker.log.checkpoint import NAME as CHECKPOINT
from broker.log.failures import LogError
from broker.log.files import RealFiles

FOLDER: Final = "broker"
"""The store's place in the data folder, and in a backup of it."""
_HOLD_PAUSE: Final = 0.01

Failed = LogError
"""What goes wrong with a store: its words say what to do."""


def has_store(data: Path) -> bool:
    """Whether there is a store that can be copied; a new one can from its first checkpoint on, half a minute old."""
    return (data / FOLDER / CHECKPOINT).exists()


def take(data: Path, target: Path, now: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Copy the store of a data folder, running or not, into the new folder `target`. Raises Failed, OSError."""
    stored.backup(RealFiles(), str(data / FOLDER), str(target / FOLDER), now, wait=lambda: sleep(_HOLD_PAUSE))


def check(source: Path) -> None:
    """Raise Failed unless the copy is whole and every byte of it is as it was taken."""
    stored.check(RealFiles(), str(source / FOLDER))


def put_back(source: Path, data: Path) -> None:
    """Make the store of a new data folder from a copy; the broker replays it. Raises Failed, OSError."""
    stored.restore(RealFiles(), str(source / FOLDER), str(data / FOLDER))
