"""Ways to break the log, each a small change of the real code. The crash simulator must see every one of them.

Some are classics (acknowledge before the fsync), some are mistakes that were really made while it was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.disk import Disk, DiskFile

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}
COMPACTION: dict[str, Any] = {"topics": ("compact",), "focus": {"_maintain": 12, "_end_transaction": 10, "_delete": 0}}
BACKUPS: dict[str, Any] = {"focus": {"_backup": 40, "_maintain": 10}}
# What to do more of where a mistake shows only in a rare corner.
FOCUS: dict[str, dict[str, Any]] = {
    "believe_a_torn_frame": {"batch": 60, "focus": {"_append": 60, "_group": 40, "_backup": 0, "_flush": 0}},
    "compact_away_the_newest": COMPACTION,
    "compact_what_is_not_stable": COMPACTION,
    "let_aborted_records_supersede": {
        "topics": ("compact",),
        "keys": 90,
        "focus": {"_end_transaction": 70, "_maintain": 15, "_delete": 0, "_delete_records": 0, "_create": 1},
    },
    "swap_in_an_unsynced_segment": COMPACTION,
    "retain_less_than_was_asked": {"topics": ("plain",), "focus": {"_maintain": 15}},
    "drop_files_a_running_backup_needs": BACKUPS,
    "copy_the_journal_of_a_backup_first": BACKUPS,
    "believe_the_checkpoint_about_a_segment_that_went": {"topics": ("plain",), "focus": {"_delete_records": 25}},
    "finish_a_backup_before_it_is_durable": BACKUPS,
    "restore_the_checkpoint_first": BACKUPS,
    "forget_partitions_whose_deletion_is_not_durable": {"focus": {"_delete": 20, "_create": 20, "_group": 15}},
}


def mutant(break_it: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS[break_it.__name__] = break_it
    return break_it


def without(patch: Patch, target: type, name: str, what: str, where: str) -> None:
    """Inside `target.name`, the disk's `what` on paths that contain `where` does nothing."""
    inside: list[bool] = []
    original = getattr(target, name)

    def entered(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside.append(True)
        try:
            return original(self, *args, **kwargs)
        finally:
            inside.pop()

    patch.setattr(target, name, entered)
    if what == "datasync":
        sync = DiskFile.datasync

        def maybe_sync(self: DiskFile) -> None:
            if not (inside and where in self._path):
                sync(self)

        patch.setattr(DiskFile, "datasync", maybe_sync)
    else:
        folder = Disk.sync_folder

        def maybe_folder(self: Disk, path: str) -> None:
            if not inside:
                folder(self, path)

        patch.setattr(Disk, "sync_folder", maybe_folder)
