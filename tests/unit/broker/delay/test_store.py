"""The local copy of what is pending: kept over the process's end, dropped when it may be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.delay.entry import Entry, Position, encode
from broker.delay.store import MAX_AGE_MS, Store

NOW = 1_800_000_000_000


def opened(path: Path, *, copy_of: str = "topic", now: int = NOW, boot: str = "first") -> Store:
    return Store(path, copy_of, now=now, boot=boot)


def put(store: Store, row: int, due: int, size: int = 10) -> None:
    entry = Entry(due=due, timestamp=NOW, target="orders", id=f"id-{row}", key=b"k", value=b"x" * size)
    position = Position(next=row + 1, topic="source")
    store.apply(put={row: (entry, encode(entry))}, removed=(), log_next=row + 1, now=NOW, position=position)


def test_what_was_applied_is_there_again_with_its_place(tmp_path: Path) -> None:
    store = opened(tmp_path / "a")
    put(store, 7, NOW + 5)
    store.close()
    again = opened(tmp_path / "a", now=NOW + MAX_AGE_MS)
    assert (again.log_next, again.position.next, again.next_due) == (8, 8, NOW + 5)
    assert again.matching(b"k", "id-7") == [7] and again.holds(7) and not again.holds(8)


@pytest.mark.parametrize("change", [{"copy_of": "another"}, {"now": NOW + MAX_AGE_MS + 1}, {"boot": "second"}])
def test_a_copy_that_may_be_wrong_is_dropped(tmp_path: Path, change: dict[str, str | int]) -> None:
    store = opened(tmp_path / "a")
    put(store, 7, NOW + 5)
    store.close()
    again = opened(tmp_path / "a", **change)  # type: ignore[arg-type]  # one of the keyword arguments
    assert (again.log_next, again.next_due, again.holds(7)) == (0, None, False)


def test_a_file_that_is_no_database_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"rubbish" * 1000)
    assert opened(tmp_path / "a").next_due is None


def test_what_is_due_comes_in_the_order_of_its_time_within_rows_and_bytes(tmp_path: Path) -> None:
    store = opened(tmp_path / "a")
    for row, due in ((1, NOW + 3), (2, NOW + 1), (3, NOW + 2), (4, NOW + 9)):
        put(store, row, due, size=1000)
    assert store.due(NOW, rows=10, size=1 << 20) == []
    assert [each.row for each in store.due(NOW + 3, rows=10, size=1 << 20)] == [2, 3, 1]
    assert [each.row for each in store.due(NOW + 3, rows=2, size=1 << 20)] == [2, 3]
    assert [each.row for each in store.due(NOW + 3, rows=10, size=1)] == [2]
    store.apply(put={}, removed=[2, 3], log_next=9, now=NOW)
    assert store.next_due == NOW + 3
