"""The local copy of compacted topics: whole or behind, never wrong, never somebody else's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.storage.local import LocalCopy


def test_rows_and_position_survive_a_restart_together(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path / "copy.sqlite3", "cluster-1")
    copy.write([("t", b"a", b"1"), ("t", b"b", b"2"), ("t", b"a", None), ("u", b"a", b"3")], [("t", 0, 7, "id-t")])
    copy.close()
    copy = LocalCopy(tmp_path / "copy.sqlite3", "cluster-1")
    assert dict(copy.rows("t")) == {b"b": b"2"} and dict(copy.rows("u")) == {b"a": b"3"}
    assert copy.position("t", 0, "id-t") == 7
    assert copy.position("t", 1, "id-t") is None
    copy.close()


def test_a_topic_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path / "copy.sqlite3", "cluster-1")
    copy.write([("t", b"a", b"1")], [("t", 0, 7, "id-t")])
    assert copy.position("t", 0, "another id") is None
    copy.forget("t")
    assert dict(copy.rows("t")) == {} and copy.position("t", 0, "id-t") is None
    copy.close()


@pytest.mark.parametrize("spoil", ["another cluster", "not a database", "another version"])
def test_a_copy_of_anything_else_is_thrown_away(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "copy.sqlite3"
    copy = LocalCopy(path, "cluster-1")
    copy.write([("t", b"a", b"1")], [("t", 0, 7, "id-t")])
    copy.close()
    if spoil == "not a database":
        path.write_bytes(b"rubbish" * 1000)
    elif spoil == "another version":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    copy = LocalCopy(path, "cluster-2" if spoil == "another cluster" else "cluster-1")
    assert dict(copy.rows("t")) == {} and copy.position("t", 0, "id-t") is None
    copy.close()


def test_a_failed_write_leaves_rows_and_position_as_they_were(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path / "copy.sqlite3", "cluster-1")
    copy.write([("t", b"a", b"1")], [("t", 0, 1, "id-t")])
    with pytest.raises(sqlite3.Error):
        copy.write([("t", b"a", b"2")], [("t", 0, 2)])  # type: ignore[list-item]  # meant to fail
    assert dict(copy.rows("t")) == {b"a": b"1"} and copy.position("t", 0, "id-t") == 1
    copy.close()
